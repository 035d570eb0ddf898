"""What the ExDA attentions of all families share: options, new parameters, and the host they may stand in for."""

from __future__ import annotations

import re
import threading
import warnings
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping
from itertools import chain
from typing import Any, ClassVar, Literal, TypeVar

import torch
from torch import Tensor, nn

from ..errors import CheckpointError, ConfigError, InputError
from ..ops.bare import is_bare
from ..ops.terms import Reinject, Scale, TensorFn, TokenTerms, ValueForm, ValuePosition, ValueTerms
from ..surgery.replacement import ReplacementModule
from .checks import check_heads, dtype_problem, map_problem, tokens_problem
from .config import ExDAConfig, Init, Tokens
from .description import Description, decoded, encoded
from .grids import Grid
from .layers import width_of
from .token import GST, phi_weight
from .value import BRANCH_NAMES, NonlinearValue, value_terms

Self = TypeVar("Self", bound="ExDAModule")

Layout = Literal["BCHW", "BHWC", "BNC"]

NEW_NAMES = ("value", "token", "alpha", "token_gate")
# PyTorch's parametrisations keep a tensor elsewhere, its pruning and weight norms by hooks under other names.
_NEW = re.compile(rf"(parametrizations\.)?({'|'.join(NEW_NAMES)})(_orig|_mask|_g|_v|_u)?(\.|$)")
DESCRIPTION = "_extra_state"
"""PyTorch's name for what ``ExDAModule.get_extra_state`` gives, behind the module's own in a state dict."""

_last_load = threading.local()
"""Of each thread: the list of errors of the load that was warned of last, which stands for that load."""


def is_new(name: str) -> bool:
    """Whether a parameter or buffer of an attention, by its name there, is one that ExDA added."""
    return _NEW.match(name) is not None


