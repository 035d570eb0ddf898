"""Embeddings: images as points, from the outputs or the token maps of attentions."""

import pytest
import torch
from tests.lifecycle.networks import image, network, trained
from torch import Tensor, nn

import exda_primitives as exda
from exda_primitives.workbench.inspection import concatenated, embeddings
from exda_primitives.workbench.inspection.attentions import attentions
from exda_primitives.workbench.inspection.embeddings import standardised


@pytest.mark.parametrize("family", ["mdta", "cross", "histogram"])
@pytest.mark.parametrize("patched", [False, True])
def test_outputs_of_every_family(family: str, patched: bool) -> None:
    model = trained(family) if patched else network(family)
    seen: list[Tensor] = []
    name, module = list(attentions(model).items())[-1]
    handle = module.register_forward_hook(lambda module, inputs, output: seen.append(output))
    with torch.no_grad():
        model(image())
    handle.remove()
    found = embeddings(model, image())[name]
    expected = torch.cat([seen[0].mean((2, 3)), seen[0].var((2, 3), correction=0).sqrt()], 1)
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_token_features_are_quantiles_of_their_maps() -> None:
    model = trained(config=exda.ExDAConfig(tokens=2))
    seen: list[Tensor] = []
    attention = model.get_submodule("encoder_level1.0.attn")
    handle = attention.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    model(image(height=32, width=48))
    handle.remove()
    found = embeddings(model, image(height=32, width=48), "encoder_level1", "tokens")["encoder_level1.0.attn"]
    maps = attention.token.maps(seen[0])[0, 0].flatten(1) * 16 * 24
    ordered = maps.sort(1).values
    assert found.shape == (1, 2 * 16)
    assert torch.allclose(found[0, [0, 15, 16, 31]], ordered[:, [0, -1]].flatten())
    for token, quantiles in zip(ordered, found[0].chunk(2), strict=True):
        assert (quantiles.diff() >= 0).all()
        below = (token[:, None] <= quantiles).sum(0) / len(token)
        assert torch.allclose(below, torch.linspace(0, 1, 16), atol=1.01 / len(token))


def test_token_features_do_not_depend_on_position() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 1), exda.ExDAAttention(8, 2, stride=1))
    found = embeddings(model, torch.stack([image()[0], image()[0].flip(-1).roll(3, -2)]), of="tokens")["1"]
    assert torch.allclose(found[0], found[1], rtol=1e-4)


def test_tokens_of_cross_attention_are_of_its_second_map() -> None:
    model = trained("cross")
    name, attention = next((n, m) for n, m in model.named_modules() if isinstance(m, exda.ExDACrossAttention))
    seen: list[Tensor] = []
    handle = attention.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1]))
    model(image())
    handle.remove()
    maps = attention.token.maps(seen[0])
    largest = (maps * maps[0, 0, 0].numel()).amax((-2, -1)).flatten()
    assert torch.allclose(embeddings(model, image(), name, "tokens")[name][0, 15::16], largest, rtol=1e-4)


def test_embeddings_of_attention_on_tokens() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn = exda.ExDAXCAttention(3, 1, value="none")

        def forward(self, x: Tensor) -> Tensor:
            return self.attn(x.flatten(2).transpose(1, 2), grid=tuple(x.shape[2:]))

    model = Net()
    x = image()
    largest = model.attn.token.maps(x).amax() * 8 * 12
    assert torch.allclose(embeddings(model, x, of="tokens")["attn"][0, -1], largest, rtol=1e-4)
    with torch.no_grad():
        output = model(x)[0]
    expected = torch.cat([output.mean(0), output.std(0, correction=0)])
    assert torch.allclose(embeddings(model, x)["attn"][0], expected, rtol=1e-4, atol=1e-6)


def test_the_embedding_of_an_image_does_not_depend_on_the_others() -> None:
    model = trained()
    images = [image(seed)[0] for seed in range(3)]
    together = concatenated(embeddings(model, images))
    assert torch.equal(together, concatenated(embeddings(model, images)))
    alone = torch.cat([concatenated(embeddings(model, [each])) for each in images[::-1]])
    assert torch.equal(together, alone.flip(0))


def test_concatenated_in_the_models_order() -> None:
    found = embeddings(trained(), image(), ["latent", "encoder_level1"])
    assert list(found) == ["encoder_level1.0.attn", "latent.0.attn"]
    assert torch.equal(concatenated(found), torch.cat([*found.values()], 1))


def test_embeddings_are_float32_for_any_dtype() -> None:
    model = trained()
    single = concatenated(embeddings(model, image()))
    double = concatenated(embeddings(model.double(), image()))
    assert double.dtype == torch.float32
    # Computed in float32 and in float64, through the whole network.
    assert torch.allclose(single, double, rtol=1e-3, atol=1e-5)


def test_progress() -> None:
    done: list[int] = []
    embeddings(network(), image(batch=2), on_image=done.append)
    assert done == [1, 2]


def test_embeddings_that_are_not_finite_are_refused() -> None:
    model = trained()
    with pytest.raises(exda.ExDAError, match=r"encoder_level1.*1 of 2 images are not finite, the first of image 2"):
        embeddings(model, [image()[0], image()[0] * torch.nan])


def test_standardised_features_have_mean_0_and_variance_1() -> None:
    points = torch.tensor([[1.0, 0.3, 5.0], [3.0, 0.3, 5.0], [5.0, 0.3 + 3e-8, 8.0]])
    found = standardised(points)
    # sqrt gives -sqrt(1.5), 0, sqrt(1.5): the NaN of the negative value is replaced.
    assert torch.allclose(found[:, 0], torch.tensor([-1.5, 0, 1.5]).sqrt().nan_to_num(-(1.5**0.5)), atol=1e-6)
    # Values that differ by rounding alone become equal.
    assert torch.equal(found[:, 1], torch.zeros(3))
    assert found[:, 2].square().mean() == pytest.approx(1)
