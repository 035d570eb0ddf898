"""DistributedDataParallel over two processes, each with its own image."""

import pytest
import torch

import exda_primitives as exda

from . import processes
from .ddp_work import CASES, gradients, image_of, network, work
from .networks import loss


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return processes.run(work, tmp_path_factory.mktemp("ddp"))


@pytest.fixture(params=CASES, ids=lambda case: f"{case[0]}-{'new-alone' if case[1] else 'all'}")
def case(request):
    return request.param


def test_gradients_are_the_mean_over_the_images(ranks, case):
    single = []
    for rank in range(processes.WORLD):
        model = network(*case)
        loss(model, image_of(rank)).backward()
        single.append(gradients(model))
    ours = {name for name, p in model.named_parameters() if any(p is new for new in exda.new_parameters(model))}
    for found in (each[case]["gradients"] for each in ranks):
        assert ours <= found.keys()
        assert not case[1] or ours == found.keys()
        for name, gradient in found.items():
            mean = sum(each[name] for each in single if name in each) / processes.WORLD
            torch.testing.assert_close(gradient, mean, rtol=1e-9, atol=1e-12)
    assert any(not torch.equal(single[0][name], single[1][name]) for name in ours)


def test_processes_are_equal_after_a_step(ranks, case):
    first, second = (each[case]["state"] for each in ranks)
    before = network(*case).state_dict()
    assert all(torch.equal(first[name], second[name]) for name in before)
    moved = {name for name in before if not torch.equal(first[name], before[name])}
    assert moved
    assert moved <= ranks[0][case]["gradients"].keys()


def test_patch_is_saved_from_and_loaded_into_the_wrapper(ranks):
    before = network("mdta", frozen=False)
    for rank, found in enumerate(each["loaded"] for each in ranks):
        for name, tensor in before.state_dict().items():
            assert torch.equal(found["state"][name], tensor)
        torch.testing.assert_close(found["output"], before(image_of(rank)), rtol=0, atol=1e-12)