class ExDAModule(ReplacementModule):
    """Base of every ExDA attention.

    A subclass has ``PARTS``, ``host_layers`` and ``forward``, which takes its layers by ``part`` and what ``value`` and
    ``token`` are by ``value_terms`` and ``token_terms``; the rest it may override. Under torch.fx it is one call in the
    graph (``call_when_traced``), and where it replaces a host, its arguments may be named as the host's are.

    A family's module names the host layers that it works with (``PARTS``, under the names that the official code
    uses), builds them when it is constructed from scratch, and finds them under whatever names a host gave them when
    it adopts one. All layers are called as modules, with two exceptions where nobody can tell. The output projection,
    if it is a bare convolution or linear layer, is folded into what comes before it; and of ``value`` and ``token``, if
    their convolutions are bare, the weights are read. Bare is a layer without hooks, parametrisation, wrapper or
    replaced forward, with plain tensors for parameters; ``value`` and ``token`` themselves have no hooks then either.
    Anything else is called, at the cost of the unfolded formula: ``value`` with V (B, C, H, W) -> V', ``token`` with
    the map (B, C, H, W) -> G (B, h, K, H, W), so that modules of one's own may take their place.

    Args:
        dim: C, channels.
        num_heads: h.
        bias: of the host's own layers.
        tokens: K, global spatial tokens a head; 0 for none, ``"channels"`` for C / h.
        stride: of the average pooling before the tokens' projection.
        scale: of a token as a value, ``"sum"`` or ``"mean"``, see ``GST``.
        reinject: ``"mean"`` or ``"channelwise"`` (for which K = C / h).
        value: form of the non-linear value, see ``NonlinearValue``.
        value_position: ``"before"`` or ``"after"`` the aggregation.
        init: ``"paper"`` (alpha 0.1, token gate 1) or ``"identity"`` (the plain host's function at the start).
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        ConfigError: for options that do not exist or do not fit, and for C not divisible by h.
    """

    PARTS: ClassVar[tuple[str, ...]]
    """Host parts, ``temperature`` first; the last one is the output projection."""
    OFFICIAL: ClassVar[Mapping[str, str]] = {}
    """Parts that the official code calls otherwise: name in ``PARTS`` -> attribute there."""
    OPTIONAL: ClassVar[frozenset[str]] = frozenset()
    """Names in ``PARTS`` of what a host may be without."""
    TAKES_TOKENS: ClassVar[bool] = True
    """Whether global tokens have a meaning here."""

    temperature: nn.Parameter

    linear_value: Callable[..., Tensor] | None = None
    """A method that returns V (B, C, H, W), as the host's layers project it, of what ``forward`` takes; for those who
    look into a model. None where nobody can tell V. A subclass with a ``forward`` of its own has none but its own."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "forward" in vars(cls) and "linear_value" not in vars(cls):
            # That of the base is of what the base's forward takes.
            cls.linear_value = None

    def __init__(
        self,
        dim: int,
        num_heads: int,
        bias: bool = False,
        *,
        tokens: Tokens = 1,
        stride: int = 2,
        scale: Scale = "sum",
        reinject: Reinject = "mean",
        value: ValueForm = "residual",
        value_position: ValuePosition = "before",
        init: Init = "paper",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        config = ExDAConfig(tokens, stride, scale, reinject, value, value_position, init)
        parts = {part: self.OFFICIAL.get(part, part) for part in self.PARTS}
        self._describe(dim, num_heads, config, parts, "")
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        for name, tensor in self.host_tensors(num_heads, factory).items():
            if isinstance(tensor, nn.Parameter):
                self.register_parameter(parts[name], tensor)
            else:
                self.register_buffer(parts[name], tensor)
        for name, layer in self.host_layers(dim, bias, factory).items():
            self.add_module(parts[name], layer)
        self._add_primitives()

    @abstractmethod
    def host_layers(self, dim: int, bias: bool, factory: dict[str, Any]) -> dict[str, nn.Module]:
        """The host's layers of a module that is made from scratch.

        Args:
            dim: C.
            bias: of the constructor.
            factory: keywords ``device`` and ``dtype`` of every layer.

        Returns:
            Name in ``PARTS`` -> layer, all but the temperature, in the order in which the official code makes them.
        """

    def host_tensors(self, num_heads: int, factory: dict[str, Any]) -> dict[str, Tensor]:
        """The host's own tensors, outside of its layers, of a module that is made from scratch: the temperature.

        Args:
            num_heads: h.
            factory: keywords ``device`` and ``dtype``.

        Returns:
            Name in ``PARTS`` -> parameter or buffer.
        """
        return {"temperature": nn.Parameter(torch.ones(num_heads, 1, 1, **factory))}

    @classmethod
    def heads_of(cls, host: nn.Module, parts: Mapping[str, str]) -> int:
        """H of a host with these ``parts``: by default, the length of its temperature (..., h, 1, 1)."""
        temperature: Tensor = getattr(host, parts["temperature"])
        return temperature.shape[-3]

    def init_attributes(self) -> None:
        """Sets attributes that only this kind has; called once, however the module is made. By default there are none.

        The configuration, ``dim`` and ``num_heads`` are set, layers and parameters are not there yet.
        """

    def token_macs(self, height: int, width: int) -> int:
        """Multiply-accumulates that K more rows a head add to ``Q K^T`` and ``A V``, for one (C, height, width)."""
        c = self.channels_per_head
        return 2 * self.num_heads * ((c + self._num_tokens) ** 2 - c**2) * height * width

    @classmethod
    def adopt(
        cls: type[Self], host: nn.Module, parts: Mapping[str, str], config: ExDAConfig, full_name: str = ""
    ) -> Self:
        """An ExDA attention around the layers of ``host``, which keep their objects, names, mode and hooks.

        Args:
            host: the attention to stand in for; not changed.
            parts: for every name in ``PARTS``, the host's attribute.
            config: what to add, on the device and in the dtype of the host's output projection.
            full_name: of the host in its model, for error messages.

        Raises:
            ConfigError: when the options do not fit this host; the message holds ``full_name``.
        """
        self = cls.__new__(cls)
        ReplacementModule.__init__(self)
        self._share_parameters_and_children(host)
        project = getattr(host, parts[cls.PARTS[-1]])
        self._describe(width_of(project), cls.heads_of(host, parts), config, dict(parts), full_name)
        self._check_names(host)
        self._add_primitives()
        for name in NEW_NAMES:
            new = getattr(self, name)
            if isinstance(new, nn.Module):
                new.train(host.training)
        self._share_hooks_and_attributes(host)
        return self

    @property
    def channels_per_head(self) -> int:
        """C / h."""
        return self.dim // self.num_heads

    def new_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that the host does not have, by their names in this module."""
        return {name: parameter for name, parameter in self.named_parameters() if is_new(name)}

    def get_extra_state(self) -> Tensor:
        """The configuration, for the state dict: see ``description``."""
        return encoded(Description(self.config, built_in=not self.replaces_host))

    def set_extra_state(self, state: object) -> None:
        """Nothing: what a state dict says is compared before anything of it is loaded."""

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: Any,
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """As PyTorch calls it; an original state dict lacks what ExDA added, which then stays as it is.

        Raises:
            CheckpointError: for the state of an attention with another configuration.
        """
        own = {prefix + name: tensor for name, tensor in self._new_entries()}
        if prefix + DESCRIPTION in state_dict:
            self._check_description(state_dict[prefix + DESCRIPTION], prefix)
        elif own.keys().isdisjoint(state_dict):
            # The dictionary is PyTorch's own copy, and what the children load is taken from it after this.
            state_dict.update(own)
            state_dict[prefix + DESCRIPTION] = self.get_extra_state()
            self._warn_of_absence(prefix, error_msgs)
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )

    def _new_entries(self) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in chain(self.named_parameters(), self.named_buffers()):
            if is_new(name):
                yield name, tensor

    def _check_description(self, held: object, prefix: str) -> None:
        owner = prefix.removesuffix(".") or self.own_name()
        theirs = decoded(held, owner).config
        if not theirs.computes_as(self.config):
            raise CheckpointError(
                f"{owner}: the state is of an attention with {theirs}, this one has {self.config}. Patch the model "
                f"with the state's configuration: exda.load and exda.load_checkpoint do so by themselves."
            )

    def _warn_of_absence(self, prefix: str, load: list[str]) -> None:
        if getattr(_last_load, "errors", None) is load:
            return
        _last_load.errors = load
        warnings.warn(
            f"{prefix.removesuffix('.') or self.own_name()}: the state dict holds nothing of what ExDA added here; it "
            f"stays as it is, as in every attention of which the state dict holds nothing (an original checkpoint in a "
            f"patched model).",
            stacklevel=2,
        )

    def extra_macs(self, height: int, width: int) -> int:
        """Multiply-accumulates that the printed formulas add to the host's for one (C, height, width) map."""
        macs = 0
        if self.config.value in ("residual", "replace"):
            macs += (2 * self.dim**2 + 9 * self.dim) * height * width
        if self.token is not None:
            pooled = -(-height // self.config.stride) * -(-width // self.config.stride)
            macs += self.dim * self.num_heads * self._num_tokens * pooled + self.token_macs(height, width)
        return macs

    def kernel_unsupported_reason(self, height: int, width: int) -> str | None:
        """Why the Triton kernels cannot compute maps of this size where the module lies; None if they can."""
        return f"there are no kernels for {type(self).__name__}"

    def map_size(self, x: Tensor, grid: Grid | None = None) -> Grid | None:
        """(H, W) of the map that an input ``x`` is, where something beside its shape says it; else None.

        Args:
            x: as ``forward`` takes it.
            grid: (H, W), where the call says it.
        """
        return None

    def start_at_identity(self) -> None:
        """Sets the new parameters in place so that the module computes what its host computes."""
        if self.value is not None:
            self.value.start_at_identity()
        if self.token is not None:
            nn.init.zeros_(self.alpha)
            nn.init.zeros_(self.token_gate)

    def _is_new(self, name: str) -> bool:
        return is_new(name)

    def _describe(self, dim: int, num_heads: int, config: ExDAConfig, parts: dict[str, str], full_name: str) -> None:
        self.dim, self.num_heads = dim, num_heads
        self.full_name = full_name
        self._parts = parts
        check_heads(self.own_name(), dim, num_heads)
        self.config = config.resolved(self.channels_per_head)
        if self.config.tokens and not self.TAKES_TOKENS:
            raise ConfigError(
                f"{self.own_name()}: global tokens are channels of attention across channels, and have no counterpart "
                f"in attention between pixels; use tokens=0."
            )
        if config.reinject == "channelwise" and self._num_tokens not in (0, self.channels_per_head):
            raise ConfigError(
                f"{self.own_name()}: reinject='channelwise' adds token rows to channels one by one, so that tokens has "
                f"to be dim / num_heads = {self.channels_per_head}, not {config.tokens}; use tokens='channels' for "
                f"that of each attention, or reinject='mean' for any number."
            )
        self.init_attributes()

    def _check_names(self, host: nn.Module) -> None:
        """Refuses a host whose attribute would take the place of a method, or be taken for one."""
        ours = {*dir(type(self))} - {*dir(nn.Module)}
        taken = [name for name in (*vars(host), *host._parameters, *host._modules) if name in ours and name[:1] != "_"]
        if taken:
            raise ConfigError(
                f"{self.own_name()}: the host has an attribute {taken[0]!r}, which is a method's name of the "
                f"replacement; rename it."
            )

    def _add_primitives(self) -> None:
        config = self.config
        like = self.host_parameter()
        factory: dict[str, Any] = {"device": like.device, "dtype": like.dtype}
        self.value: NonlinearValue | None = None
        self.token: GST | None = None
        self.register_parameter("alpha", None)
        self.register_parameter("token_gate", None)
        if config.value != "none":
            self.value = NonlinearValue(self.dim, config.value, init=config.init, **factory)
        if self._num_tokens:
            self.token = GST(self.dim, self.num_heads, self._num_tokens, config.stride, config.scale, **factory)
            self.alpha = nn.Parameter(torch.full((self.num_heads, 1, 1), 0.1, **factory))
            self.token_gate = nn.Parameter(torch.ones(self.num_heads, 1, 1, **factory))
        if config.init == "identity":
            self.start_at_identity()

    @property
    def _num_tokens(self) -> int:
        return self.config.tokens_of(self.channels_per_head)

    def part(self, name: str) -> Any:
        """The host layer (or the temperature) that plays the part ``name`` of ``PARTS``."""
        return getattr(self, self._parts[name])

    def optional_part(self, name: str) -> nn.Module | None:
        """The host layer that plays the part ``name`` of ``OPTIONAL``; None where there is none."""
        return self._modules.get(self._parts.get(name, ""))

    def structural_settings(self) -> Hashable:
        """Its configuration and sizes, and which attribute plays which part."""
        return repr(self), tuple(self.host_parts.items())

    @property
    def host_parts(self) -> dict[str, str]:
        """For every name in ``PARTS``, the attribute that plays this part."""
        return dict(self._parts)

    def value_terms(self) -> ValueTerms | None:
        """What an operation of ``ops`` takes of ``value``; None where there is none."""
        return None if self.value is None else value_terms(self.value, self.config.value_position)

    def token_terms(self) -> TokenTerms | None:
        """What an operation of ``ops`` takes of ``token``, ``alpha`` and ``token_gate``; None where there are none."""
        if self.token is None:
            return None
        config, weight = self.config, phi_weight(self.token)
        whole = self.token if weight is None else None
        return TokenTerms(weight, config.stride, config.scale, config.reinject, self.alpha, self.token_gate, whole)

    def example_map(self, height: int, width: int) -> Tensor:
        """A map (1, C, height, width) to ask about, of the module's device and dtype; takes next to no memory."""
        like = self.host_parameter()
        return torch.empty((), device=like.device, dtype=like.dtype).expand(1, self.dim, height, width)

    def host_parameter(self) -> Tensor:
        """A parameter that has the device and dtype of the maps: of the output projection, where that has any."""
        parameters = chain(self.part(self.PARTS[-1]).parameters(), self.parameters())
        return next(parameter for parameter in parameters if parameter.is_floating_point())

    def check_input(self, name: str, x: Tensor, layout: Layout = "BCHW") -> None:
        """Checks an input of the call.

        Args:
            name: of the argument, for messages.
            x: the input.
            layout: maps (B, C, H, W), maps with their channels last (B, H, W, C), or tokens (B, H*W, C).

        Raises:
            InputError: for anything but a non-empty floating-point tensor of C channels that lie so.
        """
        if layout == "BNC":
            problem = tokens_problem(name, x, self.dim)
        else:
            problem = map_problem(name, x, self.dim, channels_last=layout == "BHWC")
        if problem:
            raise InputError(f"{self.own_name()}: {problem}")

    def check_equal_shapes(self, **inputs: Tensor) -> None:
        """Checks two inputs of the call, by their names.

        Raises:
            InputError: for different shapes.
        """
        first, *others = inputs.values()
        if any(x.shape != first.shape for x in others):
            shapes = " and ".join(str(tuple(x.shape)) for x in inputs.values())
            raise InputError(f"{self.own_name()}: expected {' and '.join(inputs)} of equal shape, got {shapes}.")

    def check_dtypes(self, x: Tensor, to_v: TensorFn, value: ValueTerms | None, tokens: TokenTerms | None) -> None:
        """Checks that value and tokens can meet the input, before PyTorch fails inside of them.

        Args:
            x: the input that V is made of.
            to_v: the host's layer that returns V.
            value: of ``value_terms``.
            tokens: of ``token_terms``.

        Raises:
            InputError: for parameters of another dtype than ``x``, outside of autocast.
        """
        phi = None if tokens is None else tokens.weight
        branch = None if value is None else value.branch
        met = (*(branch or ()), *(() if phi is None else (phi,)))
        if all(parameter.dtype is x.dtype for parameter in met):
            return
        found = {} if phi is None else {"token.phi.weight": phi}
        # Anything but a bare layer may return V in another dtype than it is given.
        if branch is not None and is_bare(to_v):
            found |= {f"value.{name}": parameter for name, parameter in zip(BRANCH_NAMES, branch, strict=True)}
        if problem := dtype_problem("the map", x, found):
            raise InputError(f"{self.own_name()}: {problem}")

    def has_bias(self) -> bool:
        """The constructor's argument ``bias``, as the layers have it: by default, whether the output projection has."""
        return any(name.endswith("bias") for name, _ in self.part(self.PARTS[-1]).named_parameters())

    def own_name(self) -> str:
        """How messages call it: by its full name in its model, where that is known, its class and its sizes."""
        kind = f"{type(self).__name__}(dim={self.dim}, num_heads={self.num_heads})"
        return f"{self.full_name}: {kind}" if self.full_name else kind

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={option!r}" for name, option in self.config.as_dict().items())
        return f"{type(self).__name__}(dim={self.dim}, num_heads={self.num_heads}, bias={self.has_bias()}, {options})"
