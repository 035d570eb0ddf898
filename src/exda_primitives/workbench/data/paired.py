"""Data sets of image pairs for training and testing. A pair depends only on the seed, the epoch and its index."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ...errors import ConfigError, ImageError
from .benchmarks.files import PairedFiles
from .degradations import degradation_named
from .headers import Header, header_of_tensor
from .images import Images


class Pair(NamedTuple):
    """One item of a data set; a DataLoader makes batches of such items.

    Attributes:
        degraded: degraded image, (C, H, W) float32 in [0, 1].
        clean: clean image, of the same shape, dtype and range.
        name: name of the image.
        degradation: ``"rain"``, ``"noise25"``, ...
        index: index of the item in its data set.
    """

    degraded: Tensor
    clean: Tensor
    name: str
    degradation: str
    index: int  # type: ignore[assignment]  # tuple.index, which nobody misses here


class _Seeded(Dataset[Pair], ABC):
    """Base class of both data sets: repeats, seeds, epochs and patches.

    Attributes:
        patch: side in pixels of the square cut from each image; None for whole images.
    """

    def __init__(
        self, items: Mapping[str, Sequence[int]], seed: int, patch: int | None, repeats: Mapping[str, int] | None
    ) -> None:
        repeats = repeats or {}
        if seed < 0:
            raise ConfigError(f"a seed must not be negative, got {seed}")
        if patch is not None and patch < 1:
            raise ConfigError(f"a patch has at least 1 pixel, got {patch}")
        unknown = [name for name in repeats if name not in items]
        if unknown or any(times < 1 for times in repeats.values()):
            raise ConfigError(f"repeats must be at least 1, each for one of {', '.join(items)}; got {dict(repeats)}")
        self._items = [
            (name, item) for name, numbers in items.items() for _ in range(repeats.get(name, 1)) for item in numbers
        ]
        self._seed, self.patch = seed, patch
        # In shared memory, so that DataLoader workers that outlive an epoch see the next one.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self._items)

    def set_epoch(self, epoch: int) -> None:
        """Selects the epoch's degradations and patches; call it before each epoch.

        Raises:
            ConfigError: the epoch is negative.
        """
        if epoch < 0:
            raise ConfigError(f"an epoch must not be negative, got {epoch}")
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> Pair:
        # Turns a negative index into a positive one, so that both have the same seed; raises IndexError.
        index = range(len(self))[index]
        degradation, item = self._items[index]
        mixed = np.random.SeedSequence([self._seed, int(self._epoch), index]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(mixed[0]))
        name, clean, degraded = self._read(degradation, item)
        if degraded is not None and degraded.shape != clean.shape:
            raise ImageError(
                f"{name} ({degradation}): the degraded image has shape {tuple(degraded.shape)}, the clean one "
                f"{tuple(clean.shape)}; the two must be equal"
            )
        if self.patch is not None:
            if min(clean.shape[-2:]) < self.patch:
                raise ImageError(
                    f"{name} has {clean.shape[-2]} x {clean.shape[-1]} pixels, too few for patches of {self.patch}; "
                    f"make the patches smaller, or take it out of the set"
                )
            # Turned before it is degraded, so that rain falls from above.
            turn = _below(8, generator)
            clean = _turned(clean, turn)
            degraded = degraded if degraded is None else _turned(degraded, turn)
        if degraded is None:
            degraded = degradation_named(degradation)(clean, generator)
        # Cut after it is degraded, so that haze varies as slowly over a patch as over an image.
        if self.patch is not None:
            top, left = (_below(size - self.patch + 1, generator) for size in clean.shape[-2:])
            window = (..., slice(top, top + self.patch), slice(left, left + self.patch))
            clean, degraded = clean[window].contiguous(), degraded[window].contiguous()
        return Pair(degraded, clean, name, degradation, index)

    @abstractmethod
    def _read(self, degradation: str, item: int) -> tuple[str, Tensor, Tensor | None]:
        """Reads an item: name, clean image, and degraded image, or None if that has to be made."""

    @property
    @abstractmethod
    def sources(self) -> Sequence[str]:
        """Names of the images, or pairs of files, each once, regardless of degradations and repeats."""

    @abstractmethod
    def headers(self, source: int) -> tuple[Header, ...]:
        """Returns the header of the clean image, and that of the degraded one if it has a file.

        Raises:
            ImageError: a file cannot be read.
        """


class PairedSet(_Seeded):
    """An all-in-one data set for training or testing: each clean image with every degradation.

    A pair is made whenever it is asked for: the image is turned, then degraded as a whole, then cut. So rain falls
    from above, and haze varies as slowly over a patch as over an image.

    Args:
        images: the clean images, see ``open_images``.
        degradations: names of degradations, see ``degrade``.
        seed: seed of all degradations and patches, not negative.
        patch: for training, side in pixels of a random square that is cut from each image, after one of the eight
            rotations and reflections of a square. None for testing: whole images, not turned.
        repeats: degradation -> how often an epoch has each image with it; 1 for those not named.

    Raises:
        ConfigError: a degradation is unknown, or a number is out of range.

    Examples:
        >>> import numpy as np, tempfile
        >>> from torch.utils.data import DataLoader
        >>> from exda_primitives.workbench.data import open_images
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.savez(f"{folder}/some.npz", images=np.zeros((2, 40, 50, 3), np.uint8))
        ...     pairs = PairedSet(open_images(f"{folder}/some.npz"), ["noise25", "low_rain"], patch=32)
        ...     len(pairs), next(iter(DataLoader(pairs, batch_size=4))).degraded.shape
        (4, torch.Size([4, 3, 32, 32]))
    """

    def __init__(
        self,
        images: Images,
        degradations: Sequence[str],
        *,
        seed: int = 0,
        patch: int | None = None,
        repeats: Mapping[str, int] | None = None,
    ) -> None:
        if not degradations:
            raise ConfigError("no degradation is named")
        for name in degradations:
            degradation_named(name)
        super().__init__({name: range(len(images)) for name in degradations}, seed, patch, repeats)
        self.images = images

    def _read(self, degradation: str, item: int) -> tuple[str, Tensor, Tensor | None]:
        return self.images.names[item], self.images[item], None

    @property
    def sources(self) -> Sequence[str]:
        """The names of the clean images."""
        return self.images.names

    def headers(self, source: int) -> tuple[Header, ...]:
        """Returns the header of a clean image."""
        return (self.images.header(source),)


class PairedFileSet(_Seeded):
    """A data set of a benchmark's pairs, for training or testing; images that come only clean get noise.

    The noise is that of ``degrade``, meant for training. To reproduce a published figure, use its protocol's noise.

    Args:
        files: what a function in ``exda_primitives.workbench.data.benchmarks`` returned.
        seed: as in ``PairedSet``.
        patch: as in ``PairedSet``.
        repeats: as in ``PairedSet``; for training on three or five degradations, ``REPEATS[3]`` or ``REPEATS[5]``.

    Raises:
        ConfigError: a number is out of range.
    """

    def __init__(
        self,
        files: PairedFiles,
        *,
        seed: int = 0,
        patch: int | None = None,
        repeats: Mapping[str, int] | None = None,
    ) -> None:
        items: dict[str, list[int]] = {}
        for number, pair in enumerate(files.pairs):
            items.setdefault(pair.degradation, []).append(number)
        super().__init__(items, seed, patch, repeats)
        self.files = files

    def _read(self, degradation: str, item: int) -> tuple[str, Tensor, Tensor | None]:
        pair = self.files.pairs[item]
        clean = self.files.read(pair.clean, degradation)
        return pair.name, clean, None if pair.degraded is None else self.files.read(pair.degraded, degradation)

    @property
    def sources(self) -> Sequence[str]:
        """The names of the pairs, each with its degradation."""
        return [f"{pair.name} ({pair.degradation})" for pair in self.files.pairs]

    def headers(self, source: int) -> tuple[Header, ...]:
        """Returns the headers of a pair's files, the clean one first; pixels are read only if the sizes differ."""
        clean, degraded, degradation = self.files.pairs[source]
        paths = [clean] if degraded is None else [clean, degraded]
        headers = [self.files.header(path, degradation) for path in paths]
        if len({each.size for each in headers}) > 1:
            # Some files state their orientation only after the pixels, so that the header may swap height and width.
            read = [self.files.read(path, degradation) for path in paths]
            headers = [header_of_tensor(each, header.stamp) for each, header in zip(read, headers, strict=True)]
        return tuple(headers)


def _below(bound: int, generator: torch.Generator) -> int:
    return int(torch.randint(bound, (), generator=generator))


def _turned(image: Tensor, turn: int) -> Tensor:
    """Applies one of the eight symmetries of a square: a rotation, for ``turn`` from 4 on also a reflection."""
    turned = torch.rot90(image, turn % 4, (-2, -1))
    return turned.flip(-1) if turn >= 4 else turned
