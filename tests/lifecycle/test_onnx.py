"""ONNX files of patched networks, run by onnxruntime at sizes that they were not exported at."""

import onnxruntime
import pytest
import torch
from tests.patching.hosts import MDTA, Cross, Histogram
from tests.patching.models import Net
from tests.versions import exports_open_sizes_to_onnx

import exda_primitives as exda
from exda_primitives.models.adair import _is_low

from .networks import ONE_BLOCK, image, network

# Height and width.
DYNAMIC_SIZES = ({2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC},)

NETWORKS = {
    # One block at an eighth of the image's side, the others at the image's size; more blocks only take longer.
    "restormer": lambda: network(**ONE_BLOCK),
    "mdta": lambda: Net(MDTA()),
    "cross": lambda: Net(Cross(), inputs=2),
    "histogram": lambda: Net(Histogram()),
}

SIZES = {
    "restormer": ((16, 24), (32, 8)),
    "mdta": ((16, 24), (9, 7), (21, 32)),
    "cross": ((16, 24), (9, 7), (21, 32)),
    # Few pixels: among many, two are so close that another library's rounding sorts them the other way round.
    "histogram": ((6, 8), (9, 7), (1, 5)),
}


def onnx(model, x, path):
    torch.onnx.export(model, (x,), dynamo=True, dynamic_shapes=DYNAMIC_SIZES, verbose=False).save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {session.get_inputs()[0].name: x.numpy()})[0])


@exports_open_sizes_to_onnx
@pytest.mark.parametrize(("kind", "stride"), [("restormer", 2), ("cross", 1), ("histogram", 1)])
@torch.no_grad()
def test_onnx_model_computes_the_same_at_every_size(kind, stride, tmp_path):
    model = NETWORKS[kind]().eval()
    before = model(image())
    exda.patch(model, exda.ExDAConfig(init="paper", tokens=2, scale="mean", stride=stride))
    for parameter in exda.new_parameters(model):
        parameter.add_(torch.randn_like(parameter), alpha=0.3)
    exported = onnx(model, image(), tmp_path / "model.onnx")
    assert (exported(image()) - before).abs().max() > 1e-3
    for size in SIZES[kind]:
        x = image(1, *size)
        # Measured: at most 7e-7 for outputs of up to 1.5.
        torch.testing.assert_close(exported(x), model(x), rtol=0, atol=5e-6)


@torch.no_grad()
def test_frequency_bands_are_equal_at_every_size(tmp_path):
    """The frequency bands of AdaIR alone, since exporting the whole network takes minutes."""

    class Bands(torch.nn.Module):
        def forward(self, x):
            # The first 7 frequencies, so that sides of different lengths can be stacked.
            return torch.stack([_is_low(x.mean((1, 2, 3)), side)[:, :7] for side in x.shape[2:]]).float()

    model = Bands().eval()
    exported = onnx(model, image(0, 256, 384), tmp_path / "bands.onnx")
    for size in ((256, 384), (513, 640), (9, 1025)):
        found = exported(image(1, *size))
        assert torch.equal(found, model(image(1, *size)))
    assert found.any()
