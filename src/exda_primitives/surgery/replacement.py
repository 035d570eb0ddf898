"""A module that replaces another: it shares children, parameters, attributes and hooks, and can give the host back."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from functools import partial, wraps
from inspect import signature
from typing import Any, ClassVar, TypeVar
from weakref import ref

from torch import nn

from ..errors import ConfigError, NotPatchedError, WrappedModelError
from ..ops.choice import BackendName
from ..ops.dispatch import backend, current_backend
from .rebound import rebound
from .references import OF_MODULES
from .tracing import as_one_call, is_symbolic

# The attributes in which ``nn.Module`` keeps its hooks, of all kinds.
HOOK_NAMES = frozenset(name for name in OF_MODULES if name.endswith("hook") or "_hooks" in name)

Self = TypeVar("Self", bound="ReplacementModule")


class ReplacementModule(nn.Module):
    """Base of the modules that replace a host module in its parent.

    A subclass builds itself around a host: first ``_share_parameters_and_children``, then what it adds, and last
    ``_share_hooks_and_attributes``. Callers may name the arguments as the host's forward does; the subclass's forward
    then gets these by position.
    """

    _host_arguments: tuple[str, ...] = ()
    """Names of the arguments of the host's forward, in order."""

    _forward_of: ClassVar[str]
    """Identifies the class whose ``forward`` a call of the module runs first."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "forward" in vars(cls):
            # A string instead of the function: torch.compile of PyTorch 2.6 cannot compare functions.
            cls._forward_of = f"{cls.__module__}.{cls.__qualname__} of {len(cls.__mro__)}"
            cls.forward = _called_as_the_host_is(cls.forward, cls._forward_of)

    def __init__(self) -> None:
        super().__init__()
        # The host, if there is one, and the names of the attributes that this module had when it adopted it.
        self._host: tuple[nn.Module, ...] = ()
        self._adopted: frozenset[str] = frozenset()

    @property
    def replaces_host(self) -> bool:
        """Whether this module replaces a host, rather than being constructed from scratch."""
        return bool(self._host)

    @property
    def host(self) -> nn.Module | None:
        """The replaced module, as it was when it was replaced; None for a module that was constructed from scratch."""
        return self._host[0] if self._host else None

    def release(self) -> nn.Module:
        """Returns the host, the same object, with the weights, mode and hooks as they are now.

        Raises:
            NotPatchedError: for a module that was constructed from scratch.
            WrappedModelError: if the forward was replaced, or a parameter of the host parametrised, in the meantime.
        """
        if not self.replaces_host:
            raise NotPatchedError(f"{self.own_name()}: was constructed from scratch and replaces no other module.")
        if problem := self.release_problem():
            raise WrappedModelError(f"{self.own_name()}: {problem}")
        (host,) = self._host
        # Parameters and children may have been exchanged since; what we added is left behind.
        for name in host._parameters:
            host._parameters[name] = self._parameters[name]
        for name in host._buffers:
            host._buffers[name] = self._buffers[name]
        for name in host._modules:
            host._modules[name] = self._modules[name]
        for key, hook in list(host._forward_pre_hooks.items()):
            # Hooks of torch.nn.utils (pruning, weight norm, spectral norm) compute the tensor of this name before each
            # call. Such a hook on a parameter that we added would fail on the host, which shares our hooks.
            computed = getattr(hook, "name", getattr(hook, "_tensor_name", ""))
            if type(hook).__module__.startswith("torch.nn.utils.") and self._is_new(computed):
                del host._forward_pre_hooks[key]
        hooks: Iterable[Any] = host._load_state_dict_pre_hooks.values()
        for hook in hooks:
            # PyTorch binds these hooks to the module that they were registered on.
            if getattr(hook, "with_module", False) and hook.module() is self:
                hook.module = ref(host)
        # Settings may have been changed on us. What was set meanwhile, such as a wrapped forward, moves to the host.
        shared = [name for name in vars(host) if self._shares(name) and name in vars(self)]
        for name in (*shared, *self._added()):
            vars(host)[name] = rebound(vars(self)[name], self, host)
        # A flag that registering a backward hook sets, besides the dictionaries of hooks, which both modules share.
        host._is_full_backward_hook = self._is_full_backward_hook
        host.training = self.training
        return host

    def release_problem(self) -> str | None:
        """Returns why ``release`` cannot give the host back in its present state; None if it can."""
        (host,) = self._host
        # A new forward can move to the host if it refers to this module in a way that ``rebound`` finds.
        forward = vars(self).get("forward")
        if forward is not None and rebound(forward, self, host) is forward:
            return "its forward was replaced on the instance since it was put in place; undo that first"
        gone = [name for name in host._parameters if name not in self._parameters]
        if gone:
            return f"its {gone[0]} is no parameter any more, parametrised perhaps; undo that first"
        return None

    def structural_settings(self) -> Hashable:
        """Returns a key, equal for modules of one class that compute the same from equal parameters; here, unique."""
        return id(self)

    def arguments_in_order(
        self, arguments: tuple[Any, ...], keywords: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Converts keywords that are named as the host's arguments to positional arguments.

        Args:
            arguments: the positional arguments of a call.
            keywords: its keywords, named as the host's arguments or, if the host has none of that name, as this
                module's.

        Returns:
            The positional arguments, up to the first of the host's that the call does not give, and the other keywords.
        """
        others, ordered = dict(keywords), list(arguments)
        for name in self._host_arguments[len(arguments) :]:
            if name not in others:
                break
            ordered.append(others.pop(name))
        return tuple(ordered), others

    def call_when_traced(self, *arguments: Any, **keywords: Any) -> Any:
        """Returns the result of a call under torch.fx: by default, records this module as one call in the graph."""
        return as_one_call(self, *arguments, **keywords)

    def _replicate_for_data_parallel(self: Self) -> Self:
        replica: Self = super()._replicate_for_data_parallel()  # type: ignore[no-untyped-call]
        if (chosen := current_backend()) != "auto":
            # A replica is called in another thread, which does not have this thread's choice of backend.
            replica._compiled_call_impl = partial(_call_with, chosen, replica._call_impl)
        return replica

    def _share_parameters_and_children(self, host: nn.Module) -> None:
        """Takes over the host's parameters, buffers and children, the same objects under the same names."""
        # Past ``register_parameter`` and ``add_module``: whatever hooks or replaces these would see a registration,
        # though nothing new is registered.
        self._parameters.update(host._parameters)
        self._buffers.update(host._buffers)
        self._non_persistent_buffers_set.update(host._non_persistent_buffers_set)
        self._modules.update(host._modules)

    def _shares(self, name: str) -> bool:
        """Whether it takes over the host's attribute of this name; by default it takes over the public ones."""
        return not name.startswith("_")

    def _is_new(self, name: str) -> bool:
        """Whether the host lacks the parameter, buffer or child of this name; by default it lacks none."""
        return False

    def _share_hooks_and_attributes(self, host: nn.Module) -> None:
        """Takes over the host's mode, hooks and other attributes, and keeps the host for ``release``."""
        self.training = host.training
        # The same dictionaries, not copies: the handle of a hook from before removes it from both modules.
        shared = {name: held for name, held in vars(host).items() if name in HOOK_NAMES}
        self.__dict__.update(shared)
        # An attribute that we set ourselves (``dim``, ``num_heads``) has to be equal to the host's.
        for name, attribute in vars(host).items():
            if self._shares(name) and self.__dict__.setdefault(name, attribute) is not attribute:
                self._check_same(name, attribute)
        self.__dict__["_host_arguments"] = tuple(signature(host.forward).parameters)
        # In a tuple, so that the host is not registered as a child and its parameters are not listed twice.
        self.__dict__["_host"] = (host,)
        self.__dict__["_adopted"] = frozenset((*vars(self), "_adopted"))

    def _added(self) -> list[str]:
        """Returns names of attributes that were set since it was put in place, such as a wrapped forward's."""
        # ``compile()`` leaves ``_compiled_call_impl``, which is of use to this module alone.
        return [name for name in vars(self) if name not in {*self._adopted, *HOOK_NAMES, "_compiled_call_impl"}]

    def _check_same(self, name: str, theirs: object) -> None:
        ours = self.__dict__[name]
        if theirs != ours:
            raise ConfigError(
                f"{self.own_name()}: the host has an attribute {name!r} = {theirs!r}, but the replacement needs "
                f"{ours!r} under this name; rename the host's attribute."
            )

    def own_name(self) -> str:
        """Returns its name for messages."""
        return type(self).__name__


def _called_as_the_host_is(forward: Callable[..., Any], owner: str) -> Callable[..., Any]:
    """Wraps a subclass's ``forward``: sorts the host's keywords into positions, and records calls under torch.fx."""

    @wraps(forward)
    def called(self: ReplacementModule, *arguments: Any, **keywords: Any) -> Any:
        # Only for the outermost forward: one that is called by super() gets its own names and real tensors.
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
