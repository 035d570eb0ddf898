"""Images labelled with their degradation, which is synthesised or already there."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from torch import Tensor

from ...errors import ConfigError, ImageError, some_of
from ..data import Images, degrade
from ..data.degradations import degradation_named
from ..shared.crops import centre

CLEAN = "clean"
"""The label of images that are not degraded."""

DEFAULT = ("noise25", "rain", "haze", "blur", "low")
"""The five tasks of all-in-one restoration: denoising, deraining, dehazing, deblurring, low light."""


@dataclass(frozen=True)
class LabelledImages:
    """A sequence of labelled images, read and degraded on access; see ``degraded`` and ``labelled_by_folder``.

    Attributes:
        images: the images as they are on disk.
        items: for each element, its index in ``images``.
        labels: for each element, its degradation.
        synthetic: True if images are clean on disk and degraded on access; False if they are degraded already.
        size: largest height and width in pixels; larger images are cropped around their centre.
        seed: seed of the degradations.
    """

    images: Images
    items: tuple[int, ...]
    labels: tuple[str, ...]
    synthetic: bool
    size: int
    seed: int

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Tensor]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, index: int) -> Tensor:
        """Returns an image (C, H, W), float32 in [0, 1], H and W at most ``size``."""
        item, label = self.items[index], self.labels[index]
        image = centre(self.images[item], self.size)
        # Each image has its own seed, shared by all of its degradations.
        return degrade(image, label, self.seed + item) if self.synthetic and label != CLEAN else image

    def name(self, index: int) -> str:
        """Returns the image's file name, relative to the folder of images."""
        return self.images.names[self.items[index]]

    @property
    def kinds(self) -> list[str]:
        """The different labels, in order of first appearance."""
        return list(dict.fromkeys(self.labels))

    def one_of_each(self) -> list[int]:
        """Returns the index of the first element of each label; if ``synthetic``, all of them show the same image."""
        return [self.labels.index(label) for label in self.kinds]


def degraded(images: Images, names: Sequence[str], size: int, seed: int) -> LabelledImages:
    """Returns every image with every degradation; images are cropped before they are degraded.

    Args:
        images: clean images.
        names: degradations, see ``exda_primitives.workbench.data.degrade``; ``"clean"`` for none.
        size: largest height and width in pixels.
        seed: seed of the degradations.

    Raises:
        ConfigError: for a name that does not exist, or is given twice.
    """
    for name in names:
        if name != CLEAN:
            degradation_named(name)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"degradation {twice[0]!r} is named {names.count(twice[0])} times.")
    every = [(item, name) for name in names for item in range(len(images))]
    return LabelledImages(images, tuple(i for i, _ in every), tuple(n for _, n in every), True, size, seed)


def labelled_by_folder(images: Images, size: int) -> LabelledImages:
    """Labels degraded images by the first folder of their path: ``rain/a.png``, ``haze/a.png``.

    Raises:
        ImageError: for images that are not in a subfolder.
    """
    loose = [name for name in images.names if len(PurePosixPath(name).parts) < 2]
    if loose:
        raise ImageError(
            f"{images.path}: labels are the folders that images lie in, and {some_of(loose)} lies in none; "
            "expected rain/1.png, haze/1.png, ..."
        )
    labels = tuple(PurePosixPath(name).parts[0] for name in images.names)
    return LabelledImages(images, tuple(range(len(images))), labels, False, size, 0)
