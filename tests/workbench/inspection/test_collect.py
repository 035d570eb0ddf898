"""Collecting from a model leaves no trace in it."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tests.lifecycle.networks import image, network, trained
from tests.patching.hosts import Histogram
from torch import Tensor, nn

import exda_primitives as exda
from exda_primitives.workbench.inspection.attentions import attentions
from exda_primitives.workbench.inspection.collect import Call, collect


def size(call: Call) -> Tensor:
    return torch.tensor(call.output.shape)


def hooks(model: nn.Module) -> list[int]:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs")
    return [len(getattr(module, kind)) for module in model.modules() for kind in kinds]


def test_rows_are_in_the_order_of_the_images() -> None:
    model = network()
    found = collect(model, [image()[0], image(height=8, width=40)[0]], attentions(model, "refinement"), size)
    # An image of less than 16 rows is padded to 16.
    assert {name: [row.tolist() for row in rows] for name, rows in found.items()} == {
        "refinement.0.attn": [[1, 16, 16, 24], [1, 16, 16, 40]]
    }


def test_mode_hooks_and_gradients_are_as_before() -> None:
    model = trained()
    model.train()
    model.latent.eval()
    before = hooks(model), [module.training for module in model.modules()]
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    (row,) = collect(model, image(), attentions(model, "latent"), size)["latent.0.attn"]
    assert (hooks(model), [module.training for module in model.modules()]) == before
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    assert not row.is_inference()


class Fails(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        raise RuntimeError("on purpose")


def fail(call: Call) -> Tensor:
    raise ValueError("on purpose")


def no_second_image() -> Iterator[Tensor]:
    yield image()[0]
    raise OSError("on purpose")


@pytest.mark.parametrize("where", ["the model", "the reader", "the images", "an image"])
def test_nothing_is_left_behind_after_an_exception(where: str) -> None:
    model = trained().train()
    chosen = attentions(model)
    images: Any = {"the images": no_second_image(), "an image": [torch.zeros(3, 4, 4, dtype=torch.uint8)]}
    if where == "the model":
        model.output = Fails()
    before = hooks(model)
    with pytest.raises((RuntimeError, ValueError, OSError), match=r"on purpose|uint8"):
        collect(model, images.get(where, image()), chosen, fail if where == "the reader" else size)
    assert hooks(model) == before
    assert model.training


def test_hooks_of_others_are_kept() -> None:
    model = network()
    called = []
    model.latent[0].attn.register_forward_hook(lambda *_: called.append(1))
    collect(model, image(), attentions(model, "latent"), size)
    model(image())
    assert len(called) == 2


def test_the_input_is_what_it_was_before_the_call() -> None:
    # The attention sorts half of its input in place.
    model = nn.Sequential(nn.Conv2d(3, 8, 1), Histogram())
    (row,) = collect(model, image(), attentions(model), lambda call: call.inputs[0])["1"]
    torch.testing.assert_close(row, model[0](image()).detach())


def test_a_block_that_an_image_does_not_reach_is_refused() -> None:
    class Route(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = exda.ExDAAttention(3, 1), exda.ExDAAttention(3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(x) if x.amax() > 2 else self.first(x)

    model = Route()
    images = [image()[0], image()[0] + 2]
    with pytest.raises(exda.ConfigError, match=r"image 1 .* without a call of second"):
        collect(model, images, attentions(model), size)
    assert not any(hooks(model))


def test_no_images_are_refused() -> None:
    with pytest.raises(exda.ImageError, match="no images"):
        collect(network(), [], {}, size)


@pytest.mark.parametrize("image", [torch.rand(1, 3, 8, 8), torch.rand(3, 0, 8), torch.zeros(3, 8, 8).byte()])
def test_tensors_that_are_no_images_are_refused(image: Tensor) -> None:
    with pytest.raises(exda.ImageError, match="expected a float image"):
        collect(network(), [image], {}, size)
