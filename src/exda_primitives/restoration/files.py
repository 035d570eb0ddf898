"""Many picture files, one after the other; what goes wrong with one is no reason to stop."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple, Protocol

from ..errors import ExDAError, ImageError
from .images import SUFFIXES, format_for, read, write
from .network import Restored, Restorer


class Job(NamedTuple):
    """A picture to restore and the file to write."""

    source: Path
    target: Path


@dataclass(frozen=True)
class Done:
    """A picture that was restored.

    Attributes:
        job: the files.
        size: height and width in pixels.
        restored: how, without the pixels.
        notes: what the output could not hold.
    """

    job: Job
    size: tuple[int, int]
    restored: Restored
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Skipped:
    """A picture that was not restored, and why; its output is as it was."""

    job: Job
    reason: str


class Progress(Protocol):
    """Is told where the work stands."""

    def __call__(self, index: int, done: int, total: int) -> None:
        """``done`` of ``total`` tiles of the job ``index``."""


def jobs(source: Path, target: Path) -> list[Job]:
    """The pictures below a folder in natural order (2 before 10), or the one file, and where each goes.

    Args:
        source: a file or a folder.
        target: for a file, a file or an existing folder; for a folder, a folder, which gets the same tree.

    Raises:
        ImageError: if there is nothing to restore or the two do not go together.
    """
    if source.is_dir():
        if target.is_file():
            raise ImageError(f"{source} is a folder and {target} is a file; give a folder for the output.")
        # A folder of earlier results below the input is not input.
        results, same = target.resolve(), target.resolve() == source.resolve()
        found = [
            path
            for path in source.rglob("*")
            if path.suffix.lower() in SUFFIXES and path.is_file() and (same or results not in path.resolve().parents)
        ]
        if not found:
            raise ImageError(f"no picture ({', '.join(SUFFIXES)}) in {source}.")
        return [Job(path, target / path.relative_to(source)) for path in sorted(found, key=_natural)]
    if not source.exists():
        raise ImageError(f"{source} does not exist.")
    if target.is_dir():
        target /= source.name
    format_for(target)
    return [Job(source, target)]


def restore_files(
    restorer: Restorer, work: list[Job], *, overwrite: bool, progress: Progress = lambda index, done, total: None
) -> Iterator[Done | Skipped]:
    """Restores one picture after the other and says of each what became of it.

    Args:
        restorer: the model.
        work: see :func:`jobs`.
        overwrite: replace files that exist, be they the input itself; otherwise such pictures are skipped.
        progress: called after each tile.
    """
    for index, job in enumerate(work):

        def on_tile(done: int, total: int, index: int = index) -> None:
            progress(index, done, total)

        try:
            yield _restore_file(restorer, job, overwrite, on_tile)
        # A model may fail in its own ways, for lack of memory above all.
        except (ExDAError, OSError, MemoryError, RuntimeError, ValueError) as error:
            yield Skipped(job, _reason(error))


def _restore_file(restorer: Restorer, job: Job, overwrite: bool, on_tile: Callable[[int, int], None]) -> Done:
    if job.target.exists() and not overwrite:
        raise ImageError(f"{job.target} exists; --overwrite replaces it")
    format_for(job.target)
    picture = read(job.source)
    restored = restorer(picture.pixels, on_tile)
    job.target.parent.mkdir(parents=True, exist_ok=True)
    notes = write(replace(picture, pixels=restored.image), job.target)
    height, width = restored.image.shape[-2:]
    # Without the pixels, which are in the file now.
    return Done(job, (height, width), replace(restored, image=restored.image.new_empty(0)), notes)


def _natural(path: Path) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", str(path).casefold())]


def _reason(error: BaseException) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).strip().partition("\n")[0] or type(error).__name__
