"""Restores many image files, one after the other; files that fail are skipped and reported."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from ...errors import ExDAError, ImageError, some_of
from ..shared.files import check_writable, files_below, is_nonregular_file
from ..shared.image_files import FORMATS
from .images import format_for, read, write
from .tiled import Restored, TiledRestorer
from .tiles import Pixels


class Job(NamedTuple):
    """An image to restore and the file to write."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Done:
    """An image that was restored.

    Attributes:
        job: source and target.
        size: height and width in pixels.
        restored: how it was restored (tile, overlap, seam); its ``image`` is empty.
        notes: a sentence for each thing that the output's format could not hold.
    """

    job: Job
    size: tuple[int, int]
    restored: Restored[Pixels]
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Skipped:
    """An image that was not restored, and why; its target is unchanged."""

    job: Job
    reason: str


@dataclass(frozen=True)
class Work:
    """What there is to restore.

    Attributes:
        jobs: images, in natural order (2 before 10).
        skipped: folders that cannot be read.
        left_out: reason -> paths that are not restored, relative to the source folder, in natural order.
    """

    jobs: Sequence[Job]
    skipped: Sequence[Skipped] = ()
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)


HIDDEN, RESULTS, NO_FILE = "hidden", "output of an earlier run", "no regular file"
NOT_AN_IMAGE = f"not named as an image ({', '.join(FORMATS)})"

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS})
"""Errors that would recur with the next image: the disk is full, the quota used up, or the disk read-only."""


class Progress(Protocol):
    """A function that is called with the progress."""

    def __call__(self, index: int, done: int, total: int) -> None:
        """Called when ``done`` of ``total`` tiles of job ``index`` are restored."""


def work_for(source: Path, target: Path) -> Work:
    """Lists the images to restore with their targets, and what is left out.

    Args:
        source: an image file, or a folder, which is searched with its subfolders, also behind links.
        target: for a file, a file or an existing folder; for a folder, a folder, which gets the same tree.

    Raises:
        ImageError: if there is nothing to restore, or the source is a folder and the target a file.
        ConfigError: if the target is not writable.
    """
    if source.is_dir():
        if target.is_file():
            raise ImageError(f"{source} is a folder and {target} is a file; give a folder for the output.")
        check_writable(target)
        return _work_below(source, target)
    if not source.exists():
        raise ImageError(f"{source} does not exist.")
    # A pipe, as of bash's `<(command)`, can be read to its end; a device such as /dev/zero cannot.
    if not (source.is_file() or source.is_fifo()):
        raise ImageError(f"{source} is {NO_FILE}.")
    if target.is_dir():
        target /= source.name
    format_for(target)
    check_writable(target.parent)
    return Work([Job(source, target)])


def _work_below(source: Path, target: Path) -> Work:
    found: list[Path] = []
    skipped: list[Skipped] = []
    left_out: dict[str, list[Path]] = {}
    results, same = target.resolve(), target.resolve() == source.resolve()

    def enter(folder: Path) -> bool:
        # The target may be a folder inside of the source: its images are results of an earlier run.
        why = HIDDEN if _is_hidden(folder) else RESULTS if not same and folder.resolve() == results else None
        if why:
            left_out.setdefault(why, []).append(folder)
        return why is None

    def failed(folder: Path, error: OSError) -> None:
        skipped.append(Skipped(Job(folder, target / folder.relative_to(source)), _reason(error, folder)))

    for path in files_below(source, failed, enter):
        # A broken link counts as an image here; the error that names it comes when it is read.
        reasons = {
            HIDDEN: _is_hidden(path),
            NOT_AN_IMAGE: path.suffix.lower() not in FORMATS,
            NO_FILE: is_nonregular_file(path),
        }
        why = next((reason for reason, holds in reasons.items() if holds), None)
        (found if why is None else left_out.setdefault(why, [])).append(path)
    named = {
        why: [str(path.relative_to(source)) for path in sorted(paths, key=_natural)]
        for why, paths in sorted(left_out.items())
    }
    if not found and not skipped:
        there = "; ".join(f"{why}: {some_of(names)}" for why, names in named.items())
        said = f"Left out are files of these kinds: {there}." if there else "It holds no file."
        raise ImageError(f"no image ({', '.join(FORMATS)}) in {source}. {said}")
    jobs = [Job(path, target / path.relative_to(source)) for path in sorted(found, key=_natural)]
    return Work(jobs, skipped, named)


def _is_hidden(path: Path) -> bool:
    return path.name.startswith(".")


def restore_files(
    restorer: TiledRestorer,
    jobs: Sequence[Job],
    *,
    overwrite: bool,
    progress: Progress = lambda index, done, total: None,
) -> Iterator[Done | Skipped]:
    """Restores one image after the other, and yields for each whether it was restored or skipped.

    Args:
        restorer: the model.
        jobs: see ``work_for``.
        overwrite: replace targets that exist, even the source itself; otherwise such images are skipped.
        progress: called after each tile.

    Raises:
        OSError: if the disk is full or read-only: the next image could not be written either.
    """
    for index, job in enumerate(jobs):

        def on_tile(done: int, total: int, index: int = index) -> None:
            progress(index, done, total)

        try:
            yield _restore_file(restorer, job, overwrite, on_tile)
        # RuntimeError and ValueError: a model may raise its own, and PyTorch raises RuntimeError when memory runs out.
        except (ExDAError, OSError, MemoryError, RuntimeError, ValueError) as error:
            if isinstance(error, OSError) and error.errno in _FULL:
                raise
            yield Skipped(job, _reason(error, job.source))


def _restore_file(restorer: TiledRestorer, job: Job, overwrite: bool, on_tile: Callable[[int, int], None]) -> Done:
    if job.target.exists() and not overwrite:
        raise ImageError(f"{job.target} exists; --overwrite replaces it")
    format_for(job.target)
    check_writable(job.target.parent)
    image = read(job.source)
    restored = restorer.restore_array(image.pixels, on_tile)
    job.target.parent.mkdir(parents=True, exist_ok=True)
    notes = write(replace(image, pixels=restored.image), job.target)
    height, width = restored.image.shape[-2:]
    # Without the pixels, which are in the file now and would only take memory.
    return Done(job, (height, width), replace(restored, image=np.empty((0, 0, 0), np.float32)), notes)


def _natural(path: Path) -> tuple[list[int | str], str]:
    # The split puts numbers at every second place, so they are never compared with text. The name itself decides
    # between equals: "1" and "01", upper and lower case.
    parts = re.split(r"(\d+)", str(path).casefold())
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], str(path)


def _reason(error: BaseException, source: Path) -> str:
    if isinstance(error, OSError) and error.strerror:
        # The source is named by the caller already.
        of_another = error.filename and error.filename != str(source)
        return f"{error.filename}: {error.strerror}" if of_another else error.strerror
    if isinstance(error, ExDAError):
        return str(error)
    return str(error).strip().partition("\n")[0] or type(error).__name__
