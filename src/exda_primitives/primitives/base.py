"""Base class of the ExDA attentions of all families: options, new parameters, and the host that one may replace."""

from __future__ import annotations

import re
import threading
import warnings
from abc import abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import replace
from itertools import chain
from types import MappingProxyType
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
# PyTorch renames tensors: parametrisations to ``parametrizations.NAME``, pruning to ``NAME_orig`` and ``NAME_mask``,
# weight norm to ``NAME_g`` and ``NAME_v``, spectral norm to ``NAME_orig``, ``NAME_u`` and ``NAME_v``.
_NEW = re.compile(rf"(parametrizations\.)?({'|'.join(NEW_NAMES)})(_orig|_mask|_g|_v|_u)?(\.|$)")
DESCRIPTION = "_extra_state"
"""PyTorch's key for the result of ``get_extra_state``; in a state dict it follows the module's own prefix."""

_last_load = threading.local()
"""Per thread, the ``error_msgs`` list of the load that was last warned about.

PyTorch hands the same list to every module of one load, so that it identifies the load: one warning for each.
"""


def is_new(name: str) -> bool:
    """Whether ExDA added the parameter or buffer that has this name in its attention."""
    return _NEW.match(name) is not None


class ExDAModule(ReplacementModule):
    """Base of every ExDA attention.

    A subclass defines ``PARTS``, ``host_layers`` and ``forward``, and may override the rest. Its ``forward`` gets the
    host's layers from ``part``, and the primitives from ``value_terms`` and ``token_terms``. Under torch.fx the module
    is one call in the graph (``call_when_traced``). Where it replaces a host, callers may name the arguments as the
    host's forward does.

    ``PARTS`` names the host's layers as the official code does. A module that is constructed from scratch builds them;
    one that adopts a host finds them under whatever names the host gave them. All layers are called as modules, with
    two exceptions that leave the result as it is: a bare output projection is folded into the matrices before it, and
    of ``value`` and ``token`` the weights are read if all their convolutions are bare and they have no hooks
    themselves. A layer is bare if it is a convolution or linear layer with plain tensors as parameters and without
    hooks, parametrisation, wrapper or replaced forward. Anything else is called, at the cost of the unfolded formula:
    ``value`` as V (B, C, H, W) -> V', ``token`` as the map (B, C, H, W) -> G (B, h, K, H, W). So modules of your own
    may take their places; the settings of a ``NonlinearValue`` or ``GST`` that does so are in ``config`` from then on.

    Args:
        dim: C, channels.
        num_heads: h.
        bias: whether the host's own layers have a bias.
        tokens: K, global spatial tokens per head; 0 for none, ``"channels"`` for C / h.
        stride: kernel and stride of the average pooling before the tokens' projection.
        scale: scale of a token as a value, ``"sum"`` or ``"mean"``, see ``GST``.
        reinject: ``"mean"`` or ``"channelwise"`` (which needs K = C / h).
        value: form of the non-linear value, see ``NonlinearValue``.
        value_position: ``"before"`` or ``"after"`` the aggregation.
        init: ``"paper"`` (alpha 0.1, token gate 1) or ``"identity"`` (starts as the plain host's function).
        device: device of the parameters.
        dtype: dtype of the parameters.

    Raises:
        ConfigError: for options that do not exist or do not fit, and for C not divisible by h.
    """

    PARTS: ClassVar[tuple[str, ...]]
    """Names of the host's parts: ``temperature`` first, the output projection last."""
    OFFICIAL: ClassVar[Mapping[str, str]] = {}
    """Parts that the official code names differently: name in ``PARTS`` -> attribute there."""
    OPTIONAL: ClassVar[frozenset[str]] = frozenset()
    """Names in ``PARTS`` of the parts that a host may lack."""
    TAKES_TOKENS: ClassVar[bool] = True
    """Whether the attention can have global tokens."""

    # Of a host when it was replaced: its plain settings, and the names of its dropouts.
    _host_settings: Mapping[str, Any] = MappingProxyType({})
    _host_dropouts: tuple[str, ...] = ()

    temperature: nn.Parameter

    linear_value: Callable[..., Tensor] | None = None
    """Method that takes the arguments of ``forward`` and returns the host's linear V (B, C, H, W); for inspection.

    None if V cannot be told. A subclass that defines ``forward`` does not inherit it and has to define its own."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "forward" in vars(cls) and "linear_value" not in vars(cls):
            # The inherited method takes the arguments of the inherited forward.
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
        """Returns the host's layers for a module that is constructed from scratch.

        Args:
            dim: C.
            bias: the constructor's ``bias``.
            factory: keywords ``device`` and ``dtype`` for every layer.

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
        """Sets attributes that only this subclass has; by default there are none.

        Called once, whether the module is constructed or adopts a host: after the configuration, ``dim`` and
        ``num_heads`` are set, before layers and parameters exist.
        """

    def token_macs(self, height: int, width: int) -> int:
        """Multiply-accumulates that K more rows per head add to ``Q K^T`` and ``A V``, for one (C, height, width)."""
        c = self.channels_per_head
        # Two products per head, each c x c x N for the host and (c+K) x (c+K) x N with tokens.
        return 2 * self.num_heads * ((c + self._num_tokens) ** 2 - c**2) * height * width

    @classmethod
    def adopt(
        cls: type[Self], host: nn.Module, parts: Mapping[str, str], config: ExDAConfig, full_name: str = ""
    ) -> Self:
        """Returns an ExDA attention around the layers of ``host``, which keep their objects, names, mode and hooks.

        Args:
            host: the attention to replace; not changed.
            parts: for every name in ``PARTS``, the host's attribute.
            config: what to add, on the device and in the dtype of the host's output projection.
            full_name: the host's name in its model, for error messages.

        Raises:
            ConfigError: when the options do not fit this host; the message holds ``full_name``.
        """
        # Not ``cls(...)``: the constructor would build host layers of its own.
        self = cls.__new__(cls)
        ReplacementModule.__init__(self)
        self._share_parameters_and_children(host)
        # C is the output projection's width.
        project = getattr(host, parts[cls.PARTS[-1]])
        self._describe(width_of(project), cls.heads_of(host, parts), config, dict(parts), full_name)
        self._check_names(host)
        self._add_primitives()
        # New modules start in train mode; the host may be in eval mode.
        for name in NEW_NAMES:
            new = getattr(self, name)
            if isinstance(new, nn.Module):
                new.train(host.training)
        self._watch(host)
        self._share_hooks_and_attributes(host)
        return self

    def _watch(self, host: nn.Module) -> None:
        """Notes the host's settings and dropouts, of which the replacement reads none: see ``_check_unchanged``."""
        layers = {*self._parts.values()}
        self.__dict__["_host_settings"] = {
            name: held
            for name, held in vars(host).items()
            if type(held) in (bool, int, float, str) and not name.startswith("_") and name != "training"
        }
        self.__dict__["_host_dropouts"] = tuple(
            name
            for name, part in host.named_modules()
            if isinstance(part, nn.modules.dropout._DropoutNd) and name.partition(".")[0] not in layers
        )

    def _check_unchanged(self) -> None:
        """Notices what the host would do otherwise by now.

        Raises:
            ConfigError: if a dropout of the host, which would not drop anything when it was replaced, does so now.
        """
        for name in self._host_dropouts if self.training else ():
            p = getattr(self.get_submodule(name), "p", 0)
            if p > 0:
                raise ConfigError(
                    f"{self.own_name()}: {name}.p is {p:g} now; this attention drops no values. Set it to 0, or call "
                    f"exda.unpatch."
                )
        if torch.compiler.is_compiling():
            return
        held = vars(self)
        for name, value in self._host_settings.items():
            if held.get(name) != value:
                # Once for each value.
                self.__dict__["_host_settings"] = {**self._host_settings, name: held.get(name)}
                warnings.warn(
                    f"{self.own_name()}: {name} was {value!r} when it was patched, and is {held.get(name)!r} now. This "
                    f"attention does not read it: if the host does, call exda.unpatch, set it, and patch again.",
                    stacklevel=3,
                )

    @property
    def channels_per_head(self) -> int:
        """C / h."""
        return self.dim // self.num_heads

    def new_parameters(self) -> dict[str, nn.Parameter]:
        """Returns the parameters that ExDA added, by their names in this module."""
        return {name: parameter for name, parameter in self.named_parameters() if is_new(name)}

    def get_extra_state(self) -> Tensor:
        """Returns the configuration as an entry of the state dict, see ``description.encoded``."""
        return encoded(Description(self.config, built_in=not self.replaces_host))

    def set_extra_state(self, state: object) -> None:
        """Does nothing: ``_load_from_state_dict`` compares the configuration before it loads anything."""

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
        """Loads as ``nn.Module`` does, after a check of the configuration.

        An original state dict has no entries for what ExDA added; these parameters then keep their values.

        Raises:
            CheckpointError: if the state dict is from an attention with another configuration.
        """
        own = {prefix + name: tensor for name, tensor in self._new_entries()}
        if prefix + DESCRIPTION in state_dict:
            self._check_description(state_dict[prefix + DESCRIPTION], prefix)
        elif own.keys().isdisjoint(state_dict):
            # Our own values fill the gaps, so that a strict load succeeds. The dictionary is a copy that
            # ``load_state_dict`` made; it takes the children's entries from it after this call.
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
                f"{owner}: the state dict is from an attention with {theirs}, this one has {self.config}. Patch the "
                f"model with the state dict's configuration: exda.load and exda.load_checkpoint do so by themselves."
            )

    def _warn_of_absence(self, prefix: str, load: list[str]) -> None:
        if getattr(_last_load, "errors", None) is load:
            return
        _last_load.errors = load
        warnings.warn(
            f"{prefix.removesuffix('.') or self.own_name()}: the state dict holds nothing of what ExDA added here. Its "
            f"parameters keep their values, here and in every other attention for which the state dict holds nothing. "
            f"This is so when an original checkpoint is loaded into a patched model.",
            stacklevel=2,
        )

    def extra_macs(self, height: int, width: int) -> int:
        """Multiply-accumulates that the paper's formulas add to the host's for one (C, height, width) map."""
        macs = 0
        if self.config.value in ("residual", "replace"):
            # g: two 1x1 convolutions of C^2 and a depthwise 3x3 one of 9 C, per pixel.
            macs += (2 * self.dim**2 + 9 * self.dim) * height * width
        if self.token is not None:
            # Phi: C -> h*K on the pooled map, whose sides are rounded up (ceil mode).
            pooled = -(-height // self.config.stride) * -(-width // self.config.stride)
            macs += self.dim * self.num_heads * self._num_tokens * pooled + self.token_macs(height, width)
        return macs

    def kernel_unsupported_reason(self, height: int, width: int) -> str | None:
        """Returns why the Triton kernels cannot compute maps of this size on the module's device; None if they can."""
        return f"there are no kernels for {type(self).__name__}"

    def map_size(self, x: Tensor, grid: Grid | None = None) -> Grid | None:
        """Returns (H, W) of the input ``x`` if it is known otherwise than from x's shape; else None.

        Args:
            x: an input of ``forward``.
            grid: (H, W), if the call gives it.
        """
        return None

    def start_at_identity(self) -> None:
        """Sets the new parameters in place so that the module computes what its host computes."""
        if self.value is not None:
            self.value.start_at_identity()
        if self.token is not None:
            # alpha = 0: no token row is added to the output. lam = 0: local rows give no softmax mass to tokens. Zero
            # token logits instead would still take mass from the channels.
            nn.init.zeros_(self.alpha)
            nn.init.zeros_(self.token_gate)

    def _is_new(self, name: str) -> bool:
        return is_new(name)

    def _describe(self, dim: int, num_heads: int, config: ExDAConfig, parts: dict[str, str], full_name: str) -> None:
        self.dim, self.num_heads = dim, num_heads
        self.full_name = full_name
        self._parts = parts
        check_heads(self.own_name(), dim, num_heads)
        self._config = config.resolved(self.channels_per_head)
        if self._config.tokens and not self.TAKES_TOKENS:
            raise ConfigError(
                f"{self.own_name()}: global tokens are channels of attention across channels, and have no counterpart "
                f"in attention between pixels; use tokens=0."
            )
        # O[:c] + alpha * O[c:] row by row: both need the same number of rows, K = c.
        if config.reinject == "channelwise" and self._num_tokens not in (0, self.channels_per_head):
            raise ConfigError(
                f"{self.own_name()}: reinject='channelwise' adds token rows to channels one by one, so that tokens has "
                f"to be dim / num_heads = {self.channels_per_head}, not {config.tokens}; use tokens='channels' for "
                f"that of each attention, or reinject='mean' for any number."
            )
        self.init_attributes()

    def _check_names(self, host: nn.Module) -> None:
        """Raises ConfigError if a public attribute of the host has a method's name: one would hide the other."""
        ours = {*dir(type(self))} - {*dir(nn.Module)}
        taken = [name for name in (*vars(host), *host._parameters, *host._modules) if name in ours and name[:1] != "_"]
        if taken:
            raise ConfigError(
                f"{self.own_name()}: the host has an attribute {taken[0]!r}, which is a method's name in the "
                f"replacement; rename the host's attribute."
            )

    def _add_primitives(self) -> None:
        config = self._config
        like = self.host_parameter()
        factory: dict[str, Any] = {"device": like.device, "dtype": like.dtype}
        # Absent primitives are None, so that the four attributes always exist.
        self.value: NonlinearValue | None = None
        self.token: GST | None = None
        self.register_parameter("alpha", None)
        self.register_parameter("token_gate", None)
        if config.value != "none":
            self.value = NonlinearValue(self.dim, config.value, init=config.init, **factory)
        if self._num_tokens:
            self.token = GST(self.dim, self.num_heads, self._num_tokens, config.stride, config.scale, **factory)
            # The paper's start: alpha = 0.1, and lam = 1, which gives its softmax over channels and tokens.
            self.alpha = nn.Parameter(torch.full((self.num_heads, 1, 1), 0.1, **factory))
            self.token_gate = nn.Parameter(torch.ones(self.num_heads, 1, 1, **factory))
        if config.init == "identity":
            self.start_at_identity()

    @property
    def config(self) -> ExDAConfig:
        """The configuration, as it is after another ``NonlinearValue`` or ``GST`` has taken the first one's place."""
        config, value, token = self._config, self._modules.get("value"), self._modules.get("token")
        changes: dict[str, Any] = {}
        form = value.form if type(value) is NonlinearValue else "none" if value is None else config.value
        if form != config.value:
            changes["value"] = form
            if form not in ("none", "residual"):
                # Nothing else starts at the identity.
                changes["init"] = "paper"
        if type(token) is GST:
            settings = {"stride": token.stride, "scale": token.scale}
            if token.tokens != self._num_tokens:
                settings["tokens"] = token.tokens
            changes |= {name: each for name, each in settings.items() if each != getattr(config, name)}
        return replace(config, **changes) if changes else config

    @property
    def _num_tokens(self) -> int:
        """K."""
        return self._config.tokens_of(self.channels_per_head)

    def part(self, name: str) -> Any:
        """Returns the host's layer (or the temperature) for the name ``name`` in ``PARTS``."""
        return getattr(self, self._parts[name])

    def optional_part(self, name: str) -> nn.Module | None:
        """Returns the host's layer for the name ``name`` in ``OPTIONAL``; None if the host has none."""
        return self._modules.get(self._parts.get(name, ""))

    def structural_settings(self) -> Hashable:
        """Returns what tells it from others of its class: configuration, sizes, and the attribute of each part."""
        return repr(self), tuple(self.host_parts.items())

    @property
    def host_parts(self) -> dict[str, str]:
        """Name in ``PARTS`` -> name of the attribute that holds this part; a copy."""
        return dict(self._parts)

    def value_terms(self) -> ValueTerms | None:
        """Returns ``value`` in the form that the operations of ``ops`` take; None if there is none."""
        return None if self.value is None else value_terms(self.value, self._config.value_position)

    def token_terms(self) -> TokenTerms | None:
        """Returns ``token``, ``alpha`` and ``token_gate`` in the form that ``ops`` takes; None without tokens."""
        if self.token is None:
            return None
        config, weight = self._config, phi_weight(self.token)
        if weight is None:
            # The module is called: it pools and scales by itself.
            return TokenTerms(
                None, config.stride, config.scale, config.reinject, self.alpha, self.token_gate, self.token
            )
        token = self.token
        return TokenTerms(weight, token.stride, token.scale, config.reinject, self.alpha, self.token_gate, None)

    def example_map(self, height: int, width: int) -> Tensor:
        """Returns a map (1, C, height, width) in the module's dtype and on its device, for questions about maps.

        It is a single number, expanded, and takes next to no memory.
        """
        like = self.host_parameter()
        return torch.empty((), device=like.device, dtype=like.dtype).expand(1, self.dim, height, width)

    def host_parameter(self) -> Tensor:
        """Returns a parameter with the device and dtype of the maps: the output projection's, if that has any."""
        parameters = chain(self.part(self.PARTS[-1]).parameters(), self.parameters())
        return next(parameter for parameter in parameters if parameter.is_floating_point())

    def check_input(self, name: str, x: Tensor, layout: Layout = "BCHW") -> None:
        """Checks one input of a call.

        Args:
            name: the argument's name, for messages.
            x: the input.
            layout: maps (B, C, H, W), maps with channels last (B, H, W, C), or tokens (B, H*W, C).

        Raises:
            InputError: for anything but a non-empty floating-point tensor with C channels in this layout.
        """
        self._check_unchanged()
        if layout == "BNC":
            problem = tokens_problem(name, x, self.dim)
        else:
            problem = map_problem(name, x, self.dim, channels_last=layout == "BHWC")
        if problem:
            raise InputError(f"{self.own_name()}: {problem}")

    def check_equal_shapes(self, **inputs: Tensor) -> None:
        """Checks that the inputs of a call, given by their names, have equal shapes.

        Raises:
            InputError: for different shapes.
        """
        first, *others = inputs.values()
        if any(x.shape != first.shape for x in others):
            shapes = " and ".join(str(tuple(x.shape)) for x in inputs.values())
            raise InputError(f"{self.own_name()}: expected {' and '.join(inputs)} of equal shape, got {shapes}.")

    def check_dtypes(self, x: Tensor, to_v: TensorFn, value: ValueTerms | None, tokens: TokenTerms | None) -> None:
        """Checks the dtypes of the value's and the tokens' parameters against the input, before PyTorch fails on them.

        Args:
            x: the input that V is made from.
            to_v: the host's layer that returns V.
            value: the result of ``value_terms``.
            tokens: the result of ``token_terms``.

        Raises:
            InputError: for parameters of another dtype than ``x``, outside of autocast.
        """
        phi = None if tokens is None else tokens.weight
        branch = None if value is None else value.branch
        met = (*(branch or ()), *(() if phi is None else (phi,)))
        if all(parameter.dtype is x.dtype for parameter in met):
            return
        found = {} if phi is None else {"token.phi.weight": phi}
        # A layer that is not bare may return V in another dtype than its input: then nothing is known of V's.
        if branch is not None and is_bare(to_v):
            found |= {f"value.{name}": parameter for name, parameter in zip(BRANCH_NAMES, branch, strict=True)}
        if problem := dtype_problem("the map", x, found):
            raise InputError(f"{self.own_name()}: {problem}")

    def has_bias(self) -> bool:
        """The constructor's ``bias``, read from the layers: by default, whether the output projection has one."""
        return any(name.endswith("bias") for name, _ in self.part(self.PARTS[-1]).named_parameters())

    def own_name(self) -> str:
        """Returns its name for messages: its full name in the model, if known, its class and its sizes."""
        kind = f"{type(self).__name__}(dim={self.dim}, num_heads={self.num_heads})"
        return f"{self.full_name}: {kind}" if self.full_name else kind

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={option!r}" for name, option in self.config.as_dict().items())
        return f"{type(self).__name__}(dim={self.dim}, num_heads={self.num_heads}, bias={self.has_bias()}, {options})"
