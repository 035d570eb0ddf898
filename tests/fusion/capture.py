"""Captures a fused, patched network once and replays it: ``python -m tests.fusion.capture DEVICE``.

On a GPU by CUDA graphs, plain ones and those of ``torch.compile(mode="reduce-overhead")``. On a CPU by recording every
operator's call and repeating it on the same memory: numbers that a forward pass reads from tensors into Python are as
stale there as in a CUDA graph.
"""

import sys

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import exda_primitives as exda

from .blocks import feature, patch_randomly, small_block


class Record(TorchDispatchMode):
    """Records calls of operators and what they returned; ``replay`` repeats them, writing to the same memory."""

    def __init__(self):
        super().__init__()
        self.calls = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, out))
        return out

    def replay(self):
        for func, args, kwargs, out in self.calls:
            for new, old in zip(tree_leaves(func(*args, **kwargs)), tree_leaves(out), strict=True):
                # Views need no copy: they are on the memory that is written already.
                if isinstance(new, torch.Tensor) and new.data_ptr() != old.data_ptr():
                    old.copy_(new)


@torch.no_grad()
def captured(function, x):
    """Captures ``function(x)``; returns a function that replays it on ``x``'s current values, and the output tensor."""
    if not x.is_cuda:
        with Record() as record:
            out = function(x)
        return record.replay, out
    # PyTorch's manual asks for a warm-up on a side stream; in it, kernels also choose their configurations.
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            function(x)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = function(x)
    return graph.replay, out


@torch.no_grad()
def follows(function, x, change):
    """Whether a replay computes what the function does on new values of ``x``, and then again after ``change()``."""
    replay, out = captured(function, x)
    equal = []
    for act in (lambda: x.copy_(torch.randn_like(x)), change):
        act()
        replay()
        equal.append(torch.equal(out, function(x)))
    return all(equal)


def network(device, dtype=torch.float32):
    model = nn.Sequential(small_block(bias=True)).to(device, dtype)
    patch_randomly(model)
    exda.fuse(model)
    return model


def maps(device, dtype=torch.float32):
    return feature(5, 4, 1, dtype).to(device)


@torch.no_grad()
def scale_parameters(model):
    for parameter in model.parameters():
        parameter.mul_(1.1)


def check_replay(device, dtype=torch.float32):
    """Fails unless a replay follows changes of its input and, in place, of the parameters."""
    model = network(device, dtype)
    assert {part.backend for part in exda.backend_report(model).parts} == {"triton"}
    assert follows(model, maps(device, dtype), lambda: scale_parameters(model))


@torch.no_grad()
def check_reduce_overhead(device):
    """Fails unless the network compiles to one graph with ``mode="reduce-overhead"`` and computes the same."""
    torch.compiler.reset()
    model = network(device)
    compiled = torch.compile(model, mode="reduce-overhead", fullgraph=True)
    # On a GPU the first call compiles, the second records a CUDA graph, the third replays it.
    for _ in range(1 if device == "cpu" else 3):
        x = maps(device)
        torch.testing.assert_close(compiled(x).clone(), model(x), rtol=0, atol=1e-5)
    torch.compiler.reset()


if __name__ == "__main__":
    for dtype in (torch.float32, torch.bfloat16):
        check_replay(sys.argv[1], dtype)
    check_reduce_overhead(sys.argv[1])
