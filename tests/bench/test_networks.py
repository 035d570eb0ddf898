"""The networks that are compared."""

from dataclasses import replace

import torch
from tests.bench.stubs import COMPARISON, CPU

import exda_primitives as exda
from exda_primitives.bench.networks import BACKBONES, NAMED, Networks, computing, ready
from exda_primitives.ops import dispatch

TINY = Networks.build("restormer-tiny")


def test_the_named_ones_are_built_as_published() -> None:
    for name in NAMED:
        with torch.device("meta"):
            count = sum(parameter.numel() for parameter in BACKBONES[name]().parameters())
        assert count == sum(parameter.numel() for parameter in exda.models.create(name).parameters())


def test_weights_are_shared_and_the_same_at_every_call() -> None:
    again = Networks.build("restormer-tiny")
    for first, second in ((TINY.original, again.original), (TINY.trained, again.trained)):
        assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    original, trained = TINY.original.state_dict(), TINY.trained.state_dict()
    assert all(torch.equal(trained[name], weight) for name, weight in original.items())


def test_no_new_parameter_hides_a_term() -> None:
    identity, trained = TINY.identity.state_dict(), TINY.trained.state_dict()
    assert len(TINY.report.new_parameters) > 10
    for name in TINY.report.new_parameters:
        assert not torch.equal(trained[name], identity[name])
        assert not torch.isin(trained[name], torch.tensor([0.0, 1.0])).any()


def test_copies_leave_the_networks_alone() -> None:
    before = next(TINY.trained.parameters()).clone()
    copied = ready(TINY.trained, "torch", CPU, torch.bfloat16)
    assert {parameter.dtype for parameter in copied.parameters()} == {torch.bfloat16}
    assert torch.equal(next(TINY.trained.parameters()), before)


def test_each_variant_computes_with_its_backend() -> None:
    for variant, name in (("original", "auto"), ("reference", "reference"), ("torch", "torch"), ("fused", "auto")):
        with computing(variant):
            assert dispatch.current_backend() == name


def test_costs_are_those_of_the_batch() -> None:
    one, four = (replace(COMPARISON, batch=batch) for batch in (1, 4))
    assert TINY.macs(four) == 4 * TINY.macs(one)
    assert TINY.extra_macs(four) == 4 * (TINY.report.extra_macs(16, 24) or 0) > 0
    # The first convolution alone: 3 x 3 x 3 to 8 channels.
    assert TINY.macs(one) > 27 * 8 * 16 * 24
