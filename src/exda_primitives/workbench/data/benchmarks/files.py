"""Pairs of files, and a search for them that reports every file without a partner."""

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
from ...shared.messages import with_problems
from ..decode import read_image
from ..headers import Header, header_of_tensor, read_header

Reader = Callable[[Path, str], Tensor]
"""Takes a file and the name of its degradation, returns the image as (C, H, W) in [0, 1]."""


class FilePair(NamedTuple):
    """The files of a clean image and of its degraded counterpart.

    Attributes:
        clean: file of the clean image.
        degraded: file of the degraded image; None for noise, which each benchmark adds to the clean image by its own
            rule.
        degradation: ``"rain"``, ``"noise25"``, ...
    """

    clean: Path
    degraded: Path | None
    degradation: str

    @property
    def name(self) -> str:
        """The name without ending of the degraded file, or of the clean one if there is no degraded file."""
        return (self.degraded or self.clean).stem


def read_rgb(path: Path, degradation: str) -> Tensor:
    """Reads an ordinary image file as (3, H, W)."""
    return read_image(path)


def read_grey(path: Path, degradation: str) -> Tensor:
    """Reads an ordinary image file as grey, (1, H, W)."""
    return read_image(path, 1)


@dataclass(frozen=True)
class PairedFiles:
    """The complete pairs of a benchmark.

    Attributes:
        benchmark: its name.
        pairs: within each degradation sorted by file name.
        read: function that reads one of the files.
    """

    benchmark: str
    pairs: tuple[FilePair, ...]
    read: Reader = read_rgb

    def __len__(self) -> int:
        return len(self.pairs)

    @property
    def degradations(self) -> tuple[str, ...]:
        """The names of the degradations, in the order in which they occur."""
        return tuple(dict.fromkeys(pair.degradation for pair in self.pairs))

    def header(self, path: Path, degradation: str) -> Header:
        """Returns the header of one of the files; the whole file is read only if its format requires it.

        Raises:
            ImageError: the file cannot be read.
        """
        if self.read in (read_rgb, read_grey):
            return read_header(path)
        return header_of_tensor(self.read(path, degradation), path.stat().st_size)

    def of(self, degradation: str) -> PairedFiles:
        """Returns the pairs of one degradation.

        Raises:
            DataError: there are none.
        """
        chosen = tuple(pair for pair in self.pairs if pair.degradation == degradation)
        if not chosen:
            raise DataError(f"{self.benchmark} has no {degradation!r}, only {', '.join(self.degradations)}")
        return PairedFiles(self.benchmark, chosen, self.read)


def same_stem(stem: str) -> Sequence[str]:
    """Returns the name of the clean image when both images of a pair have the same one."""
    return (stem,)


class Search:
    """Collects the pairs of one benchmark, and all problems with its files, to report them together."""

    def __init__(self, benchmark: str, root: Path, read: Reader = read_rgb) -> None:
        if not root.is_dir():
            raise DataError(f"{benchmark}: {root} is not a folder")
        self._benchmark, self._root, self._read = benchmark, root, read
        self._pairs: list[FilePair] = []
        self._problems: list[str] = []
        # Missing clean image -> degraded images that need it: one clean image can have many degraded ones.
        self._missing: dict[str, list[Path]] = {}

    def pair(
        self,
        degraded: str,
        clean: str,
        degradation: str,
        targets: Callable[[str], Sequence[str]] = same_stem,
        suffixes: Iterable[str] = SUFFIXES,
    ) -> None:
        """Pairs the files of two folders by name.

        Args:
            degraded: folder below the root, or a pattern for several, like ``synthetic/*``.
            clean: folder below the root.
            degradation: name that the pairs get.
            targets: maps the name of a degraded file to possible names of its clean one, all without endings.
            suffixes: allowed endings, in lower case; the two files of a pair may have different ones.
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
        """Adds the clean images of a folder once for each degradation, without degraded files."""
        files = self._files(self._root / folder, SUFFIXES)
        self._pairs += [FilePair(file, None, degradation) for degradation in degradations for file in files]

    def report_unexpected(self, parent: str, known: Iterable[str]) -> None:
        """Adds a problem for each entry of a folder that is not among the known names."""
        folder, names = self._root / parent, set(known)
        for entry in sorted(folder.iterdir()) if folder.is_dir() else ():
            if entry.name not in names and not entry.name.startswith("."):
                self._problems.append(f"{self._shown(entry)}: not expected")

    def found(self, published: Mapping[str, Sequence[int]]) -> PairedFiles:
        """Returns the pairs that were found.

        Args:
            published: degradation -> allowed numbers of pairs.

        Raises:
            DataError: files are missing or left over, or their number is wrong.
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
            count = f"{len(problems)} problem{'s' if len(problems) > 1 else ''}"
            raise DataError(with_problems(f"{self._benchmark} in {self._root} is not whole, {count}:", problems))
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
    """Searches two folders, anywhere on disk, for pairs of images with the same name.

    Args:
        benchmark: name for messages.
        degraded: folder of the degraded images.
        clean: folder of the clean images.
        degradation: name that all pairs get.
        read: function that reads one of the files.

    Raises:
        DataError: the two paths have no existing folder in common.
    """
    degraded, clean = degraded.absolute(), clean.absolute()
    root = Path(os.path.commonpath([degraded, clean]))
    search = Search(benchmark, root, read)
    search.pair(degraded.relative_to(root).as_posix(), clean.relative_to(root).as_posix(), degradation)
    return search
