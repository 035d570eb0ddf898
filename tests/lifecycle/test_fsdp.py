"""fully_shard and FullyShardedDataParallel over two processes, applied after patching."""

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
def unsharded(family):
    """The unsharded network, with the gradients of the mean loss over both images."""
    model = network(family)
    (sum(loss(model, image_of(rank)) for rank in range(processes.WORLD)) / processes.WORLD).backward()
    return model


@shards_on_cpus
def test_outputs_equal_the_unsharded_networks(ranks, family):
    for rank, found in enumerate(ranks):
        torch.testing.assert_close(found[family]["output"], network(family)(image_of(rank)), rtol=0, atol=1e-12)
        assert found[family]["patched"]
        assert found[family]["sharded"]


@shards_on_cpus
def test_gradients_equal_the_unsharded_networks(ranks, family, unsharded):
    expected = {name: p.grad for name, p in unsharded.named_parameters() if p.grad is not None}
    ours = {name for name, p in unsharded.named_parameters() if any(p is new for new in exda.new_parameters(unsharded))}
    for found in (each[family]["gradients"] for each in ranks):
        assert ours <= expected.keys() == found.keys()
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, expected[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", [pytest.param("fully_shard", marks=shards_on_cpus), "FullyShardedDataParallel"])
def test_sharding_every_convolution_preserves_outputs_and_gradients(ranks, family, unsharded, kind):
    for rank, (output, gradients) in enumerate(each[family][kind] for each in ranks):
        torch.testing.assert_close(output, network(family)(image_of(rank)), rtol=0, atol=1e-12)
        for name, parameter in unsharded.named_parameters():
            if parameter.grad is not None:
                torch.testing.assert_close(gradients[name], parameter.grad, rtol=1e-9, atol=1e-12)


@shards_on_cpus
def test_gathered_state_dict_is_that_of_the_trained_network(ranks, family, unsharded):
    optimizer(unsharded).step()
    # Only the first process holds the gathered tensors.
    state = ranks[0][family]["state"]
    model = network(family)
    model.load_state_dict(state)
    for name, tensor in unsharded.state_dict().items():
        torch.testing.assert_close(model.state_dict()[name], tensor, rtol=1e-9, atol=1e-12)


@shards_on_cpus
@pytest.mark.parametrize("of_all", [True, False], ids=["whole", "new"])
def test_file_saved_by_all_processes_loads_into_an_unsharded_network(ranks, folder, family, of_all):
    path = folder / f"{family}-{of_all}.safetensors"
    model = network(family)
    exda.unpatch(model)
    exda.load(model, path, any_host=True)
    state = ranks[0][family]["state"]
    assert all(torch.equal(p, state[name]) for name, p in model.named_parameters() if of_all or name in ours(model))


def ours(model):
    known = {id(parameter) for parameter in exda.new_parameters(model)}
    return {name for name, parameter in model.named_parameters() if id(parameter) in known}
