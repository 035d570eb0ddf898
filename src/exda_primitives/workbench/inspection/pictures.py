"""Pictures with the degradation that each has, made or found."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from torch import Tensor

from ...errors import ConfigError, ImageError, some_of
from ..data import Pictures, degrade
from ..data.degradations import degradation_named

CLEAN = "clean"
"""The label of pictures that are left as they are."""

DEFAULT = ("noise25", "rain", "haze", "blur", "low")
"""The five tasks of all-in-one restoration: denoising, deraining, dehazing, deblurring, low light."""


@dataclass(frozen=True)
class LabelledPictures:
    """Pictures, each with a label, opened and degraded when they are asked for; see ``degraded``.

    Attributes:
        pictures: as they are on disk.
        items: of each picture shown, which of ``pictures`` it is.
        labels: of each picture shown.
        made: whether the labels name degradations that are still to be made.
        size: that pictures are cropped to at most, around their middle.
        seed: of the degradations.
    """

    pictures: Pictures
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
        picture = cropped(self.pictures[item], self.size)
        # Another seed for each picture, the same for each of its degradations.
        return degrade(picture, label, self.seed + item) if self.made and label != CLEAN else picture

    def name(self, index: int) -> str:
        """Of the picture, relative to its folder."""
        return self.pictures.names[self.items[index]]

    @property
    def kinds(self) -> list[str]:
        """The different labels, in their order."""
        return list(dict.fromkeys(self.labels))

    def one_of_each(self) -> list[int]:
        """The index of the first picture of each label: the same picture, where the labels were made."""
        return [self.labels.index(label) for label in self.kinds]


def degraded(pictures: Pictures, names: Sequence[str], size: int, seed: int) -> LabelledPictures:
    """Every picture with every degradation, each cropped to at most ``size`` before.

    Args:
        pictures: clean ones.
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
    every = [(item, name) for name in names for item in range(len(pictures))]
    return LabelledPictures(pictures, tuple(i for i, _ in every), tuple(n for _, n in every), True, size, seed)


def labelled_by_folder(pictures: Pictures, size: int) -> LabelledPictures:
    """Pictures that are degraded already, labelled by the first folder of their path: ``rain/a.png``, ``haze/a.png``.

    Raises:
        ImageError: for pictures that lie in no folder.
    """
    loose = [name for name in pictures.names if len(PurePosixPath(name).parts) < 2]
    if loose:
        raise ImageError(
            f"{pictures.path}: labels are the folders that pictures lie in, and {some_of(loose)} lies in none; "
            "expected rain/1.png, haze/1.png, ..."
        )
    labels = tuple(PurePosixPath(name).parts[0] for name in pictures.names)
    return LabelledPictures(pictures, tuple(range(len(pictures))), labels, False, size, 0)


def cropped(picture: Tensor, size: int) -> Tensor:
    """(C, H, W) -> its middle, H and W at most ``size``."""
    top, left = (max(0, (side - size) // 2) for side in picture.shape[-2:])
    return picture[:, top : top + size, left : left + size]
