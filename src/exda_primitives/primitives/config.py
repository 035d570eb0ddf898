"""The options of ExDA as one immutable value."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from ..errors import ConfigError
from ..ops.terms import Reinject, Scale, ValueForm, ValuePosition

Init = Literal["paper", "identity"]


@dataclass(frozen=True)
class ExDAConfig:
    """What is put into every attention.

    Attributes:
        tokens: K, global spatial tokens a head; 0 for none.
        stride: of the average pooling before the tokens' projection.
        scale: a token as a value sums to 1 over its compact map (``"sum"``, the paper's: it shrinks as 1/pixels) or
            has mean 1 (``"mean"``: independent of the resolution).
        reinject: ``"mean"`` adds alpha * the mean of the tokens' own output rows to every channel of the head;
            ``"channelwise"`` adds them row by row, for which ``tokens`` must equal the channels a head.
        value: ``"residual"`` V + g(V), ``"replace"`` g(V), ``"gelu"`` GELU(V), ``"sigmoid"`` sigmoid(V), ``"none"`` V.
        value_position: ``"before"`` or ``"after"`` the aggregation.
        init: ``"identity"`` starts as the host's own function (g's last convolution, alpha and the token gate are 0);
            ``"paper"`` starts at the paper's formula (alpha 0.1, gate 1, g as PyTorch initialises it).

    Raises:
        ConfigError: for an unknown option, or an ``"identity"`` start that the chosen value cannot have.

    Example:
        >>> ExDAConfig(tokens=2)
        ExDAConfig(tokens=2, stride=2, scale='sum', reinject='mean', value='residual', value_position='before', \
init='identity')
    """

    tokens: int = 1
    stride: int = 2
    scale: Scale = "sum"
    reinject: Reinject = "mean"
    value: ValueForm = "residual"
    value_position: ValuePosition = "before"
    init: Init = "identity"

    def __post_init__(self) -> None:
        check_integer("ExDAConfig", "tokens", self.tokens, 0)
        check_integer("ExDAConfig", "stride", self.stride, 1)
        check_choice("ExDAConfig", "scale", self.scale, Scale)
        check_choice("ExDAConfig", "reinject", self.reinject, Reinject)
        check_choice("ExDAConfig", "value_position", self.value_position, ValuePosition)
        check_value("ExDAConfig", "value", self.value, self.init)

    def computes_as(self, other: ExDAConfig) -> bool:
        """Whether both give the same function of the same parameters: all but ``init``, which says how they begin."""
        return replace(self, init="paper") == replace(other, init="paper")

    def as_dict(self) -> dict[str, Any]:
        """The options as plain data, ``ExDAConfig(**config.as_dict()) == config``."""
        return asdict(self)


def check_choice(owner: str, name: str, given: object, choices: Any) -> None:
    """Raises ConfigError unless ``given`` is one of the Literal ``choices``."""
    if given not in get_args(choices):
        known = ", ".join(map(repr, get_args(choices)))
        raise ConfigError(f"{owner}({name}={given!r}): expected one of {known}.")


def check_integer(owner: str, name: str, given: object, least: int) -> None:
    """Raises ConfigError unless ``given`` is an integer of at least ``least``."""
    if not isinstance(given, int) or isinstance(given, bool) or given < least:
        raise ConfigError(f"{owner}({name}={given!r}): expected an integer of at least {least}.")


def check_value(owner: str, name: str, form: object, init: object) -> None:
    """Raises ConfigError for a value form (the argument ``name``) or an init that does not exist, or does not fit."""
    check_choice(owner, name, form, ValueForm)
    check_choice(owner, "init", init, Init)
    if init == "identity" and form in ("replace", "gelu", "sigmoid"):
        raise ConfigError(
            f"{owner}({name}={form!r}, init='identity'): a value that takes the place of V cannot start as the host's "
            f"own function; use {name}='residual', or init='paper' and train on."
        )
