"""The reference MoCE-IR against the official one's golden outputs."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from tests.goldens.recipe import FOLDER, fill, load_case, load_spec
from torch import Tensor, nn

import exda_primitives as exda
from exda_primitives.models import MoCEIR
from exda_primitives.models.blocks import CrossAttention
from exda_primitives.models.moceir_experts import Expert, FFTAttention, MixtureOfExperts, Routing, expert_ranks

from .checks import (
    FLOAT32_MODULE,
    FLOAT32_NETWORK,
    FLOAT64,
    IDENTITY,
    assert_official_state,
    assert_patches,
    build,
    worst,
)

NAME = "moceir-s"
EXPERT = "module-moceir_expert_dim32_rank8_patch16"
FFT_ATTENTION = "module-moceir_fftattention_dim16_patch8"
CROSS_ATTENTION = "attention-moceir_cross_dim64_heads2"

TINY = {"dim": 8, "heads": [1, 2, 4, 8]}


def reseed(*_: Any) -> None:
    torch.manual_seed(0)


@cache
def network() -> nn.Module:
    """The published network, with the seed that the noise of the golden outputs was drawn with."""
    model = build(NAME, MoCEIR)
    model.register_forward_pre_hook(reseed)
    return model


def tiny(**arguments: Any) -> nn.Module:
    """A small network filled as the golden ones are: with initial weights, experts hardly affect the output."""
    model = MoCEIR(**TINY, **arguments)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(fill(name, tuple(parameter.shape), seed=0)))
    return model.eval()


def expert(dim: int, rank: int, patch_size: int, **_: Any) -> Expert:
    return Expert(dim, rank, patch_size)


def fft_attention(dim: int, patch_size: int, **_: Any) -> FFTAttention:
    return FFTAttention(dim, patch_size)


def cross_attention(**config: Any) -> CrossAttention:
    return CrossAttention(**config, kv_kernel=7)


def images(count: int, height: int = 24, width: int = 40) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def run(model: nn.Module, x: Tensor, seed: int) -> tuple[Tensor, list[list[list[int]]]]:
    """Returns the output, and the chosen experts for each decoder block and image."""
    chosen: list[list[list[int]]] = []

    def note(_: nn.Module, __: Any, gates: Tensor) -> None:
        chosen.append([gate.nonzero().flatten().tolist() for gate in gates])

    handles = [module.register_forward_hook(note) for module in model.modules() if isinstance(module, Routing)]
    torch.manual_seed(seed)
    output = model(x)
    for handle in handles:
        handle.remove()
    return output, chosen


class FixedRouting(nn.Module):
    """A routing with given gates."""

    topk = 1

    def __init__(self, gates: Tensor) -> None:
        super().__init__()
        self.gates = gates

    def forward(self, *_: Tensor) -> Any:
        return self.gates


def mixture(gates: list[list[float]]) -> MixtureOfExperts:
    module = MixtureOfExperts(8, 16, [1, 2, 4, 8], topk=1, complexity_scale="max")
    module.add_module("routing", FixedRouting(torch.tensor(gates)))
    return module


def test_state_dict_has_the_official_keys_in_the_official_order() -> None:
    spec = load_spec(NAME)
    with torch.device("meta"):
        assert_official_state(MoCEIR(**spec["config"]), spec)


def test_defaults_are_the_official_ones() -> None:
    with torch.device("meta"):
        model = MoCEIR()
    assert len(model.state_dict()) == 366
    assert sum(parameter.numel() for parameter in model.parameters()) == 4648613


def test_complexities_are_the_official_ones() -> None:
    spec = load_spec(NAME)
    state = MoCEIR(**spec["config"]).state_dict()
    assert len(spec["constants"]) == 10
    for key, complexity in spec["constants"].items():
        assert torch.equal(state[key], torch.tensor(complexity))


def test_complexities_relative_to_the_smallest_expert() -> None:
    state = tiny(rank_type="spread", complexity_scale="min").state_dict()
    relative = state["dec.2.2.layers.0.adapter.routing.complexity"]
    assert relative.min() == relative[0] == 1
    assert torch.equal(relative, relative.sort().values)


@pytest.mark.parametrize("index", range(3))
def test_network_in_both_precisions(index: int) -> None:
    case = load_case(NAME, index)
    assert worst(network(), case, torch.float32) <= FLOAT32_NETWORK
    assert worst(network(), case, torch.float64) <= FLOAT64


@pytest.mark.parametrize(
    ("name", "make"), [(EXPERT, expert), (FFT_ATTENTION, fft_attention), (CROSS_ATTENTION, cross_attention)]
)
def test_modules_in_both_precisions(name: str, make: Any) -> None:
    module, spec = build(name, make), load_spec(name)
    assert_official_state(module, spec)
    for index in range(len(spec["cases"])):
        case = load_case(name, index)
        assert worst(module, case, torch.float32) <= FLOAT32_MODULE
        assert worst(module, case, torch.float64) <= FLOAT64


def test_choices_are_the_official_ones() -> None:
    for index in (0, 1):
        with np.load(FOLDER / f"{NAME}.npz") as arrays:
            gates = arrays[f"gates_{index}"]
        _, chosen = run(network(), torch.from_numpy(load_case(NAME, index).inputs[0]), seed=0)
        assert chosen == [[gate.nonzero()[0].tolist() for gate in block] for block in gates]


@pytest.mark.parametrize("training", [False, True])
def test_noise_is_drawn_in_either_mode(training: bool) -> None:
    routing = Routing(8, 16, 2, torch.ones(3)).train(training)
    x, frequencies = torch.rand(5, 8, 3, 7), torch.rand(5, 16)
    torch.manual_seed(3)
    logits = x.mean(dim=(2, 3)) @ routing.gate[2].weight.T + frequencies @ routing.freq_gate.weight.T
    scores = (logits + torch.randn(5, 3) / 3).softmax(dim=1)
    torch.manual_seed(3)
    gates = routing(x, frequencies)
    dropped = scores.argmin(dim=1, keepdim=True)
    assert torch.allclose(gates, scores.scatter(1, dropped, 0), atol=1e-6)


def test_the_output_depends_on_the_seed_through_the_choices() -> None:
    model, x = tiny(), images(1)
    output, chosen = run(model, x, seed=0)
    again, chosen_again = run(model, x, seed=0)
    assert torch.equal(output, again)
    assert chosen == chosen_again
    others = [run(model, x, seed) for seed in range(1, 9)]
    assert 0 < sum(other != chosen for _, other in others) < 8
    for other, chosen_there in others:
        assert ((other - output).abs().max() > 1e-4) == (chosen_there != chosen)


def test_in_evaluation_the_images_of_a_batch_are_coupled() -> None:
    gates = [[0, 0, 0, 0.5], [0, 0.75, 0, 0], [0, 0, 0, 0.25]]
    module = mixture(gates).eval()
    x, shared = torch.rand(2, 3, 8, 5, 7)
    experts = [part[0] for part in module.experts]
    for i, gate in enumerate((0.5, 0.75, 0.25)):
        one = x[i : i + 1], shared[i : i + 1]
        expected = module.proj_out(gate * (2 * experts[3](*one) + experts[1](*one)))
        assert torch.allclose(module(x, x, shared)[i : i + 1], expected, atol=1e-6)


def test_in_training_every_image_gets_its_own_expert() -> None:
    gates = [[0, 0, 0.5, 0], [0.75, 0, 0, 0], [0, 0, 0, 0.25], [0, 1.0, 0, 0]]
    x, shared = torch.rand(2, 4, 8, 5, 7)
    module = mixture(gates).train()
    together = module(x, x, shared)
    for i, gate in enumerate(gates):
        module.add_module("routing", FixedRouting(torch.tensor([gate])))
        for training in (False, True):
            alone = module.train(training)(x[i : i + 1], x[i : i + 1], shared[i : i + 1])
            assert torch.allclose(alone, together[i : i + 1], atol=1e-6)


def test_a_batch_of_the_network_is_coupled_in_evaluation_only() -> None:
    model, x = tiny(), images(3)
    batches = {}
    for training in (False, True):
        batches[training], chosen = run(model.train(training), x, seed=0)
    assert any(block[0] != block[1] for block in chosen)
    assert (batches[False] - batches[True]).abs().max() > 1e-4
    same = x[:1].expand(3, -1, -1, -1)
    for training in (False, True):
        output, chosen = run(model.train(training), same, seed=0)
        differs = (output[0] - output[1]).abs().max() > 1e-4
        assert differs == training


def test_several_experts_for_one_image() -> None:
    model = tiny(topk=3)
    output, chosen = run(model, images(1), seed=0)
    assert [len(image) for block in chosen for image in block] == [3, 3, 3]
    assert torch.equal(output, run(model.train(), images(1), seed=0)[0])
    with pytest.raises(ValueError, match="with topk=3 takes one image at a time, got 2"):
        model.eval()(images(2))
    assert model.train()(images(2)).shape == (2, 3, 24, 40)


def test_depth_has_no_effect() -> None:
    output, _ = run(tiny(), images(1), seed=0)
    deep, _ = run(tiny(depth_type="exp", stage_depth=[4, 5, 6]), images(1), seed=0)
    assert torch.equal(output, deep)


@pytest.mark.parametrize(
    ("rank_type", "ranks"),
    [
        ("constant", [2, 2, 2, 2]),
        ("lin", [2, 3, 4, 5]),
        ("double", [2, 4, 6, 8]),
        ("exp", [2, 4, 8, 16]),
        ("fact", [2, 6, 24, 120]),
        ("spread", [5, 10, 20, 40]),
    ],
)
def test_ranks_of_the_experts(rank_type: Any, ranks: list[int]) -> None:
    assert expert_ranks(rank_type, 2, 40, 4) == ranks


def test_high_pass_kernel_starts_as_a_laplacian_and_is_trained() -> None:
    kernel = MoCEIR(**TINY).freq_embed.high_conv[0].conv.weight
    assert torch.equal(kernel[5, 0], torch.tensor([[-1.0, -1, -1], [-1, 8, -1], [-1, -1, -1]]))
    assert kernel.requires_grad


def test_gradients_reach_every_parameter_once_every_expert_is_chosen() -> None:
    model = tiny().train()

    def one_expert_each(_: nn.Module, __: Any, gates: Tensor) -> Tensor:
        return torch.eye(4) * gates.sum(dim=1, keepdim=True)

    for module in model.modules():
        if isinstance(module, Routing):
            module.register_forward_hook(one_expert_each)
    model(images(4)).square().sum().backward()
    without = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert without == set(load_spec(NAME)["never_used"]) == set()


@pytest.mark.parametrize("training", [False, True])
def test_an_image_reaches_one_expert_of_each_block_and_its_gate_cancels(training: bool) -> None:
    model = tiny().double().train(training)
    model(images(1).double()).square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    for block in range(3):
        adapter = f"dec.{block}.2.layers.0.adapter"
        reached = [gradients[f"{adapter}.experts.{i}.0.body.q.weight"] is not None for i in range(4)]
        assert sum(reached) == 1
        for gate in ("gate.2", "freq_gate"):
            assert gradients[f"{adapter}.routing.{gate}.weight"].abs().max() < 1e-12
        assert gradients[f"{adapter}.proj_out.weight"].abs().max() > 1e-3


def test_gradients_of_an_expert() -> None:
    x, shared = torch.rand(2, 1, 4, 3, 5, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(Expert(4, 2, patch_size=4).double(), (x, shared))


def test_half_precision() -> None:
    attention, x = FFTAttention(8, 4), torch.randn(1, 8, 6, 9)
    attention.bfloat16()
    out = attention(x.bfloat16())
    assert out.dtype is torch.bfloat16
    expected = attention.float()(x.bfloat16().float())
    # bfloat16 has 8 bits; the worst of 300 draws was 0.012 of the peak.
    assert (out - expected).abs().max() <= 0.05 * expected.abs().max()
    with torch.autocast("cpu", torch.bfloat16):
        assert tiny()(images(2)).isfinite().all()


def test_patch_preserves_the_output() -> None:
    sizes = [(1, 3, 32, 24), (2, 3, 16, 40)]
    assert_patches(network(), {"mdta": 38, "cross": 10}, sizes, IDENTITY)


def test_every_attention_has_its_stage() -> None:
    report = exda.plan(tiny())
    places = [(match.family, match.stage, match.downscale) for match in report.matches]
    down = [("mdta", "encoder", 1), ("mdta", "encoder", 2), ("mdta", "encoder", 4), *[("mdta", "latent", 8)] * 3]
    up = [(family, "decoder", downscale) for downscale in (4, 2, 1) for family in ("mdta", "cross")]
    assert places == [*down, *up, ("mdta", "refinement", 1)]
    assert {match.backbone for match in report.matches} == {"moceir"}
    assert report.multiple_of == 8


def test_network_with_fewer_levels_runs() -> None:
    model = MoCEIR(
        dim=8, levels=2, heads=[1, 2], num_blocks=[1, 1], num_dec_blocks=[1], stage_depth=[1], rank_type="spread"
    )
    assert model(images(1, 6, 10)).shape == (1, 3, 6, 10)
    with pytest.raises(ValueError, match=r"multiples of 2, got 6 x 9"):
        model(images(1, 6, 9))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"levels": 1}, "levels must be at least 2, got 1"),
        ({"heads": [1, 2]}, r"heads needs one entry for each of the 4 levels, got \[1, 2\]"),
        ({"num_blocks": [1, 1, 1]}, "num_blocks needs one entry for each of the 4 levels"),
        ({"num_dec_blocks": [1, 1, 1, 1]}, "num_dec_blocks needs one entry for each of the 3 levels of the decoder"),
        ({"stage_depth": [1]}, "stage_depth needs one entry for each of the 3 levels of the decoder"),
        ({"heads": [1, 2, 3, 8]}, "32 channels cannot be shared out equally among 3 heads"),
        ({"LayerNorm_type": "none"}, "LayerNorm_type must be"),
        ({"topk": 5}, "topk must be between 1 and num_experts=4, got 5"),
        ({"topk": 0}, "topk must be between 1 and num_experts=4, got 0"),
        ({"expert_layer": "conv"}, "expert_layer must be 'FFTAttention', the only one there is, got 'conv'"),
        ({"complexity_scale": "mean"}, "complexity_scale must be 'max' or 'min', got 'mean'"),
        ({"depth_type": "deep"}, "depth_type must be .* or a number, got 'deep'"),
        ({"depth_type": 0}, "depths must be at least 1, got depth_type=0"),
        ({"stage_depth": [1, 0, 1]}, r"depths must be at least 1, got depth_type='lin', stage_depth=\[1, 0, 1\]"),
        ({"rank_type": "wide"}, "rank_type must be .*, got 'wide'"),
        ({"rank": 0}, r"every expert needs a channel, got ranks \[0, 0, 0, 0\]"),
        ({"rank_type": "spread", "num_experts": 6}, r"every expert needs a channel, got ranks \[0, 1, 2, 4, 8, 16\]"),
    ],
)
def test_arguments_that_cannot_run_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        MoCEIR(**{**TINY, "dim": 8, **arguments})


def test_images_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"shape \(B, C, H, W\)"):
        tiny()(torch.rand(3, 8, 8))
    with pytest.raises(ValueError, match=r"multiples of 8, got 12 x 16; pad by reflection"):
        tiny()(torch.rand(1, 3, 12, 16))
