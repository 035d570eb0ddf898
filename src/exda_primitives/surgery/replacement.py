"""A module in place of another one: with its children, parameters, attributes and hooks, and able to give it back."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from functools import partial, wraps
from inspect import signature
from types import MethodType
from typing import Any, ClassVar, TypeVar
from weakref import ref

from torch import nn

from ..errors import ConfigError, NotPatchedError, WrappedModelError
from ..ops.chosen import BackendName
from ..ops.dispatch import backend, current_backend
from .tracing import as_one_call, is_symbolic

HOOK_NAMES = frozenset(name for name in vars(nn.Module()) if name.endswith("hook") or "_hooks" in name)

Self = TypeVar("Self", bound="ReplacementModule")


class ReplacementModule(nn.Module):
    """Base of what stands in for a host module in its parent.

    A subclass builds itself around a host: first ``_share_parameters_and_children``, then what it adds, and last
    ``_share_hooks_and_attributes``. Whoever calls it may name the arguments as the host's forward names them: a
    subclass's forward gets these by their places.
    """

    _host_arguments: tuple[str, ...] = ()
    """Names of the arguments of the host's forward, in order."""

    _forward_of: ClassVar[str]
    """Names the class whose forward a call of the module is."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "forward" in vars(cls):
            # A name, not the function itself, which torch.compile of PyTorch 2.6 cannot compare.
            cls._forward_of = f"{cls.__module__}.{cls.__qualname__} of {len(cls.__mro__)}"
            cls.forward = _called_as_the_host_is(cls.forward, cls._forward_of)

    def __init__(self) -> None:
        super().__init__()
        self._host: tuple[nn.Module, ...] = ()
        self._adopted: frozenset[str] = frozenset()

    @property
    def replaces_host(self) -> bool:
        """Whether this module stands in for one that it adopted."""
        return bool(self._host)

    @property
    def host(self) -> nn.Module | None:
        """What it stands in for, as that was; None for a module that was constructed from scratch."""
        return self._host[0] if self._host else None

    def release(self) -> nn.Module:
        """The host that was adopted, the same object, with the weights, mode and hooks as they are now.

        Raises:
            NotPatchedError: for a module that was constructed from scratch.
            WrappedModelError: for one whose forward was replaced, or whose parameters were parametrised, meanwhile.
        """
        if not self.replaces_host:
            raise NotPatchedError(f"{self.own_name()}: was constructed as such and stands in for no other module.")
        if problem := self.release_problem():
            raise WrappedModelError(f"{self.own_name()}: {problem}")
        (host,) = self._host
        for name in host._parameters:
            host._parameters[name] = self._parameters[name]
        for name in host._buffers:
            host._buffers[name] = self._buffers[name]
        for name in host._modules:
            host._modules[name] = self._modules[name]
        for key, hook in list(host._forward_pre_hooks.items()):
            # Of torch.nn.utils, whose hooks compute the tensor of this name before each call.
            computed = getattr(hook, "name", getattr(hook, "_tensor_name", ""))
            if type(hook).__module__.startswith("torch.nn.utils.") and self._is_new(computed):
                del host._forward_pre_hooks[key]
        hooks: Iterable[Any] = host._load_state_dict_pre_hooks.values()
        for hook in hooks:
            # PyTorch binds these to the module that they were registered on.
            if getattr(hook, "with_module", False) and hook.module() is self:
                hook.module = ref(host)
        for name in self._added():
            vars(host)[name] = self._rebound(vars(self)[name], host)
        host._is_full_backward_hook = self._is_full_backward_hook
        host.training = self.training
        return host

    def release_problem(self) -> str | None:
        """Why ``release`` cannot give the host back as it should be now; None where it can."""
        (host,) = self._host
        forward = vars(self).get("forward")
        if forward is not None and self._rebound(forward, host) is forward:
            return "its forward was replaced on the instance since it was put in place; undo that first"
        gone = [name for name in host._parameters if name not in self._parameters]
        if gone:
            return f"its {gone[0]} is no parameter any more, parametrised perhaps; undo that first"
        return None

    def structural_settings(self) -> Hashable:
        """Equal for modules of one class that compute the same from equal parameters; here, for none but itself."""
        return id(self)

    def arguments_in_order(
        self, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a call, those that the host's forward has names for by their places.

        Args:
            arguments: by their places already.
            keywords: by the names of the host's arguments, or of this module's where the host has none of that name.

        Returns:
            All arguments that the host has, and the other keywords.
        """
        others, ordered = dict(keywords), list(arguments)
        for name in self._host_arguments[len(arguments) :]:
            if name not in others:
                break
            ordered.append(others.pop(name))
        return tuple(ordered), others

    def call_when_traced(self, *arguments: Any, **keywords: Any) -> Any:
        """What a call under torch.fx returns, whose arguments stand for tensors: itself, as one call in the graph."""
        return as_one_call(self, *arguments, **keywords)

    def _replicate_for_data_parallel(self: Self) -> Self:
        replica: Self = super()._replicate_for_data_parallel()  # type: ignore[no-untyped-call]
        if (chosen := current_backend()) != "auto":
            # It will be called in a thread of its own.
            replica._compiled_call_impl = partial(_call_with, chosen, replica._call_impl)
        return replica

    def _share_parameters_and_children(self, host: nn.Module) -> None:
        """Its parameters, buffers and children, the same objects under the same names."""
        # Nothing is registered that was not before: what listens to that, or replaces it, has no part in this.
        self._parameters.update(host._parameters)
        self._buffers.update(host._buffers)
        self._non_persistent_buffers_set.update(host._non_persistent_buffers_set)
        self._modules.update(host._modules)

    def _is_new(self, name: str) -> bool:
        """Whether a parameter, buffer or child is one that the host does not have."""
        return False

    def _share_hooks_and_attributes(self, host: nn.Module) -> None:
        """Its mode, hooks and other attributes, and itself for ``release``."""
        self.training = host.training
        # The very dictionaries, so that a handle from before removes its hook from either of the two.
        shared = {name: held for name, held in vars(host).items() if name in HOOK_NAMES}
        self.__dict__.update(shared)
        for name, attribute in vars(host).items():
            if not name.startswith("_") and self.__dict__.setdefault(name, attribute) is not attribute:
                self._check_same(name, attribute)
        self.__dict__["_host_arguments"] = tuple(signature(host.forward).parameters)
        # In a tuple, so that its parameters are not registered a second time.
        self.__dict__["_host"] = (host,)
        self.__dict__["_adopted"] = frozenset((*vars(self), "_adopted"))

    def _added(self) -> list[str]:
        """Attributes that somebody gave it since it was put in place: a wrapped forward, whatever belongs to that."""
        # What compile() leaves is made for this module.
        return [name for name in vars(self) if name not in {*self._adopted, *HOOK_NAMES, "_compiled_call_impl"}]

    def _rebound(self, held: Any, host: nn.Module) -> Any:
        """The same with ``host`` in the place of this module; ``held`` itself where that is not in it."""
        if held is self:
            return host
        if isinstance(held, MethodType) and held.__self__ is self:
            return getattr(host, held.__name__)
        if not isinstance(held, partial):
            return held
        arguments = [self._rebound(each, host) for each in held.args]
        if all(ours is theirs for ours, theirs in zip(held.args, arguments, strict=True)):
            return held
        rebound = partial(held.func, *arguments, **held.keywords)
        vars(rebound).update({name: self._rebound(each, host) for name, each in vars(held).items()})
        return rebound

    def _check_same(self, name: str, theirs: object) -> None:
        ours = self.__dict__[name]
        if theirs != ours:
            raise ConfigError(
                f"{self.own_name()}: the host has an attribute {name!r} = {theirs!r} where the replacement needs "
                f"{ours!r}; rename it."
            )

    def own_name(self) -> str:
        """Itself, for messages."""
        return type(self).__name__


def _called_as_the_host_is(forward: Callable[..., Any], owner: str) -> Callable[..., Any]:
    @wraps(forward)
    def called(self: ReplacementModule, *arguments: Any, **keywords: Any) -> Any:
        # What a subclass calls by super() has its own names, and its tensors are there.
        if self._forward_of == owner:
            if keywords:
                arguments, keywords = self.arguments_in_order(arguments, keywords)
            if is_symbolic(arguments[0] if arguments else next(iter(keywords.values()), None)):
                return self.call_when_traced(*arguments, **keywords)
        return forward(self, *arguments, **keywords)

    return called


def _call_with(chosen: BackendName, call: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
    with backend(chosen):
        return call(*arguments, **keywords)
