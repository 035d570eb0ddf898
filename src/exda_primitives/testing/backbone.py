"""Checks of a backbone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..patching import Backbone, Match, patch, plan
from ..patching.registry import BACKBONES, known_families
from .common import assert_close, assert_saved, assert_unpatched, output_of, perturb_parameters, registered, run, seeded

MakeNetwork = Callable[[], nn.Module]


def check_backbone(
    backbone: Backbone, make_network: MakeNetwork, *, channels: int = 3, only: Sequence[str] | None = None
) -> None:
    """Checks a backbone on a small network.

    - ``recognised``: every attention of the network is attributed to this backbone and a stage; no stage is empty.
    - ``sizes``: images whose sides are multiples of ``multiple_of`` pass, and each attention's map is 1/``downscale``
      of the image.
    - ``identity``: the patched network computes the same, bit for bit if the backbone ``sorts``.
    - ``saving``: a fresh network that loads the patched one's file (by ``exda.save``) equals it bit for bit.
    - ``unpatch``: restores the network bit for bit.

    Args:
        backbone: the backbone to check; registered during the call if it is not yet.
        make_network: returns a small network with any weights that takes one image (B, channels, H, W).
        channels: channels of its images.
        only: names of the checks to run; by default all.

    Raises:
        AssertionError: if a check fails; the first failure is raised, with the check's name and the cause.
        RegistrationError: for a backbone that cannot be registered.

    Examples:
        >>> import exda_primitives as exda
        >>> from exda_primitives.patching.registry import known_backbones
        >>> from exda_primitives.testing import check_backbone
        >>> make = lambda: exda.models.Restormer(dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1)
        >>> check_backbone(known_backbones()["restormer"], make, only=["recognised", "sizes"])
    """
    with registered(BACKBONES, backbone):
        run(f"the backbone {backbone.name!r}", BACKBONE_CHECKS, only, backbone, make_network, channels)


def _image(backbone: Backbone, channels: int, height: int = 2, width: int = 3) -> Tensor:
    """Returns an image of ``height`` x ``width`` times ``multiple_of`` pixels; 1 x 1 would be too few for some."""
    size = height * backbone.multiple_of, width * backbone.multiple_of
    return torch.rand((1, channels, *size), generator=torch.Generator().manual_seed(1))


def _recognised(backbone: Backbone, make_network: MakeNetwork, channels: int) -> None:
    report = plan(seeded(make_network))
    assert report.matches, "; ".join(map(str, report.near_misses)) or "the network has no attention of a known family"
    for match in report.matches:
        assert match.backbone == backbone.name, f"{match.name} is said to be of {match.backbone}"
        assert match.stage is not None, f"{match.name} is in no stage"
    idle = [note for note in report.notes if note.startswith("backbone ")]
    assert not idle, "; ".join(idle)
    assert report.multiple_of == backbone.multiple_of


@torch.no_grad()
def _sizes(backbone: Backbone, make_network: MakeNetwork, channels: int) -> None:
    network = seeded(make_network)
    # Name of each attention -> pixels H * W of the map that it was called with.
    pixels: dict[str, int] = {}

    def note(match: Match, module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any]) -> None:
        x = next(each for each in (*inputs, *options.values()) if isinstance(each, Tensor))
        pixels[match.name] = known_families()[match.family].to_map(x)[0, 0].numel()

    matches = plan(network).matches
    for match in matches:
        network.get_submodule(match.name).register_forward_pre_hook(partial(note, match), with_kwargs=True)
    # Not square, so that a stage with exchanged axes is found.
    for size in ((2, 3), (3, 2)):
        image = _image(backbone, channels, *size)
        output_of(network, [image])
        assert pixels, "no attention was called"
        for match in matches:
            assert match.downscale is not None
            expected = (image.shape[2] // match.downscale) * (image.shape[3] // match.downscale)
            # An attention that was not called is not checked: some networks choose their parts by the image.
            found = pixels.get(match.name, expected)
            assert found == expected, (
                f"{match.name} works on {found} pixels of an image {tuple(image.shape[2:])}, not on {expected}: its "
                f"stage {match.stage!r} says downscale {match.downscale}"
            )


@torch.no_grad()
def _identity(backbone: Backbone, make_network: MakeNetwork, channels: int) -> None:
    network, image = seeded(make_network), _image(backbone, channels)
    expected = output_of(network, [image])
    patch(network)
    assert_close(output_of(network, [image]), expected, 0 if backbone.sorts else 1e-5, "patched")


@torch.no_grad()
def _saving(backbone: Backbone, make_network: MakeNetwork, channels: int) -> None:
    network, image = seeded(make_network), _image(backbone, channels)
    patch(network)
    perturb_parameters(network)
    assert_saved(network, seeded(make_network, 1), [image])


def _unpatch(backbone: Backbone, make_network: MakeNetwork, channels: int) -> None:
    network = seeded(make_network)
    assert_unpatched(network, partial(patch, network), [_image(backbone, channels)])


BACKBONE_CHECKS: dict[str, Callable[[Backbone, MakeNetwork, int], None]] = {
    "recognised": _recognised,
    "sizes": _sizes,
    "identity": _identity,
    "saving": _saving,
    "unpatch": _unpatch,
}
"""The checks by name; see ``check_backbone``."""
