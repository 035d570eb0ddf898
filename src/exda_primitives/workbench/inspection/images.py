"""Images with the degradation that each has, made or found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from torch import Tensor

from ...errors import ConfigError, ImageError, some_of
from ..data import Images, degrade
from ..data.degradations import degradation_named

CLEAN = "clean"
"""The label of images that are left as they are."""

DEFAULT = ("noise25", "rain", "haze", "blur", "low")
"""The five tasks of all-in-one restoration: denoising, deraining, dehazing, deblurring, low light."""


@dataclass(frozen=True)
class LabelledImages:
    """Images, each with a label, opened and degraded when they are asked for; see ``degraded``.

    Attributes:
        images: as they are on disk.
        items: of each image shown, which of ``images`` it is.
        labels: of each image shown.
        made: whether the labels name degradations that are still to be made.
        size: that images are cropped to at most, around their middle.
        seed: of the degradations.
    """

    images: Images
    items: tuple[int, ...]
    labels: tuple[str, ...]
    made: bool
    size: int
    seed: int

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Tensor]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, index: int) -> Tensor:
        """(C, H, W) float32 in [0, 1], H and W at most ``size``."""
        item, label = self.items[index], self.labels[index]
        image = cropped(self.images[item], self.size)
        # Another seed for each image, the same for each of its degradations.
        return degrade(image, label, self.seed + item) if self.made and label != CLEAN else image

    def name(self, index: int) -> str:
        """Of the image, relative to its folder."""
        return self.images.names[self.items[index]]

    @property
    def kinds(self) -> list[str]:
        """The different labels, in their order."""
        return list(dict.fromkeys(self.labels))

    def one_of_each(self) -> list[int]:
        """The index of the first image of each label: the same image, where the labels were made."""
        return [self.labels.index(label) for label in self.kinds]


def degraded(images: Images, names: Sequence[str], size: int, seed: int) -> LabelledImages:
    """Every image with every degradation, each cropped to at most ``size`` before.

    Args:
        images: clean ones.
        names: of the degradations, see ``exda_primitives.workbench.data.degrade``; ``"clean"`` for none.
        size: in pixels.
        seed: of the degradations.

    Raises:
        ConfigError: for a name that does not exist, or that is there twice.
    """
    for name in names:
        if name != CLEAN:
            degradation_named(name)
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ConfigError(f"degradation {twice[0]!r} is named {names.count(twice[0])} times.")
    every = [(item, name) for name in names for item in range(len(images))]
    return LabelledImages(images, tuple(i for i, _ in every), tuple(n for _, n in every), True, size, seed)


def labelled_by_folder(images: Images, size: int) -> LabelledImages:
    """Images that are degraded already, labelled by the first folder of their path: ``rain/a.png``, ``haze/a.png``.

    Raises:
        ImageError: for images that lie in no folder.
    """
    loose = [name for name in images.names if len(PurePosixPath(name).parts) < 2]
    if loose:
        raise ImageError(
            f"{images.path}: labels are the folders that images lie in, and {some_of(loose)} lies in none; "
            "expected rain/1.png, haze/1.png, ..."
        )
    labels = tuple(PurePosixPath(name).parts[0] for name in images.names)
    return LabelledImages(images, tuple(range(len(images))), labels, False, size, 0)


def cropped(image: Tensor, size: int) -> Tensor:
    """(C, H, W) -> its middle, H and W at most ``size``."""
    top, left = (max(0, (side - size) // 2) for side in image.shape[-2:])
    return image[:, top : top + size, left : left + size]
