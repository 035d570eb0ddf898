"""Wrapped and scripted models are refused with the line to write instead."""

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DataParallel, DistributedDataParallel

import exda_primitives as exda

from .models import image, two_blocks
from .unchanged import unchanged


@pytest.fixture(scope="module")
def _one_process(tmp_path_factory):
    store = tmp_path_factory.mktemp("gloo") / "store"
    dist.init_process_group("gloo", init_method=store.as_uri(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def sharded(model):
    return FullyShardedDataParallel(model, device_id=torch.device("cpu"))


def fully_sharded(model):
    fully_shard(model, mesh=init_device_mesh("cpu", (1,)))
    return model


WRAPPERS = {
    "DataParallel": (DataParallel, "torch.nn.DataParallel(model.module)"),
    "DistributedDataParallel": (DistributedDataParallel, "torch.nn.parallel.DistributedDataParallel(model.module)"),
    "FullyShardedDataParallel": (sharded, "FullyShardedDataParallel(model.module)"),
    "FSDPModule": (fully_sharded, "fully_shard(model)"),
}
CALLS = {"patch": exda.patch, "plan": exda.plan, "from_host": exda.from_host}


# FSDP over one process warns that it does not shard.
@pytest.mark.filterwarnings("ignore:FSDP is switching:UserWarning")
@pytest.mark.usefixtures("_one_process")
@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", WRAPPERS)
def test_wrapped_model_is_refused_with_the_line_to_write(kind, call):
    wrap, line = WRAPPERS[kind]
    model = wrap(two_blocks())
    with unchanged(model), pytest.raises(exda.WrappedModelError) as caught:
        CALLS[call](model)
    message = str(caught.value)
    assert kind in message
    assert line in message
    assert "exda.patch(model" in message


@pytest.mark.filterwarnings("ignore:FSDP is switching:UserWarning")
@pytest.mark.usefixtures("_one_process")
@pytest.mark.parametrize("kind", WRAPPERS)
def test_wrapper_further_down_is_refused_by_name(kind):
    model = two_blocks()
    model.blocks[0] = WRAPPERS[kind][0](model.blocks[0])
    with unchanged(model), pytest.raises(exda.WrappedModelError, match=rf"blocks\.0.*{kind}"):
        exda.patch(model)


def test_line_to_write_works():
    model = DataParallel(two_blocks())
    exda.patch(model.module)
    model = DataParallel(model.module)
    assert exda.is_patched(model)
    assert len(exda.new_parameters(model)) == len(exda.new_parameters(model.module)) > 0


def test_subclass_of_a_wrapper_is_refused():
    class Ours(DataParallel):
        pass

    with pytest.raises(exda.WrappedModelError):
        exda.patch(Ours(two_blocks()))


def test_unrelated_class_of_the_same_name_is_accepted():
    unrelated = type("DataParallel", (nn.Sequential,), {})
    assert len(exda.plan(unrelated(two_blocks())).matches) == 2


@pytest.mark.usefixtures("_one_process")
def test_new_parameters_get_gradients_under_ddp():
    model = two_blocks()
    exda.patch(model)
    DistributedDataParallel(model)(image()).sum().backward()
    assert all(
        parameter.grad is not None for parameter in (model.blocks[0].attn.alpha, model.blocks[0].attn.token_gate)
    )


class TestScripts:
    """Models of torch.jit, which is deprecated but still in use."""

    pytestmark = pytest.mark.filterwarnings("ignore")

    @pytest.mark.parametrize("call", CALLS)
    def test_traced_model_is_refused(self, call):
        model = torch.jit.trace(two_blocks(), image(), check_trace=False)
        with pytest.raises(exda.WrappedModelError, match="script"):
            CALLS[call](model)

    def test_scripted_model_is_refused(self):
        model = torch.jit.script(nn.Sequential(nn.Conv2d(3, 3, 1)))
        with pytest.raises(exda.WrappedModelError, match="script"):
            exda.patch(model)

    def test_scripted_part_elsewhere_is_left_alone(self):
        model = two_blocks()
        model.tail = torch.jit.script(model.tail)
        assert len(exda.patch(model).matches) == 2

    def test_traced_part_is_named_in_the_report_or_the_error(self):
        model = two_blocks()
        model.blocks[0] = torch.jit.trace(model.blocks[0], torch.rand(1, 8, 9, 7), check_trace=False)
        try:
            report = exda.plan(model)
        except exda.WrappedModelError as error:
            said = str(error)
        else:
            said = str(report)
        assert "blocks.0" in said


@pytest.mark.parametrize("call", [exda.patch, exda.plan, exda.unpatch, exda.from_host], ids=lambda call: call.__name__)
@pytest.mark.parametrize(
    "given", [None, "model", {"weight": 1}, torch.zeros(2)], ids=lambda given: type(given).__name__
)
def test_anything_but_a_module_raises(call, given):
    with pytest.raises(TypeError, match=rf"expected a torch\.nn\.Module, got {type(given).__name__}"):
        call(given)
