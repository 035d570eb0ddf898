"""Stateless order of the data: the pairs of a step depend only on the seed, the step, and the process's rank."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from contextlib import contextmanager
from copy import deepcopy
from hashlib import blake2b
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler, default_collate, get_worker_info

from ...errors import ExDAError
from .signals import deaf
from .stages import Stage


class PairsByEpoch(Sized, Protocol):
    """A data set whose items depend only on its seed, the epoch, the side of its patches, and the index.

    Attributes:
        patch: side of the square that is cut out of each pair, in pixels; None for whole images.
    """

    patch: int | None

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch of the items that are read next."""

    def __getitem__(self, index: int) -> Sequence[Any]:
        """Returns the degraded and the clean image, (C, H, W) in [0, 1]; further elements are ignored."""


class Pair(NamedTuple):
    """A degraded and a clean image, (C, H, W) in [0, 1]; for a batch (B, C, H, W)."""

    degraded: Tensor
    clean: Tensor


class Place(NamedTuple):
    """The position of a pair: its epoch, its index in the data set, and the side of its patch in pixels."""

    epoch: int
    item: int
    patch: int


class AtPlaces(Dataset[Pair | ExDAError]):
    """The pairs by ``Place``, so that worker processes need not be told when an epoch or a stage begins.

    An error of the library is returned rather than raised, see ``batched``: of an exception that a worker raises, only
    the traceback would reach the training process.
    """

    def __init__(self, pairs: PairsByEpoch) -> None:
        self._pairs = pairs

    def own_epoch(self) -> None:
        """Copies the data set; called in each worker, so that they do not set the epoch of a shared one."""
        self._pairs = deepcopy(self._pairs)

    def __getitem__(self, place: Place) -> Pair | ExDAError:
        self._pairs.set_epoch(place.epoch)
        self._pairs.patch = place.patch
        try:
            degraded, clean, *_ = self._pairs[place.item]
        except ExDAError as error:
            return error
        return Pair(degraded, clean)


def batched(pairs: Sequence[Pair | ExDAError]) -> Pair | ExDAError:
    """Collates pairs into a batch, or returns the first error among them."""
    error = next((each for each in pairs if isinstance(each, ExDAError)), None)
    if error is not None:
        return error
    batch: Pair = default_collate(list(pairs))
    return batch


class Order(Sampler[list[Place]]):
    """Yields the batches of one process for a range of steps.

    Pair n of a run is at index ``n % length`` of the permutation of epoch ``n // length``. A step takes the next
    ``accumulate * world * batch`` pairs, with the batch of its stage: pass by pass, and within a pass process by
    process. So several processes together see the pairs that one process with as large a batch would see, and a resumed
    run needs no record of the pairs seen.

    Args:
        length: length of the data set.
        seed: seed of the permutations.
        steps: steps whose batches to yield.
        stages: stages of the whole run.
        accumulate: batches of a process in a step.
        rank: rank of the process.
        world: number of processes.
    """

    def __init__(
        self,
        length: int,
        seed: int,
        steps: range,
        *,
        stages: Sequence[Stage],
        accumulate: int = 1,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.length, self.seed, self.steps, self.stages = length, seed, steps, stages
        self.accumulate, self.rank, self.world = accumulate, rank, world

    def __len__(self) -> int:
        return len(self.steps) * self.accumulate

    def __iter__(self) -> Iterator[list[Place]]:
        epoch, permutation = -1, torch.empty(0)
        for first, stage in self._batches():
            places = []
            # A batch may span two epochs.
            for pair in range(first, first + stage.batch):
                if pair // self.length != epoch:
                    epoch = pair // self.length
                    permutation = torch.randperm(self.length, generator=generator(self.seed, epoch))
                places.append(Place(epoch, int(permutation[pair % self.length]), stage.patch))
            yield places

    def _batches(self) -> Iterator[tuple[int, Stage]]:
        """Yields, for each batch of this process, the number in the run of its first pair, and its stage."""
        before = 0
        for stage in self.stages:
            # Passes are counted from the beginning of the stage, of which a resumed run sees only the rest.
            start, stop = (min(max(step, stage.begin), stage.end) for step in (self.steps.start, self.steps.stop))
            for number in range((start - stage.begin) * self.accumulate, (stop - stage.begin) * self.accumulate):
                yield before + (number * self.world + self.rank) * stage.batch, stage
            before += pairs_in(stage, self.accumulate, self.world)


def pairs_in(stage: Stage, accumulate: int, world: int) -> int:
    """Returns the number of pairs that all processes together see in a stage."""
    return (stage.end - stage.begin) * accumulate * world * stage.batch


@contextmanager
def batches_of(loader: DataLoader[Any]) -> Iterator[Iterator[Pair | ExDAError]]:
    """Gives the batches of a loader of ``AtPlaces``, and ends its workers at the end of the block.

    A signal that a terminal or a job sends to all processes must not end the workers, which are needed until the
    current step is done. They end even if something, such as a traceback, still holds the iterator.
    """
    # iter() starts the workers, which inherit the blocked signals.
    with deaf():
        batches: Any = iter(loader)
    try:
        yield batches
    finally:
        if loader.num_workers:
            batches._shutdown_workers()
            for process in batches._workers:
                process.kill()


def in_worker(_: int) -> None:
    """Initialises a worker of a ``DataLoader`` of ``AtPlaces``; its ``worker_init_fn``."""
    worker = get_worker_info()
    assert worker is not None
    assert isinstance(worker.dataset, AtPlaces)
    worker.dataset.own_epoch()


def generator(*numbers: int) -> torch.Generator:
    """Returns a new generator seeded with these numbers, all of which matter."""
    return torch.Generator().manual_seed(mixed(*numbers))


def mixed(*numbers: int) -> int:
    """Hashes integers into one seed; nearby inputs give unrelated seeds, also in the low 32 bits.

    A generator on the CPU uses only these.
    """
    return int.from_bytes(blake2b(repr(numbers).encode(), digest_size=8).digest(), "big")
