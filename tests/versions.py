"""Marks for tests of what older versions of PyTorch lack."""

import pytest
import torch

SHARDS_ON_CPUS = torch.__version__ >= (2, 7)

shards_on_cpus = pytest.mark.skipif(
    not SHARDS_ON_CPUS,
    reason="fully_shard of PyTorch 2.6 needs a GPU: it records events on streams, and CPU streams have none",
)
exports_open_sizes_to_onnx = pytest.mark.skipif(
    torch.__version__ < (2, 7),
    reason="the ONNX exporter of PyTorch 2.6 takes aten.upsample_bilinear2d.vec and aten.lerp with fixed sizes alone",
)
traces_new_tensors = pytest.mark.skipif(
    torch.__version__ < (2, 9),
    reason="before PyTorch 2.9, torch.fx does not trace torch.zeros(x.shape[0]), which timm calls",
)
GRAPHS_OF_EVEN_AND_ODD = 1 if torch.__version__ >= (2, 13) else 2
"""How many graphs ``torch.compile(dynamic=True)`` makes for maps of even and odd sides that are pooled by 2.

Before PyTorch 2.13, ``avg_pool2d(x, 2, ceil_mode=True)`` guards on whether a side is even.
"""
