"""Fused, patched networks as one graph: compiled by torch.compile, and captured as by CUDA graphs."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tests.ops.triton.programs import shrink_depthwise
from tests.versions import GRAPHS_OF_EVEN_AND_ODD
from torch import nn
from torch._dynamo.testing import CompileCounterWithBackend

import exda_primitives as exda

from .blocks import feature, patch_randomly, small_block
from .capture import check_reduce_overhead, check_replay, follows, network

GPUS = [f"cuda:{index}" for index in range(torch.cuda.device_count())]


@pytest.fixture(autouse=True)
def _small_programs(monkeypatch):
    shrink_depthwise(monkeypatch)


@pytest.mark.usefixtures("fresh_dynamo")
class TestCompiled:
    @torch.no_grad()
    def test_restormer_in_one_graph(self):
        blocks = {"num_blocks": [1, 0, 0, 0], "num_refinement_blocks": 0, "heads": [2, 1, 1, 1]}
        model = patch_randomly(exda.models.Restormer(dim=4, ffn_expansion_factor=1, **blocks))
        exda.fuse(model)
        x = torch.rand(1, 3, 8, 16)
        found = torch.compile(model, backend="aot_eager", fullgraph=True)(x)
        with exda.backend("torch"):
            torch.testing.assert_close(found, model(x), rtol=0, atol=1e-5)

    def test_gradients_in_one_graph(self):
        model = network("cpu", torch.float64)
        x = feature(4, 5, 1, torch.float64).requires_grad_()
        wanted = [x, *model.parameters()]
        whole = torch.compile(model, backend="aot_eager", fullgraph=True)
        found = torch.autograd.grad(whole(x).square().sum(), wanted)
        with exda.backend("reference"):
            expected = torch.autograd.grad(model(x).square().sum(), wanted)
        for ours, theirs in zip(found, expected, strict=True):
            torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)

    @torch.no_grad()
    @pytest.mark.parametrize("patched", [False, True])
    def test_one_graph_for_all_sizes(self, patched):
        model, counter = nn.Sequential(small_block()), CompileCounterWithBackend("eager")
        if patched:
            exda.patch(model)
        exda.fuse(model)
        whole = torch.compile(model, backend=counter, fullgraph=True, dynamic=True)
        # No side equals the number of channels: the compiler would treat equal sizes as one symbol.
        for size in ((5, 6), (7, 3)):
            x = feature(*size)
            found = whole(x)
            with exda.backend("torch"):
                torch.testing.assert_close(found, model(x), rtol=0, atol=1e-5)
        assert counter.frame_count == (GRAPHS_OF_EVEN_AND_ODD if patched else 1)

    @torch.no_grad()
    def test_another_backend_is_compiled_anew(self, ran_as_formulas):
        # A compiled network must not keep the backend that it was compiled for.
        model = nn.Sequential(small_block())
        exda.fuse(model)
        whole = torch.compile(model, backend="eager", fullgraph=True)
        x = feature()
        whole(x)
        assert ran_as_formulas == ["attention_step", "gated_step"]
        with exda.backend("torch"):
            whole(x)
        assert ran_as_formulas == ["attention_step", "gated_step"]


class TestCaptured:
    def test_replay_follows_inputs_and_parameters(self):
        # On the CPU with the interpreter; on GPUs compiled, in another process: the interpreter is set at import.
        check_replay("cpu")
        check_reduce_overhead("cpu")
        environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        for gpu in GPUS:
            command = [sys.executable, "-m", "tests.fusion.capture", gpu]
            root = Path(__file__).parents[2]
            done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr

    @pytest.mark.parametrize(
        ("function", "expected"),
        [
            (lambda x: x / x.sum(), True),
            (lambda x: x / x.sum().item(), False),
            (lambda x: x * torch.tensor(float(x.abs().max())), False),
            (lambda x: x.exp_().sin(), False),
        ],
        ids=["on-the-device", "item", "tensor", "in-place"],
    )
    def test_record_finds_stale_numbers(self, function, expected):
        assert follows(function, torch.randn(3, 4), lambda: None) is expected
