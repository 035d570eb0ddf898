"""What the ExDA attentions of all families share: options, new parameters, and the host they may stand in for."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

from ..errors import ConfigError, InputError
from ..ops.terms import Reinject, Scale, TokenTerms, ValueForm, ValuePosition, ValueTerms
from .checks import check_heads, map_problem
from .config import ExDAConfig, Init
from .standin import StandIn
from .token import GST
from .value import NonlinearValue

Self = TypeVar("Self", bound="ExDAModule")

NEW_NAMES = ("value", "token", "alpha", "token_gate")


class ExDAModule(StandIn):
    """Base of every ExDA attention.

    A family's module names the host layers that it works with (``PARTS``, under the names that the official code
    uses), builds them when it is constructed from scratch, and finds them under whatever names a host gave them when
    it adopts one. The host's layers are called as modules (the output projection is folded unless it is hooked or
    wrapped); of ``value`` and ``token`` only the weights are read, so that forward hooks on these two do not fire:
    ``token.maps(x)`` gives the maps.

    Args:
        dim: C, channels.
        num_heads: h.
        bias: of the host's own layers.
        tokens: K, global spatial tokens a head; 0 for none.
        stride: of the average pooling before the tokens' projection.
        scale: of a token as a value, ``"sum"`` or ``"mean"``, see :class:`GST`.
        reinject: ``"mean"`` or ``"channelwise"`` (for which K = C / h).
        value: form of the non-linear value, see :class:`NonlinearValue`.
        value_position: ``"before"`` or ``"after"`` the aggregation.
        init: ``"paper"`` (alpha 0.1, token gate 1) or ``"identity"`` (the plain host's function at the start).
        device: of the parameters.
        dtype: of the parameters.

    Raises:
        ConfigError: for options that do not exist or do not fit, and for C not divisible by h.
    """

    PARTS: ClassVar[tuple[str, ...]]
    """Host parts, ``temperature`` first; the last one is the output projection."""

    def __init__(
        self,
        dim: int,
        num_heads: int,
        bias: bool = False,
        *,
        tokens: int = 1,
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
        self._describe(dim, num_heads, config, {part: part for part in self.PARTS}, "")
        factory: dict[str, Any] = {"device": device, "dtype": dtype}
        self.temperature = nn.Parameter(torch.ones(num_heads, 1, 1, **factory))
        for name, layer in self._host_layers(dim, bias, factory).items():
            self.add_module(name, layer)
        self._add_primitives()

    @abstractmethod
    def _host_layers(self, dim: int, bias: bool, factory: dict[str, Any]) -> dict[str, nn.Module]:
        """The layers of ``PARTS`` but the temperature, in the official order."""

    def token_macs(self, height: int, width: int) -> int:
        """Multiply-accumulates that K more rows a head add to ``Q K^T`` and ``A V``, for one (C, height, width)."""
        c = self.dim // self.num_heads
        return 2 * self.num_heads * ((c + self.config.tokens) ** 2 - c**2) * height * width

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
        StandIn.__init__(self)
        self._take_contents(host)
        temperature, project = getattr(host, parts[cls.PARTS[0]]), getattr(host, parts[cls.PARTS[-1]])
        self._describe(len(project.weight), temperature.shape[-3], config, dict(parts), full_name)
        self._add_primitives()
        for name in NEW_NAMES:
            new = getattr(self, name)
            if isinstance(new, nn.Module):
                new.train(host.training)
        self._take_surroundings(host)
        return self

    def new_parameters(self) -> dict[str, nn.Parameter]:
        """The parameters that the host does not have, by their names in this module."""
        return {name: parameter for name, parameter in self.named_parameters() if name.split(".", 1)[0] in NEW_NAMES}

    def extra_macs(self, height: int, width: int) -> int:
        """Multiply-accumulates that the printed formulas add to the host's for one (C, height, width) map."""
        macs = 0
        if self.config.value in ("residual", "replace"):
            macs += (2 * self.dim**2 + 9 * self.dim) * height * width
        if self.token is not None:
            pooled = -(-height // self.config.stride) * -(-width // self.config.stride)
            macs += self.dim * self.num_heads * self.config.tokens * pooled + self.token_macs(height, width)
        return macs

    def kernel_obstacle(self, height: int, width: int) -> str | None:
        """Why the Triton kernels cannot compute maps of this size where the module lies; None if they can."""
        return f"there are no kernels for {type(self).__name__}"

    def start_at_identity(self) -> None:
        """Sets the new parameters in place so that the module computes what its host computes."""
        if self.value is not None:
            self.value.start_at_identity()
        if self.token is not None:
            nn.init.zeros_(self.alpha)
            nn.init.zeros_(self.token_gate)

    def _describe(self, dim: int, num_heads: int, config: ExDAConfig, parts: dict[str, str], full_name: str) -> None:
        self.dim, self.num_heads, self.config = dim, num_heads, config
        self.full_name = full_name
        self._parts = parts
        check_heads(self._owner(), dim, num_heads)
        if config.reinject == "channelwise" and config.tokens not in (0, dim // num_heads):
            raise ConfigError(
                f"{self._owner()}: reinject='channelwise' adds token rows to channels one by one, so that tokens has "
                f"to be dim / num_heads = {dim // num_heads}, not {config.tokens}; use reinject='mean' for any number."
            )

    def _add_primitives(self) -> None:
        config = self.config
        like = self.part(self.PARTS[-1]).weight
        factory = {"device": like.device, "dtype": like.dtype}
        self.value: NonlinearValue | None = None
        self.token: GST | None = None
        self.register_parameter("alpha", None)
        self.register_parameter("token_gate", None)
        if config.value != "none":
            self.value = NonlinearValue(self.dim, config.value, init=config.init, **factory)
        if config.tokens:
            self.token = GST(self.dim, self.num_heads, config.tokens, config.stride, config.scale, **factory)
            self.alpha = nn.Parameter(torch.full((self.num_heads, 1, 1), 0.1, **factory))
            self.token_gate = nn.Parameter(torch.ones(self.num_heads, 1, 1, **factory))
        if config.init == "identity":
            self.start_at_identity()

    def part(self, name: str) -> Any:
        """The host layer (or the temperature) that plays the part ``name`` of ``PARTS``."""
        return getattr(self, self._parts[name])

    @property
    def host_parts(self) -> dict[str, str]:
        """For every name in ``PARTS``, the attribute that plays this part."""
        return dict(self._parts)

    def _value_terms(self) -> ValueTerms | None:
        return None if self.value is None else self.value.terms(self.config.value_position)

    def _token_terms(self) -> TokenTerms | None:
        if self.token is None:
            return None
        config = self.config
        return TokenTerms(
            self.token.phi.weight, config.stride, config.scale, config.reinject, self.alpha, self.token_gate
        )

    def _sketch(self, height: int, width: int) -> Tensor:
        """A map to ask about: of the module's device and dtype, and next to no memory."""
        return self.part(self.PARTS[-1]).weight.new_empty(()).expand(1, self.dim, height, width)

    def _check(self, name: str, x: Tensor) -> None:
        if problem := map_problem(name, x, self.dim):
            raise InputError(f"{self._owner()}: {problem}")

    def _bias(self) -> bool:
        """The constructor's argument ``bias``."""
        return self.part(self.PARTS[-1]).bias is not None

    def _owner(self) -> str:
        kind = f"{type(self).__name__}(dim={self.dim}, num_heads={self.num_heads})"
        return f"{self.full_name}: {kind}" if self.full_name else kind

    def __repr__(self) -> str:
        options = ", ".join(f"{name}={option!r}" for name, option in self.config.as_dict().items())
        return f"{type(self).__name__}(dim={self.dim}, num_heads={self.num_heads}, bias={self._bias()}, {options})"
