"""Which pairs come when."""

import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.workbench.training.runs import config
from torch.utils.data import DataLoader

from exda_primitives.workbench.training.data import open_data
from exda_primitives.workbench.training.order import AtPlaces, Order, Place, in_worker, mixed

small = st.integers(1, 5)


@given(length=small, steps=st.integers(1, 12), batch=small, accumulate=small, world=small, stop=st.integers(0, 12))
def test_who_gets_it_and_when_it_was_interrupted_change_nothing(length, steps, batch, accumulate, world, stop):
    def places(steps, **options):
        return [place for batch in Order(length, 3, steps, **options) for place in batch]

    stop = min(stop, steps)
    together = places(range(steps), batch=batch * accumulate * world)
    shared = [
        iter(Order(length, 3, range(stop, steps), batch=batch, accumulate=accumulate, rank=rank, world=world))
        for rank in range(world)
    ]
    found = [place for _ in range((steps - stop) * accumulate) for each in shared for place in next(each)]
    assert found == together[stop * batch * accumulate * world :]


def test_every_pair_once_an_epoch_in_another_order():
    order = list(Order(5, 0, range(6), batch=5))
    assert len(order) == len(Order(5, 0, range(6), batch=5)) == 6
    for epoch, batch in enumerate(order):
        assert {place.epoch for place in batch} == {epoch}
        assert {place.item for place in batch} == set(range(5))
    assert len({tuple(place.item for place in batch) for batch in order}) > 3
    assert order != list(Order(5, 1, range(6), batch=5))


class Slow:
    """A single pair that shows its epoch, which all processes share, after a while."""

    def __init__(self):
        self.epoch = torch.zeros(()).share_memory_()

    def __len__(self):
        return 1

    def set_epoch(self, epoch):
        self.epoch.fill_(epoch)

    def __getitem__(self, index):
        time.sleep(0.05)
        return self.epoch.expand(3, 8, 8).clone(), torch.zeros(3, 8, 8)


@pytest.mark.parametrize("workers", [0, 2])
def test_pairs_are_those_of_their_epoch(workers):
    """Processes that prepare pairs of different epochs at once do not disturb each other."""
    order = Order(1, 0, range(6), batch=1)
    loader = DataLoader(AtPlaces(Slow()), batch_sampler=order, num_workers=workers, worker_init_fn=in_worker)
    assert [int(batch.degraded.mean()) for batch in loader] == list(range(6))


def test_pairs_of_a_data_set(tmp_path):
    pairs = open_data(config(tmp_path), 3).training
    places = [Place(epoch, item) for epoch in (1, 0) for item in range(len(pairs))]
    for place in places:
        found = AtPlaces(pairs)[place]
        pairs.set_epoch(place.epoch)
        degraded, clean, *_ = pairs[place.item]
        assert torch.equal(found.degraded, degraded)
        assert torch.equal(found.clean, clean)


def test_seeds_of_neighbours_share_nothing():
    seeds = {mixed(*numbers) % 2**32 for numbers in [(0,), (1,)] + [(a, b) for a in range(100) for b in range(100)]}
    # By chance 0.01 of them would be alike.
    assert len(seeds) == 10_002
    assert mixed(1, 23) != mixed(12, 3)
