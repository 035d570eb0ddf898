"""fully_shard over two processes, put on after the patch."""

from functools import partial

import pytest
import torch
from tests.versions import shards_on_cpus

import exda_primitives as exda

from . import processes
from .fsdp_work import FAMILIES, image_of, network, optimizer, work
from .networks import loss


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("fsdp")


@pytest.fixture(scope="module")
def ranks(folder):
    return processes.run(partial(work, folder=folder), folder)


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture
def whole(family):
    """The same network in one process, with the gradients of both images' mean."""
    model = network(family)
    (sum(loss(model, image_of(rank)) for rank in range(processes.WORLD)) / processes.WORLD).backward()
    return model


@shards_on_cpus
def test_outputs(ranks, family):
    for rank, found in enumerate(ranks):
        torch.testing.assert_close(found[family]["output"], network(family)(image_of(rank)), rtol=0, atol=1e-12)
        assert found[family]["patched"]
        assert found[family]["sharded"]


@shards_on_cpus
def test_gradients(ranks, family, whole):
    expected = {name: p.grad for name, p in whole.named_parameters() if p.grad is not None}
    ours = {name for name, p in whole.named_parameters() if any(p is new for new in exda.new_parameters(whole))}
    for found in (each[family]["gradients"] for each in ranks):
        assert ours <= expected.keys() == found.keys()
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", [pytest.param("fully_shard", marks=shards_on_cpus), "FullyShardedDataParallel"])
def test_every_convolution_by_itself(ranks, family, whole, kind):
    for rank, (output, gradients) in enumerate(each[family][kind] for each in ranks):
        torch.testing.assert_close(output, network(family)(image_of(rank)), rtol=0, atol=1e-12)
        for name, parameter in whole.named_parameters():
            if parameter.grad is not None:
                torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-9, atol=1e-12)


@shards_on_cpus
def test_the_gathered_state_dict_is_the_trained_network(ranks, family, whole):
    optimizer(whole).step()
    # Only the first process holds the gathered tensors.
    state = ranks[0][family]["state"]
    model = network(family)
    model.load_state_dict(state)
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=1e-9, atol=1e-12)


@shards_on_cpus
@pytest.mark.parametrize("of_all", [True, False], ids=["whole", "new"])
def test_saved_from_all_processes(ranks, folder, family, of_all):
    path = folder / f"{family}-{of_all}.safetensors"
    model = network(family)
    exda.unpatch(model)
    exda.load(model, path, any_host=True)
    state = ranks[0][family]["state"]
    assert all(torch.equal(p, state[name]) for name, p in model.named_parameters() if of_all or name in ours(model))


def ours(model):
    known = {id(parameter) for parameter in exda.new_parameters(model)}
    return {name for name, parameter in model.named_parameters() if id(parameter) in known}
