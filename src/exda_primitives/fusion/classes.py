"""Records the classes of a block's parts, and tells at a call what was replaced in them since: a forward, for one."""

from __future__ import annotations

from collections.abc import Iterable
from operator import attrgetter, getitem, is_
from types import FunctionType
from typing import Any
from weakref import WeakValueDictionary

from ..primitives import ExDAModule
from .settings import UnrecordableError, recorded, same


class ClassRecords:
    """What classes and their bases hold: methods with their code, and attributes.

    Copies of a model share it, as they share the classes. A pickle keeps which class had changed, not what is in them.

    Args:
        kinds: classes of modules.

    Raises:
        UnrecordableError: if a class holds an object within which a change would not be seen.
    """

    def __init__(self, kinds: Iterable[type]) -> None:
        self._kinds = tuple(dict.fromkeys(base for kind in kinds for base in bases(kind)))
        self._states = [_state(kind) for kind in self._kinds]
        self._changed_before: str | None = None
        self._remember()
        self.key = str(id(self))
        """Identifies it in this process; a string, since torch.compile takes that for a constant."""
        _ALL[self.key] = self

    def changed(self) -> str | None:
        """Returns the name of a class in which something was set, replaced or removed since; None if there is none."""
        if not (
            [*map(len, self._held)] == self._sizes
            and all(map(is_, map(getitem, self._holders, self._names), self._members))
            and all(map(is_, map(_code, self._functions), self._codes))
            and all(map(same, self._containers, self._contents))
        ):
            for kind, state in zip(self._kinds, self._states, strict=True):
                if _differs(kind, state):
                    return kind.__name__
            # Python itself may have added something: ``copy`` leaves ``__slotnames__``.
            self._remember()
        return self._changed_before

    def _remember(self) -> None:
        """Notes the very objects that the classes hold: comparing these takes less time than ``_differs``."""
        self._held = [vars(kind) for kind in self._kinds]
        self._sizes = [*map(len, self._held)]
        found = [
            (held, name, held[name], copy)
            for held, state in zip(self._held, self._states, strict=True)
            for name, (copy, _) in state.items()
        ]
        self._holders, self._names, self._members = [[each[index] for each in found] for index in range(3)]
        self._functions = [member for member in self._members if isinstance(member, FunctionType)]
        self._codes = [*map(_code, self._functions)]
        # Lists and dictionaries may change and stay the same objects.
        copies = [(member, copy) for _, _, member, copy in found if member is not copy]
        self._containers, self._contents = [member for member, _ in copies], [copy for _, copy in copies]

    def __deepcopy__(self, memo: dict[int, Any]) -> ClassRecords:
        """Returns itself."""
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        """Returns how to record the classes anew, in the process that loads the pickle."""
        return _restored, (self._kinds, self.changed())


_ALL: WeakValueDictionary[str, ClassRecords] = WeakValueDictionary()


_code = attrgetter("__code__")


def changed_class(key: str) -> str | None:
    """Returns ``ClassRecords.changed`` of the records with this key; torch.compile calls it once, while it compiles."""
    return _ALL[key].changed()


# As ``torch.compiler.assume_constant_result`` does, which imports the compiler, and that takes seconds.
vars(changed_class)["_dynamo_marked_constant"] = True


def bases(kind: type) -> list[type]:
    """Returns the class of a module and its bases, without those that ExDA's modules have in common."""
    return [base for base in kind.__mro__ if base not in ExDAModule.__mro__]


def held_by(kind: type) -> dict[str, Any]:
    """Returns what a class itself holds that a forward may read or call."""
    return {
        name: held
        for name, held in vars(kind).items()
        if name in _READ or not (name.startswith("__") or name in _NOT_READ)
    }


# Of Python's own names only these; the others are for construction and display.
_READ = {"__call__", "__getattr__", "__getattribute__"}
_NOT_READ = {"extra_repr", "reset_parameters", "_abc_impl"}


def _differs(kind: type, state: dict[str, tuple[Any, Any]]) -> bool:
    try:
        return not same(_state(kind), state)
    except UnrecordableError:
        return True


def _state(kind: type) -> dict[str, tuple[Any, Any]]:
    """Returns name -> record, and code if it is a function: IPython's autoreload puts new code into the old one."""
    return {
        name: (held if _is_code(held) else recorded(held, f"{kind.__name__}.{name}"), getattr(held, "__code__", None))
        for name, held in held_by(kind).items()
    }


def _is_code(held: object) -> bool:
    """Whether it is a method or computed attribute of any kind: functions, properties, static methods have this."""
    return hasattr(type(held), "__get__")


def _restored(kinds: tuple[type, ...], changed: str | None) -> ClassRecords:
    try:
        records = ClassRecords(kinds)
    except UnrecordableError as error:
        # Another process, in which the classes hold something else.
        records, changed = ClassRecords(()), str(error)
    records._changed_before = changed
    return records
