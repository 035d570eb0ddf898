"""Pairs of images for training and testing, each of which depends on the seed, the epoch and its index alone."""

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
    """One item; a DataLoader makes batches of it.

    Attributes:
        degraded: (C, H, W) float32 in [0, 1].
        clean: as ``degraded``.
        name: of the image.
        degradation: ``"rain"``, ``"noise25"``, ...
        index: of the item in its data set.
    """

    degraded: Tensor
    clean: Tensor
    name: str
    degradation: str
    index: int  # type: ignore[assignment]  # tuple.index, which nobody misses here


class _Seeded(Dataset[Pair], ABC):
    """What both kinds of sets share: repeats, seeds, epochs and patches.

    Attributes:
        patch: side of the square that is cut out, in pixels; None for whole images.
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
        # Shared, so that workers that outlive an epoch see the next one.
        self._epoch = torch.zeros((), dtype=torch.int64).share_memory_()

    def __len__(self) -> int:
        return len(self._items)

    def set_epoch(self, epoch: int) -> None:
        """Gives other degradations and patches; to be called before each epoch.

        Raises:
            ConfigError: if it is negative.
        """
        if epoch < 0:
            raise ConfigError(f"an epoch must not be negative, got {epoch}")
        self._epoch.fill_(epoch)

    def __getitem__(self, index: int) -> Pair:
        index = range(len(self))[index]
        degradation, item = self._items[index]
        mixed = np.random.SeedSequence([self._seed, int(self._epoch), index]).generate_state(1, np.uint64)
        generator = torch.Generator().manual_seed(int(mixed[0]))
        name, clean, degraded = self._read(degradation, item)
        if degraded is not None and degraded.shape != clean.shape:
            raise ImageError(
                f"{name} ({degradation}): the degraded image has shape {tuple(degraded.shape)}, the clean one "
                f"{tuple(clean.shape)}: they are no pair"
            )
        if self.patch is not None:
            if min(clean.shape[-2:]) < self.patch:
                raise ImageError(
                    f"{name} has {clean.shape[-2]} x {clean.shape[-1]} pixels, too few for patches of {self.patch}; "
                    f"make the patches smaller, or take it out of the set"
                )
            turn = _below(8, generator)
            clean = _turned(clean, turn)
            degraded = degraded if degraded is None else _turned(degraded, turn)
        if degraded is None:
            degraded = degradation_named(degradation)(clean, generator)
        if self.patch is not None:
            top, left = (_below(size - self.patch + 1, generator) for size in clean.shape[-2:])
            window = (..., slice(top, top + self.patch), slice(left, left + self.patch))
            clean, degraded = clean[window].contiguous(), degraded[window].contiguous()
        return Pair(degraded, clean, name, degradation, index)

    @abstractmethod
    def _read(self, degradation: str, item: int) -> tuple[str, Tensor, Tensor | None]:
        """Name, clean image, and the degraded one unless it is to be made."""

    @property
    @abstractmethod
    def sources(self) -> Sequence[str]:
        """Names of the images, or pairs of files, each once, whatever is made of them."""

    @abstractmethod
    def headers(self, source: int) -> tuple[Header, ...]:
        """What is known without the pixels: of the clean image, and of the degraded one if there is a file of it.

        Raises:
            ImageError: for a file that cannot be read.
        """


class PairedSet(_Seeded):
    """Clean images, each with every degradation: an all-in-one set for training or testing.

    Each pair is made anew whenever it is asked for. An image is degraded whole, then cut, so that haze varies as
    slowly over a patch as over an image; it is turned before that, so that rain falls from above.

    Args:
        images: see ``open_images``.
        degradations: names, see ``degrade``.
        seed: not negative; of all degradations and patches.
        patch: for training, side of a random square that is cut from each image, which is mirrored and turned by one
            of the eight ways that a square allows. None for testing: whole images as they are.
        repeats: degradation -> how often each image comes with it in an epoch; once if it is not named.

    Raises:
        ConfigError: for an unknown degradation, or a number that makes no sense.

    Example:
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
        """See above."""
        return self.images.names

    def headers(self, source: int) -> tuple[Header, ...]:
        """See above."""
        return (self.images.header(source),)


class PairedFileSet(_Seeded):
    """The pairs of a benchmark, for training or testing; noise is added to images that come only clean.

    That noise is ``degrade``'s, good for training. To reproduce a published figure, noise must follow the rule of
    its protocol.

    Args:
        files: of one of the functions in ``exda_primitives.workbench.data.benchmarks``.
        seed: as in ``PairedSet``, as are all below.
        patch: side of a random square, or None.
        repeats: for training on three or five degradations, ``REPEATS[3]`` or ``REPEATS[5]``.

    Raises:
        ConfigError: for a number that makes no sense.
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
        """See above."""
        return [f"{pair.name} ({pair.degradation})" for pair in self.files.pairs]

    def headers(self, source: int) -> tuple[Header, ...]:
        """See above."""
        clean, degraded, degradation = self.files.pairs[source]
        paths = [clean] if degraded is None else [clean, degraded]
        headers = [self.files.header(path, degradation) for path in paths]
        if len({each.size for each in headers}) > 1:
            # Of some files, only what comes behind the pixels says which way up they are.
            read = [self.files.read(path, degradation) for path in paths]
            headers = [header_of_tensor(each, header.stamp) for each, header in zip(read, headers, strict=True)]
        return tuple(headers)


def _below(bound: int, generator: torch.Generator) -> int:
    return int(torch.randint(bound, (), generator=generator))


def _turned(image: Tensor, turn: int) -> Tensor:
    """One of the eight symmetries of a square."""
    turned = torch.rot90(image, turn % 4, (-2, -1))
    return turned.flip(-1) if turn >= 4 else turned
