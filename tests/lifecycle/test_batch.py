"""The batch size stays dynamic in traced, exported and ONNX models."""

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
DYNAMIC_BATCH = ({0: torch.export.Dim.DYNAMIC},)


@pytest.fixture(params=NETWORKS)
def family(request):
    return request.param


def network(family, **options):
    torch.manual_seed(0)
    model = NETWORKS[family]().eval()
    exda.patch(model, exda.ExDAConfig(**options))
    train_new_parameters(model)
    return model


def with_hooked_layers(model):
    """Hooks layers, so that they are called instead of having their weights read."""
    for block in model.blocks:
        block.attn.value.conv_in.register_forward_hook(lambda _, inputs, output: output)
        block.attn.token.register_forward_hook(lambda _, inputs, output: output)
    return model


def assert_same_outputs(found, model, batches=(1, 3)):
    for batch in batches:
        x = image(7, 6, batch)
        torch.testing.assert_close(found(x), model(x), rtol=0, atol=5e-6)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.trace")
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("backend", ["torch", "reference"])
@torch.no_grad()
def test_trace_at_batch_1_works_at_others(family, backend, options):
    model = network(family, **options)
    with exda.backend(backend):
        assert_same_outputs(torch.jit.trace(model, image(7, 6, 1), check_trace=False), model)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.trace")
@torch.no_grad()
def test_trace_at_batch_1_works_at_others_with_hooked_layers(family):
    model = with_hooked_layers(network(family))
    assert_same_outputs(torch.jit.trace(model, image(7, 6, 1), check_trace=False), model)


@torch.no_grad()
def test_export_with_a_dynamic_batch(family):
    # Exported with a batch of 2: at 1, torch.export makes any model's batch size a constant.
    model = network(family)
    assert_same_outputs(
        torch.export.export(model, (image(7, 6, 2),), dynamic_shapes=DYNAMIC_BATCH).module(), model, (2, 3)
    )


@pytest.mark.parametrize("family", ["mdta", "histogram"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning", "ignore::UserWarning")
@torch.no_grad()
def test_onnx_from_a_trace_at_batch_1_works_at_others(family):
    model, file = network(family), io.BytesIO()
    axes = {"x": {0: "batch"}}
    torch.onnx.export(model, (image(7, 6, 1),), file, dynamo=False, input_names=["x"], dynamic_axes=axes)
    session = onnxruntime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    assert_same_outputs(lambda x: torch.from_numpy(session.run(None, {"x": x.numpy()})[0]), model)
