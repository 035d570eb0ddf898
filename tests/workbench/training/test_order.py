"""The order of the pairs: which of them come at which step."""

import time

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.workbench.training.runs import config
from torch.utils.data import DataLoader

from exda_primitives.workbench.training.data import open_data
from exda_primitives.workbench.training.order import AtPlaces, Order, Place, in_worker, mixed
from exda_primitives.workbench.training.stages import Stage

small = st.integers(1, 5)


def stages(*lengths_and_batches, times=1):
    """A stage for each length in steps and batch; patches of 8, 16, ... pixels."""
    found, begin = [], 0
    for length, batch in lengths_and_batches:
        found.append(Stage(begin, begin + length, 8 * len(found) + 8, batch * times))
        begin += length
    return found


@given(
    length=small,
    batches=st.lists(st.tuples(st.integers(1, 6), small), min_size=1, max_size=3),
    accumulate=small,
    world=small,
    stop=st.integers(0, 18),
)
def test_the_order_depends_neither_on_processes_nor_on_interruptions(length, batches, accumulate, world, stop):
    def places(order):
        return [place for batch in order for place in batch]

    steps = sum(each for each, _ in batches)
    stop = min(stop, steps)
    whole = stages(*batches, times=accumulate * world)
    together, before = (places(Order(length, 3, range(end), stages=whole)) for end in (steps, stop))
    assert len(together) == sum(steps * batch for steps, batch in batches) * accumulate * world
    shared = [
        Order(length, 3, range(stop, steps), stages=stages(*batches), accumulate=accumulate, rank=rank, world=world)
        for rank in range(world)
    ]
    assert {len(list(each)) for each in shared} == {len(shared[0])} == {(steps - stop) * accumulate}
    found = [place for passes in zip(*shared, strict=True) for batch in passes for place in batch]
    assert before + found == together


def test_each_stage_has_its_patches_and_batches():
    order = list(Order(5, 0, range(1, 5), stages=stages((2, 3), (2, 1), (9, 2)), accumulate=2))
    assert [(len(batch), {place.patch for place in batch}) for batch in order] == [
        *[(3, {8})] * 2,
        *[(1, {16})] * 4,
        *[(2, {24})] * 2,
    ]
    # No pair twice in an epoch, and none left out. Step 0 took six pairs: all five of epoch 0 and one of epoch 1.
    items = [(place.epoch, place.item) for batch in order for place in batch]
    assert [epoch for epoch, _ in items] == [1] * 4 + [2] * 5 + [3] * 5
    assert {item for epoch, item in items if epoch == 2} == set(range(5))


def test_every_pair_once_an_epoch_in_another_order():
    order = list(Order(5, 0, range(6), stages=stages((6, 5))))
    assert len(order) == len(Order(5, 0, range(6), stages=stages((6, 5)))) == 6
    for epoch, batch in enumerate(order):
        assert {place.epoch for place in batch} == {epoch}
        assert {place.item for place in batch} == set(range(5))
    assert len({tuple(place.item for place in batch) for batch in order}) > 3
    assert order != list(Order(5, 1, range(6), stages=stages((6, 5))))


class Slow:
    """A single pair that shows its epoch, which all processes share, and the side of its patch, after a while."""

    def __init__(self):
        self.epoch = torch.zeros(()).share_memory_()

    def __len__(self):
        return 1

    def set_epoch(self, epoch):
        self.epoch.fill_(epoch)

    def __getitem__(self, index):
        time.sleep(0.05)
        return self.epoch.expand(3, self.patch, self.patch).clone(), torch.zeros(3, self.patch, self.patch)


@pytest.mark.parametrize("workers", [0, 2])
def test_pairs_are_those_of_their_epoch(workers):
    """Processes that prepare pairs of different epochs at once do not disturb each other."""
    order = Order(1, 0, range(6), stages=stages((6, 1)))
    loader = DataLoader(AtPlaces(Slow()), batch_sampler=order, num_workers=workers, worker_init_fn=in_worker)
    assert [int(batch.degraded.mean()) for batch in loader] == list(range(6))


@pytest.mark.parametrize("workers", [0, 2])
def test_patches_are_those_of_their_stage(workers):
    order = Order(1, 0, range(4), stages=stages((1, 2), (2, 1), (1, 3)))
    loader = DataLoader(AtPlaces(Slow()), batch_sampler=order, num_workers=workers, worker_init_fn=in_worker)
    assert [tuple(batch.degraded.shape) for batch in loader] == [
        (2, 3, 8, 8),
        (1, 3, 16, 16),
        (1, 3, 16, 16),
        (3, 3, 24, 24),
    ]


def test_pairs_of_a_data_set(tmp_path):
    pairs = open_data(config(tmp_path), 3).training
    places = [Place(epoch, item, patch) for epoch, patch in ((1, 16), (0, 8)) for item in range(len(pairs))]
    for place in places:
        found = AtPlaces(pairs)[place]
        assert found.clean.shape == (3, place.patch, place.patch)
        pairs = open_data(config(tmp_path, data={"patch": place.patch}), 3).training
        pairs.set_epoch(place.epoch)
        degraded, clean, *_ = pairs[place.item]
        assert torch.equal(found.degraded, degraded)
        assert torch.equal(found.clean, clean)


def test_seeds_of_neighbouring_numbers_differ():
    seeds = {mixed(*numbers) % 2**32 for numbers in [(0,), (1,)] + [(a, b) for a in range(100) for b in range(100)]}
    # Among as many random seeds of 32 bits, 0.01 pairs would be equal by chance.
    assert len(seeds) == 10_002
    assert mixed(1, 23) != mixed(12, 3)
