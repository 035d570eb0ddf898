"""Protocols by name."""

import pytest

from exda_primitives.errors import ConfigError
from exda_primitives.workbench.evaluation import PROTOCOLS, protocol_named


def test_protocols_by_name() -> None:
    for name, protocol in PROTOCOLS.items():
        assert protocol_named(name) is protocol
        assert protocol.name == name


def test_an_unknown_name_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'restormer-Y'\. Did you mean 'restormer-y'\? There are: promptir"):
        protocol_named("restormer-Y")


def test_protocols_that_crop_to_multiples_of_16() -> None:
    assert {name for name, protocol in PROTOCOLS.items() if protocol.crop == 16} == {"promptir", "adair", "moce-ir"}


def test_adair_is_promptir_under_another_name() -> None:
    one, other = PROTOCOLS["promptir"], PROTOCOLS["adair"]
    assert (one.window, one.crop, one.noise, one.luma, one.as_bytes) == (
        other.window,
        other.crop,
        other.noise,
        other.luma,
        other.as_bytes,
    )
