"""The options of ExDA as one immutable value."""

from __future__ import annotations

from dataclasses import asdict, dataclass
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
        check_options("ExDAConfig", self.as_dict())

    def as_dict(self) -> dict[str, Any]:
        """The options as plain data, ``ExDAConfig(**config.as_dict()) == config``."""
        return asdict(self)


_CHOICES = {
    "scale": Scale,
    "reinject": Reinject,
    "value": ValueForm,
    "value_position": ValuePosition,
    "init": Init,
}
_LEAST = {"tokens": 0, "stride": 1}


def check_options(owner: str, options: dict[str, Any]) -> None:
    """Raises ConfigError, in the name of ``owner``, unless every given option and their combination exist."""
    for name, given in options.items():
        if name in _CHOICES and given not in get_args(_CHOICES[name]):
            known = ", ".join(map(repr, get_args(_CHOICES[name])))
            raise ConfigError(f"{owner}({name}={given!r}): expected one of {known}.")
        if name in _LEAST and (type(given) is not int or given < _LEAST[name]):
            raise ConfigError(f"{owner}({name}={given!r}): expected an integer of at least {_LEAST[name]}.")
    if options.get("init") == "identity" and options.get("value") in ("replace", "gelu", "sigmoid"):
        raise ConfigError(
            f"{owner}(value={options['value']!r}, init='identity'): a value that takes the place of V cannot start as "
            f"the host's own function; use value='residual', or init='paper' and train on."
        )
