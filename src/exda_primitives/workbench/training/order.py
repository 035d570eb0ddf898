"""The order of the data: which pairs a process gets at a step, and nothing that came before matters."""

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


class PairsByEpoch(Sized, Protocol):
    """A data set whose item depends on nothing but its seed, the epoch and the index."""

    def set_epoch(self, epoch: int) -> None:
        """Whose items are next."""

    def __getitem__(self, index: int) -> Sequence[Any]:
        """Degraded and clean image, (C, H, W) in [0, 1]; what else there is, is not looked at."""


class Pair(NamedTuple):
    """Degraded and clean, (C, H, W) in [0, 1]; of a batch (B, C, H, W)."""

    degraded: Tensor
    clean: Tensor


class Place(NamedTuple):
    """Where a pair is: the epoch, and its index in the data set."""

    epoch: int
    item: int


class AtPlaces(Dataset[Pair | ExDAError]):
    """The pairs by ``Place``, so that processes that prepare them need not be told when an epoch begins.

    An error of the library is handed over as one, see ``batched``: of what such a process raises, the traceback is
    all that is left.
    """

    def __init__(self, pairs: PairsByEpoch) -> None:
        self._pairs = pairs

    def own_epoch(self) -> None:
        """To be called in each process that prepares pairs, all of which would set the epoch of one data set."""
        self._pairs = deepcopy(self._pairs)

    def __getitem__(self, place: Place) -> Pair | ExDAError:
        self._pairs.set_epoch(place.epoch)
        try:
            degraded, clean, *_ = self._pairs[place.item]
        except ExDAError as error:
            return error
        return Pair(degraded, clean)


def batched(pairs: Sequence[Pair | ExDAError]) -> Pair | ExDAError:
    """A batch of pairs, or the first error among them."""
    error = next((each for each in pairs if isinstance(each, ExDAError)), None)
    if error is not None:
        return error
    batch: Pair = default_collate(list(pairs))
    return batch


class Order(Sampler[list[Place]]):
    """The batches of one process from a step on.

    Pair n of a run is at place ``n % length`` of the permutation of epoch ``n // length``. A step takes the next
    ``accumulate * world * batch`` pairs: pass by pass, and within a pass process by process. Several processes thus see
    together what one with as large a batch would see, and an interrupted run needs no memory of what it has seen.

    Args:
        length: of the data set.
        seed: of the permutations.
        steps: first step, and the step before which to stop.
        batch: pairs a process and pass.
        accumulate: passes a step.
        rank: of the process.
        world: how many processes there are.
    """

    def __init__(
        self,
        length: int,
        seed: int,
        steps: range,
        *,
        batch: int,
        accumulate: int = 1,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.length, self.seed, self.steps = length, seed, steps
        self.batch, self.accumulate, self.rank, self.world = batch, accumulate, rank, world

    def __len__(self) -> int:
        return len(self.steps) * self.accumulate

    def __iter__(self) -> Iterator[list[Place]]:
        epoch, permutation = -1, torch.empty(0)
        for number in range(self.steps.start * self.accumulate, self.steps.stop * self.accumulate):
            first = (number * self.world + self.rank) * self.batch
            places = []
            for pair in range(first, first + self.batch):
                if pair // self.length != epoch:
                    epoch = pair // self.length
                    permutation = torch.randperm(self.length, generator=generator(self.seed, epoch))
                places.append(Place(epoch, int(permutation[pair % self.length])))
            yield places


@contextmanager
def batches_of(loader: DataLoader[Any]) -> Iterator[Iterator[Pair | ExDAError]]:
    """The batches of a loader of ``AtPlaces``.

    A signal to all processes of a terminal or a job is not for those that prepare pairs, which are needed until the
    step at hand is done. They are gone at the end of the block, whoever still holds the iterator, as a traceback does.
    """
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
    """What a ``DataLoader`` of ``AtPlaces`` calls in each of its processes."""
    worker = get_worker_info()
    assert worker is not None
    assert isinstance(worker.dataset, AtPlaces)
    worker.dataset.own_epoch()


def generator(*numbers: int) -> torch.Generator:
    """A fresh generator for these numbers, all of which matter."""
    return torch.Generator().manual_seed(mixed(*numbers))


def mixed(*numbers: int) -> int:
    """One seed of several numbers; neighbours share nothing, in its last 32 bits (all that a CPU takes) neither."""
    return int.from_bytes(blake2b(repr(numbers).encode(), digest_size=8).digest(), "big")
