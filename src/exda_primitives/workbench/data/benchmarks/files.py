"""Pairs of files, and the search for them that reports whatever has no partner."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from ....errors import DataError
from ...shared.image_files import SUFFIXES
from ..decode import read_image
from ..headers import Header, header_of_tensor, read_header

SHOWN = 10
"""Problems that a message lists before it only counts them."""

Reader = Callable[[Path, str], Tensor]
"""Reads a file of a degradation as (C, H, W) in [0, 1]."""


class FilePair(NamedTuple):
    """A clean image and its degraded one; without a file of that, the degradation is one to compute.

    Attributes:
        clean: file.
        degraded: file, or None for noise, which benchmarks add to the clean image by a rule of their own.
        degradation: ``"rain"``, ``"noise25"``, ...
    """

    clean: Path
    degraded: Path | None
    degradation: str

    @property
    def name(self) -> str:
        """Of the degraded file, or of the clean one if there is no other, without its ending."""
        return (self.degraded or self.clean).stem


def read_rgb(path: Path, degradation: str) -> Tensor:
    """Reads an ordinary image, (3, H, W)."""
    return read_image(path)


def read_grey(path: Path, degradation: str) -> Tensor:
    """Reads an ordinary image without its colours, (1, H, W)."""
    return read_image(path, 1)


@dataclass(frozen=True)
class PairedFiles:
    """The pairs of a benchmark, all there.

    Attributes:
        benchmark: its name.
        pairs: sorted by the names of their files within each degradation.
        read: reads one of the files.
    """

    benchmark: str
    pairs: tuple[FilePair, ...]
    read: Reader = read_rgb

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def degradations(self) -> tuple[str, ...]:
        """In the order in which they come."""
        return tuple(dict.fromkeys(pair.degradation for pair in self.pairs))

    def header(self, path: Path, degradation: str) -> Header:
        """What is known of one of the files without its pixels, if that can be; otherwise all of it is read.

        Raises:
            ImageError: for a file that cannot be read.
        """
        if self.read in (read_rgb, read_grey):
            return read_header(path)
        return header_of_tensor(self.read(path, degradation), path.stat().st_size)

    def of(self, degradation: str) -> PairedFiles:
        """The pairs of one degradation.

        Raises:
            DataError: if there are none.
        """
        chosen = tuple(pair for pair in self.pairs if pair.degradation == degradation)
        if not chosen:
            raise DataError(f"{self.benchmark} has no {degradation!r}, only {', '.join(self.degradations)}")
        return PairedFiles(self.benchmark, chosen, self.read)


def same_stem(stem: str) -> Sequence[str]:
    """The name of the target where it is that of the input."""
    return (stem,)


class Search:
    """Collects the pairs of one benchmark and all that is wrong with its files, to be reported together."""

    def __init__(self, benchmark: str, root: Path, read: Reader = read_rgb) -> None:
        if not root.is_dir():
            raise DataError(f"{benchmark}: {root} is not a folder")
        self._benchmark, self._root, self._read = benchmark, root, read
        self._pairs: list[FilePair] = []
        self._problems: list[str] = []
        # Clean images, and what they are missing for: one may be that of many.
        self._missing: dict[str, list[Path]] = {}

    def pair(
        self,
        degraded: str,
        clean: str,
        degradation: str,
        targets: Callable[[str], Sequence[str]] = same_stem,
        suffixes: Iterable[str] = SUFFIXES,
    ) -> None:
        """Pairs the files of two folders.

        Args:
            degraded: folder below the root, or several like ``synthetic/*``.
            clean: folder below the root.
            degradation: its name.
            targets: from the name of a degraded file, without its ending, the possible names of the clean one.
            suffixes: endings of the files, in lower case; the two of a pair may differ.
        """
        folders = sorted(self._root.glob(degraded)) if "*" in degraded else [self._root / degraded]
        if not folders:
            self._problems.append(f"{degraded}: missing or no folder")
        sources = [file for folder in folders for file in self._files(folder, suffixes)]
        by_stem: dict[str, Path] = {}
        for file in self._files(self._root / clean, suffixes):
            if file.stem in by_stem:
                self._problems.append(f"{self._shown(file)}: {by_stem[file.stem].name} has the same name")
            by_stem[file.stem] = file
        unused = dict(by_stem)
        for source in sources:
            names = list(dict.fromkeys(targets(source.stem)))
            found = next((name for name in names if name in by_stem), None)
            if found is None:
                wanted = " or ".join(f"{clean}/{name}.*" for name in names)
                self._missing.setdefault(wanted, []).append(source)
                continue
            unused.pop(found, None)
            self._pairs.append(FilePair(by_stem[found], source, degradation))
        self._problems += [f"{self._shown(file)}: no degraded image of it in {degraded}" for file in unused.values()]

    def clean(self, folder: str, degradations: Sequence[str]) -> None:
        """Takes the images of a folder, clean, once for each degradation."""
        files = self._files(self._root / folder, SUFFIXES)
        self._pairs += [FilePair(file, None, degradation) for degradation in degradations for file in files]

    def only(self, parent: str, known: Iterable[str]) -> None:
        """Reports what is in a folder besides the names known."""
        folder, names = self._root / parent, set(known)
        for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
            if entry.name not in names and not entry.name.startswith("."):
                self._problems.append(f"{self._shown(entry)}: not expected")

    def found(self, published: Mapping[str, Sequence[int]]) -> PairedFiles:
        """The pairs.

        Args:
            published: degradation -> numbers of pairs that a whole set may have.

        Raises:
            DataError: if anything is missing, left over, or of another number.
        """
        counts = Counter(pair.degradation for pair in self._pairs)
        problems = [self._wanted(name, sources) for name, sources in self._missing.items()] + self._problems
        problems += [
            f"{degradation}: {counts[degradation]} pairs, the published set has {' or '.join(map(str, numbers))}"
            for degradation, numbers in published.items()
            if counts[degradation] not in numbers
        ]
        if not self._pairs and not problems:
            problems.append("no images")
        if problems:
            lines = problems[:SHOWN]
            if len(problems) > SHOWN:
                lines.append(f"... and {len(problems) - SHOWN} more")
            count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
            raise DataError("\n  ".join([f"{self._benchmark} in {self._root} is not whole, {count}:", *lines]))
        return PairedFiles(self._benchmark, tuple(self._pairs), self._read)

    def _files(self, folder: Path, suffixes: Iterable[str]) -> list[Path]:
        if not folder.is_dir():
            self._problems.append(f"{self._shown(folder)}: missing or no folder")
            return []
        files = []
        for entry in sorted(folder.iterdir()):
            if entry.is_file() and entry.suffix.lower() in suffixes and not entry.name.startswith("."):
                files.append(entry)
            elif not entry.name.startswith("."):
                self._problems.append(f"{self._shown(entry)}: not expected, neither an image nor a part of the set")
        return files

    def _wanted(self, name: str, sources: list[Path]) -> str:
        others = f" and {len(sources) - 1} more" if len(sources) > 1 else ""
        return f"{name}: missing, the clean image of {self._shown(sources[0])}{others}"

    def _shown(self, path: Path) -> str:
        return path.relative_to(self._root).as_posix()


def search_of_two(benchmark: str, degraded: Path, clean: Path, degradation: str, read: Reader = read_rgb) -> Search:
    """The search in two folders, wherever they are, in which the images of a pair have the same name.

    Args:
        benchmark: its name.
        degraded: folder.
        clean: folder.
        degradation: of all pairs.
        read: reads one of the files.

    Raises:
        DataError: where the two have no folder in common that exists.
    """
    degraded, clean = degraded.absolute(), clean.absolute()
    root = Path(os.path.commonpath([degraded, clean]))
    search = Search(benchmark, root, read)
    search.pair(degraded.relative_to(root).as_posix(), clean.relative_to(root).as_posix(), degradation)
    return search
