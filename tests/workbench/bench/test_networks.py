"""The networks that are compared."""

import copy
from dataclasses import replace

import pytest
import torch
from tests.workbench.bench.stubs import COMPARISON, CPU

import exda_primitives as exda
from exda_primitives.errors import ExDAError, NoMatchError
from exda_primitives.ops import dispatch
from exda_primitives.workbench.bench.networks import BACKBONES, NAMED, Networks, copy_for_variant, variant_backend

TINY = Networks.build("restormer-tiny")


def test_named_networks_have_the_published_size() -> None:
    for name in NAMED:
        with torch.device("meta"):
            count = sum(parameter.numel() for parameter in BACKBONES[name]().parameters())
        assert count == sum(parameter.numel() for parameter in exda.models.create(name).parameters())


def test_weights_are_shared_and_the_same_at_every_call() -> None:
    again = Networks.build("restormer-tiny")
    for variant in ("original", "torch"):
        pairs = zip(TINY.of(variant).parameters(), again.of(variant).parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)
    original = TINY.original.state_dict(keep_vars=True)
    for variant in ("torch", "fused", "fused-original"):
        found = TINY.of(variant).state_dict(keep_vars=True)
        assert all(found[name] is weight for name, weight in original.items())


def test_trained_parameters_are_neither_0_nor_1_nor_at_the_identity_start() -> None:
    identity, trained = TINY.of("torch", identity=True).state_dict(), TINY.of("torch").state_dict()
    # A value of 0 or 1 would hide a term of the formula from the checks.
    assert len(TINY.report.new_parameters) > 10
    for name in TINY.report.new_parameters:
        assert not torch.equal(trained[name], identity[name])
        assert not torch.isin(trained[name], torch.tensor([0.0, 1.0])).any()


def test_copies_leave_the_networks_alone() -> None:
    trained = TINY.of("torch")
    before = next(trained.parameters()).clone()
    copied = copy_for_variant(trained, "torch", CPU, torch.bfloat16)
    assert {parameter.dtype for parameter in copied.parameters()} == {torch.bfloat16}
    assert torch.equal(next(trained.parameters()), before)


def test_blocks_are_recognised_once(monkeypatch: pytest.MonkeyPatch) -> None:
    fused = []
    fuse = exda.fuse
    monkeypatch.setattr(exda, "fuse", lambda model: fused.append(model) or fuse(model))
    networks = Networks.build("restormer-tiny")
    for variant in ("fused-original", "fused", "fused-original", "fused"):
        copy_for_variant(networks.of(variant), variant, CPU, torch.float32)
    assert len(fused) == 2
    assert [exda.is_patched(model) for model in fused] == [False, True]
    assert len(networks.fusion().blocks) == 8
    # A network that is not fused yet is fused as before.
    copy_for_variant(networks.original, "fused-original", CPU, torch.float32)
    assert len(fused) == 3


def test_a_patched_network_is_the_original_itself() -> None:
    model = copy.deepcopy(TINY.of("torch"))
    networks = Networks(model)
    assert networks.of("original") is model
    assert isinstance(networks.patched, str)
    with pytest.raises(ExDAError, match="the network is patched already; fused-original runs it fused"):
        networks.of("fused")
    assert exda.is_patched(networks.of("fused-original"))
    assert networks.report.matches == ()


def test_a_network_without_attentions_is_not_patched() -> None:
    networks = Networks(torch.nn.Sequential(torch.nn.Conv2d(3, 3, 1)))
    with pytest.raises(ExDAError, match="it cannot be patched: Sequential"):
        networks.of("torch")
    with pytest.raises(NoMatchError):
        networks.of("fused-original")
    assert networks.macs(COMPARISON) == 9 * 16 * 24


def test_operations_that_depend_on_values_are_not_counted() -> None:
    class Choosing(torch.nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) if x.mean() > 0 else x

    assert Networks(Choosing(3, 3, 1)).macs(COMPARISON) is None


def test_each_variant_computes_with_its_backend() -> None:
    for variant, name in (
        ("original", "auto"),
        ("reference", "reference"),
        ("torch", "torch"),
        ("fused", "auto"),
        ("fused-original", "auto"),
    ):
        with variant_backend(variant):
            assert dispatch.current_backend() == name


def test_costs_are_those_of_the_batch() -> None:
    one, four = (replace(COMPARISON, batch=batch) for batch in (1, 4))
    assert TINY.macs(four) == 4 * (TINY.macs(one) or 0)
    assert TINY.extra_macs(four) == 4 * (TINY.report.extra_macs(16, 24) or 0) > 0
    # More than the first convolution alone, with its 3 x 3 x 3 weights for each of 8 channels.
    assert (TINY.macs(one) or 0) > 27 * 8 * 16 * 24
