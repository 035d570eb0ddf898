"""Runs a model on images and reads what its attentions receive and return."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from inspect import signature
from typing import Any, NamedTuple

from torch import Tensor, nn

from ... import memory
from ...errors import ConfigError, ImageError, some_of
from ...patching import Family
from ...patching.backbones import MULTIPLE, known_multiple
from ...surgery.replacement import ReplacementModule
from ..shared.inference import inferring
from ..shared.padding import pad
from .attentions import unwrapped
from .layouts import family_of


class Call(NamedTuple):
    """One call of one attention, with a batch of one image.

    Attributes:
        attention: the attention that was called.
        family: the attention's family: its ``to_map`` turns inputs and output into maps, its ``source`` is the index of
            the input that the values come from.
        inputs: tensor arguments in the order of its forward, in its own layout, as they were before the call.
        options: all other arguments, by name.
        output: result of the call, in the attention's own layout.
    """

    attention: nn.Module
    family: Family
    inputs: tuple[Tensor, ...]
    options: Mapping[str, Any]
    output: Tensor


Reader = Callable[[Call], Tensor]
"""Returns what to keep of a call: a small tensor."""


def collect(
    model: nn.Module,
    images: Iterable[Tensor],
    attentions: Mapping[str, nn.Module],
    read: Reader,
    on_image: Callable[[int], None] = lambda done: None,
) -> dict[str, list[Tensor]]:
    """Runs the model on one image at a time, so that no result depends on other images, and reads every call.

    The model runs in eval mode without gradients; its mode and hooks are restored afterwards, also after an error.

    Args:
        model: takes (1, C, H, W).
        images: (C, H, W) floating point, on any device; padded by reflection to a size that the model accepts.
        attentions: attentions of the model by name, see ``attentions.attentions``.
        read: called with each call; if an attention is called several times for an image, the last call counts.
        on_image: called with the number of images done.

    Returns:
        Name -> one tensor for each image, in their order, on the CPU.

    Raises:
        ImageError: if there are no images, or one is not a float (C, H, W) with pixels.
        ConfigError: if an attention was not called for an image.
    """
    target = unwrapped(model)
    latest: dict[str, Tensor] = {}
    found: dict[str, list[Tensor]] = {name: [] for name in attentions}
    done = 0
    with inferring(target), _watched(attentions, read, latest):
        for done, image in enumerate(images, 1):
            latest.clear()
            target(model_input(target, image))
            if missed := [name for name in attentions if name not in latest]:
                raise ConfigError(
                    f"image {done} passed through the model without a call of {some_of(missed)}; select with blocks= "
                    "only attentions that every image reaches"
                )
            for name, value in latest.items():
                found[name].append(value)
            memory.release()
            on_image(done)
    if not done:
        raise ImageError("no images were given; give at least one.")
    # Cloned outside of inference mode, since autograd refuses tensors that were made in it.
    return {name: [row.clone() for row in rows] for name, rows in found.items()}


def model_input(model: nn.Module, image: Tensor) -> Tensor:
    """Turns (C, H, W) into (1, C, H', W') for the model: padded by reflection, on its device and in its dtype."""
    if image.ndim != 3 or 0 in image.shape or not image.is_floating_point():
        raise ImageError(f"expected a float image (C, H, W) with pixels, got {tuple(image.shape)} of {image.dtype}.")
    like = next((p for p in model.parameters() if p.is_floating_point()), image)
    return pad(image[None].to(like.device, like.dtype), known_multiple(model) or MULTIPLE)


@contextmanager
def _watched(attentions: Mapping[str, nn.Module], read: Reader, latest: dict[str, Tensor]) -> Iterator[None]:
    """Puts hooks on the attentions that fill ``latest``, and removes them at the end of the block."""
    handles = []
    try:
        for name, module in attentions.items():
            for handle in _hooks(name, module, read, latest):
                handles.append(handle)
        yield
    finally:
        for handle in handles:
            handle.remove()


def _hooks(name: str, module: nn.Module, read: Reader, latest: dict[str, Tensor]) -> Iterator[Any]:
    # Handed from the hook before a call to the hook after it; holds one entry during a call.
    received: list[Mapping[str, Any]] = []
    family = family_of(module)

    def before(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        if isinstance(module, ReplacementModule):
            arguments, keywords = module.arguments_in_order(arguments, keywords)
        given = signature(module.forward).bind(*arguments, **keywords).arguments
        # A copy: the official histogram attention writes into its input.
        received[:] = [{key: each.clone() if isinstance(each, Tensor) else each for key, each in given.items()}]

    def after(module: nn.Module, arguments: tuple[Any, ...], keywords: dict[str, Any], output: Tensor) -> None:
        given = received.pop()
        inputs = tuple(each for each in given.values() if isinstance(each, Tensor))
        options = {key: each for key, each in given.items() if not isinstance(each, Tensor)}
        latest[name] = read(Call(module, family, inputs, options, output)).cpu()

    yield module.register_forward_pre_hook(before, with_kwargs=True)
    yield module.register_forward_hook(after, with_kwargs=True)
