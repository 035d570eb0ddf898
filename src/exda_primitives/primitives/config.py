"""The options of ExDA as one immutable value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, TypedDict, get_args

from ..errors import ConfigError, condensed
from ..ops.terms import Reinject, Scale, ValueForm, ValuePosition

Init = Literal["paper", "identity"]
Tokens = int | Literal["channels"]

REPLACING = ("replace", "gelu", "sigmoid")
"""Forms of the value that replace V: no choice of their parameters gives V' = V, so they cannot start at identity."""
# Default of ``init``, which then depends on ``value``.
_BY_VALUE: Any = None


@dataclass(frozen=True)
class ExDAConfig:
    """The options of ExDA for an attention.

    Attributes:
        tokens: K, global spatial tokens per head; 0 for none, ``"channels"`` for C / h of each attention.
        stride: kernel and stride of the average pooling before the tokens' projection.
        scale: a token as a value sums to 1 over its compact map (``"sum"``, the paper's: it shrinks as 1/pixels) or
            has mean 1 (``"mean"``: independent of the resolution).
        reinject: ``"mean"`` adds alpha * the mean of the tokens' output rows to every channel of the head;
            ``"channelwise"`` adds them row by row, which needs K = C / h (``tokens="channels"``).
        value: ``"residual"`` V + g(V), ``"replace"`` g(V), ``"gelu"`` GELU(V), ``"sigmoid"`` sigmoid(V), ``"none"`` V.
        value_position: ``"before"`` or ``"after"`` the aggregation.
        init: ``"identity"`` starts as the host's own function (g's last convolution, alpha and the token gate are 0);
            ``"paper"`` starts at the paper's formula (alpha 0.1, gate 1, g as PyTorch initialises it). The default is
            ``"identity"`` if the value allows it (``"residual"``, ``"none"``), otherwise ``"paper"``.

    Raises:
        ConfigError: for an unknown option, or an ``"identity"`` start that the chosen value cannot have.

    Examples:
        >>> ExDAConfig(tokens=2)
        ExDAConfig(tokens=2, stride=2, scale='sum', reinject='mean', value='residual', value_position='before', \
init='identity')
    """

    tokens: Tokens = 1
    stride: int = 2
    scale: Scale = "sum"
    reinject: Reinject = "mean"
    value: ValueForm = "residual"
    value_position: ValuePosition = "before"
    init: Init = _BY_VALUE

    def __post_init__(self) -> None:
        if self.init is _BY_VALUE:
            # The dataclass is frozen.
            object.__setattr__(self, "init", "paper" if self.value in REPLACING else "identity")
        if self.tokens != "channels":
            check_integer("ExDAConfig", "tokens", self.tokens, 0, " or 'channels'")
        check_integer("ExDAConfig", "stride", self.stride, 1)
        check_choice("ExDAConfig", "scale", self.scale, Scale)
        check_choice("ExDAConfig", "reinject", self.reinject, Reinject)
        check_choice("ExDAConfig", "value_position", self.value_position, ValuePosition)
        check_value("ExDAConfig", "value", self.value, self.init)

    def computes_as(self, other: ExDAConfig) -> bool:
        """Whether both compute the same from equal parameters: all options but ``init`` are equal."""
        return replace(self, init="paper") == replace(other, init="paper")

    def as_dict(self) -> dict[str, Any]:
        """Returns the options as plain data; ``ExDAConfig(**config.as_dict()) == config``."""
        return asdict(self)

    def tokens_of(self, channels: int) -> int:
        """Returns K in an attention with ``channels`` channels per head."""
        return self.tokens if isinstance(self.tokens, int) else channels

    def resolved(self, channels: int) -> ExDAConfig:
        """Returns this configuration with ``tokens`` as a number, for an attention with ``channels`` per head."""
        return replace(self, tokens=self.tokens_of(channels))


def common(carried: Sequence[tuple[ExDAConfig, int]]) -> ExDAConfig | None:
    """Returns the one configuration that resolves to all of these; None if there is none.

    Args:
        carried: resolved configuration and channels per head of each attention; at least one.
    """
    first, _ = carried[0]
    for config in (first, replace(first, tokens="channels")):
        if all(held == config.resolved(channels) for held, channels in carried):
            return config
    return None


class ExDAOptions(TypedDict, total=False):
    """The options of ``ExDAConfig`` as keyword arguments."""

    tokens: Tokens
    stride: int
    scale: Scale
    reinject: Reinject
    value: ValueForm
    value_position: ValuePosition
    init: Init


def whereabouts(configs: Mapping[str, ExDAConfig]) -> list[str]:
    """Returns one line per distinct configuration: the options in which they differ, and the modules that have it."""
    held: dict[ExDAConfig, list[str]] = {}
    for name, config in configs.items():
        held.setdefault(config, []).append(name)
    options = [each.name for each in fields(ExDAConfig)]
    different = [option for option in options if len({getattr(config, option) for config in held}) > 1]
    return [
        f"{', '.join(f'{option}={getattr(config, option)!r}' for option in different)}: {condensed(names)}"
        for config, names in held.items()
    ]


def check_choice(owner: str, name: str, given: object, choices: Any) -> None:
    """Raises ConfigError unless ``given`` is one of the Literal ``choices``."""
    if given not in get_args(choices):
        known = ", ".join(map(repr, get_args(choices)))
        raise ConfigError(f"{owner}({name}={given!r}): expected one of {known}.")


def check_integer(owner: str, name: str, given: object, least: int, otherwise: str = "") -> None:
    """Raises ConfigError unless ``given`` is an integer of at least ``least``; ``otherwise`` ends the message."""
    if not isinstance(given, int) or isinstance(given, bool) or given < least:
        raise ConfigError(f"{owner}({name}={given!r}): expected an integer of at least {least}{otherwise}.")


def check_value(owner: str, name: str, form: object, init: object) -> None:
    """Raises ConfigError if the value form (argument ``name``) or the init is unknown, or both do not go together."""
    check_choice(owner, name, form, ValueForm)
    check_choice(owner, "init", init, Init)
    if init == "identity" and form in REPLACING:
        raise ConfigError(
            f"{owner}({name}={form!r}, init='identity'): a value that takes the place of V cannot start as the host's "
            f"own function; use {name}='residual', or init='paper' and train on."
        )
