"""Shows images to a model and reads what its attentions receive and return."""

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
    """One call of one attention, of a batch of one image.

    Attributes:
        attention: that was called.
        family: of the attention; its ``to_map`` makes maps of inputs and output, its ``source`` says from which input
            the values come.
        inputs: its tensors in the order of its forward, as they were before the call and as it takes them.
        options: its other arguments, by name.
        output: of the call.
    """

    attention: nn.Module
    family: Family
    inputs: tuple[Tensor, ...]
    options: Mapping[str, Any]
    output: Tensor


Reader = Callable[[Call], Tensor]
"""What is kept of a call: a small tensor."""


def collect(
    model: nn.Module,
    images: Iterable[Tensor],
    attentions: Mapping[str, nn.Module],
    read: Reader,
    on_image: Callable[[int], None] = lambda done: None,
) -> dict[str, list[Tensor]]:
    """Shows one image after the other, each by itself, so that no result depends on the others.

    The model is in eval mode meanwhile, without gradients, and as it was afterwards, whatever happens.

    Args:
        model: that takes (1, C, H, W).
        images: (C, H, W) floating point, on any device; continued by reflection to the size that the model takes.
        attentions: of the model, by name, see ``attentions.attentions``.
        read: called with each call; of an attention that is called several times for an image, the last one counts.
        on_image: called with the number of images done.

    Returns:
        Name -> what was read, in the order of the images, on the CPU.

    Raises:
        ImageError: for no images, and for what is none.
        ConfigError: for an attention that some image did not reach.
    """
    target = unwrapped(model)
    latest: dict[str, Tensor] = {}
    found: dict[str, list[Tensor]] = {name: [] for name in attentions}
    done = 0
    with inferring(target), _watched(attentions, read, latest):
        for done, image in enumerate(images, 1):
            latest.clear()
            target(as_seen(target, image))
            if missed := [name for name in attentions if name not in latest]:
                raise ConfigError(
                    f"image {done} went through the model without a call of {some_of(missed)}; name the blocks that "
                    "every image reaches"
                )
            for name, value in latest.items():
                found[name].append(value)
            memory.release()
            on_image(done)
    if not done:
        raise ImageError("no images: there is nothing to show to the model.")
    # Inside inference mode they would stay tensors that autograd refuses for good.
    return {name: [row.clone() for row in rows] for name, rows in found.items()}


def as_seen(model: nn.Module, image: Tensor) -> Tensor:
    """(C, H, W) -> (1, C, H', W') as the model gets it: continued by reflection, on its device and in its dtype."""
    if image.ndim != 3 or 0 in image.shape or not image.is_floating_point():
        raise ImageError(f"expected a float image (C, H, W) with pixels, got {tuple(image.shape)} of {image.dtype}.")
    like = next((p for p in model.parameters() if p.is_floating_point()), image)
    return pad(image[None].to(like.device, like.dtype), known_multiple(model) or MULTIPLE)


@contextmanager
def _watched(attentions: Mapping[str, nn.Module], read: Reader, latest: dict[str, Tensor]) -> Iterator[None]:
    """Hooks on the attentions that fill ``latest``, gone when the block is left."""
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
