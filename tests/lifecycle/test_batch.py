"""The batch stays open in what is traced, exported or written to ONNX."""

import io

import onnxruntime
import pytest
import torch
from tests.patching import tokens
from tests.patching.hosts import MDTA, Cross, Histogram
from tests.patching.models import Net, image, train_new_parameters

import exda_primitives as exda

NETWORKS = {
    "mdta": lambda: Net(MDTA()),
    "cross": lambda: Net(Cross(), inputs=2),
    "histogram": lambda: Net(Histogram()),
    "xca": tokens.two_blocks,
}
OPTIONS = {
    "default": {},
    "after": {"value_position": "after", "tokens": 2},
    "replace": {"value": "replace", "init": "paper", "scale": "mean"},
    "gelu after": {"value": "gelu", "init": "paper", "value_position": "after"},
    "no tokens": {"tokens": 0},
}
OPEN = ({0: torch.export.Dim.DYNAMIC},)


@pytest.fixture(params=NETWORKS)
def family(request):
    return request.param


def network(family, **options):
    torch.manual_seed(0)
    model = NETWORKS[family]().eval()
    exda.patch(model, exda.ExDAConfig(**options))
    train_new_parameters(model)
    return model


def called(model):
    """With layers that are called in place of being read."""
    for block in model.blocks:
        block.attn.value.conv_in.register_forward_hook(lambda _, inputs, output: output)
        block.attn.token.register_forward_hook(lambda _, inputs, output: output)
    return model


def check(found, model, batches=(1, 3)):
    for batch in batches:
        x = image(7, 6, batch)
        torch.testing.assert_close(found(x), model(x), rtol=0, atol=5e-6)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.trace")
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("backend", ["torch", "reference"])
@torch.no_grad()
def test_traced_at_one(family, backend, options):
    model = network(family, **options)
    with exda.backend(backend):
        check(torch.jit.trace(model, image(7, 6, 1), check_trace=False), model)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.trace")
@torch.no_grad()
def test_traced_at_one_where_layers_are_called(family):
    model = called(network(family))
    check(torch.jit.trace(model, image(7, 6, 1), check_trace=False), model)


@torch.no_grad()
def test_exported(family):
    # At 1, torch.export makes the batch of anything a constant.
    model = network(family)
    check(torch.export.export(model, (image(7, 6, 2),), dynamic_shapes=OPEN).module(), model, (2, 3))


@pytest.mark.parametrize("family", ["mdta", "histogram"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning", "ignore::UserWarning")
@torch.no_grad()
def test_onnx_from_a_trace_at_one(family):
    model, file = network(family), io.BytesIO()
    axes = {"x": {0: "batch"}}
    torch.onnx.export(model, (image(7, 6, 1),), file, dynamo=False, input_names=["x"], dynamic_axes=axes)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    check(lambda x: torch.from_numpy(session.run(None, {"x": x.numpy()})[0]), model)
