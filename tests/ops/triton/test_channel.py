"""Whole attentions on kernels against the literal formula: output and every gradient, and when they do not apply."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from tests.ops.test_agreement import CASES, Case
from torch import nn

import exda_primitives as exda
from exda_primitives import ops
from exda_primitives.ops import torch as concat_free
from exda_primitives.ops import triton as triton_ops

from .agreement import poison
from .programs import shrink_depthwise

# Small maps and strides: the interpreter takes time for every row of pixels, and for every pixel of a token's cell.
# Every fifth case, to save time.
VALUE_BEFORE = [
    case._replace(
        height=min(case.height, 5), width=min(case.width, 7), batch=min(case.batch, 2), stride=min(case.stride, 2)
    )
    for case in CASES
    if case.position == "before"
][::5]


@pytest.fixture(autouse=True)
def _small_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_depthwise(monkeypatch)


@pytest.fixture(params=["mdta", "cross"])
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def ran_on_kernels(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the functions that ran on kernels."""
    ran: list[str] = []
    for name in ("mdta", "cross"):
        function = getattr(triton_ops, name)

        def noted(*arguments: Any, name: str = name, function: Callable[..., Any] = function) -> Any:
            ran.append(name)
            return function(*arguments)

        monkeypatch.setattr(triton_ops, name, noted)
    return ran


def prepared(kind: str, case: Case, dtype: torch.dtype, make_attention: Any, make_maps: Any) -> tuple[Any, Any]:
    dim = case.heads * case.channels
    module = make_attention(kind, dim, case.heads, case.bias, dtype=dtype, **case.options)
    return module, make_maps(kind, case.batch, dim, case.height, case.width, dtype=dtype)


@pytest.mark.parametrize("case", VALUE_BEFORE, ids=str)
def test_outputs_and_gradients_agree_in_float64(
    case: Case,
    kind: str,
    ran_on_kernels: list[str],
    make_attention: Any,
    make_maps: Any,
    differentiate: Any,
    relative_errors: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module, maps = prepared(kind, case, torch.float64, make_attention, make_maps)
    expected = differentiate(module, maps, "reference")
    poison(monkeypatch)
    found = differentiate(module, maps, "triton")
    assert ran_on_kernels == [kind]
    errors = relative_errors(found, expected)
    assert max(errors.values()) < 1e-12, errors


def test_outputs_and_gradients_agree_in_float32(
    kind: str, make_attention: Any, make_maps: Any, differentiate: Any, relative_errors: Any
) -> None:
    module, maps = prepared(kind, VALUE_BEFORE[0], torch.float32, make_attention, make_maps)
    errors = relative_errors(differentiate(module, maps, "triton"), differentiate(module, maps, "reference"))
    # The concat-free path's bound (tests/ops/test_agreement.py).
    assert max(errors.values()) < 2e-5, errors


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_half_precision_agrees_with_the_formula_in_float32(
    dtype: torch.dtype, kind: str, make_attention: Any, make_maps: Any, differentiate: Any, relative_errors: Any
) -> None:
    module, maps = prepared(kind, VALUE_BEFORE[-1]._replace(batch=1), dtype, make_attention, make_maps)
    found = differentiate(module, maps, "triton")
    expected = differentiate(module.float(), tuple(x.float() for x in maps), "reference")
    errors = relative_errors(found, expected)
    eps = torch.finfo(dtype).eps
    # The concat-free path's bounds.
    assert errors.pop("output") < 4 * eps
    assert max(errors.values()) < 24 * eps, errors


@torch.no_grad()
def test_autocast_computes_in_bfloat16(make_attention: Any, make_maps: Any, ran_on_kernels: list[str]) -> None:
    module, maps = make_attention("mdta", dtype=torch.float32), make_maps("mdta", 2, 6, 5, 7, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16), exda.backend("triton"):
        found = module(*maps)
    assert ran_on_kernels == ["mdta"]
    assert found.dtype is torch.bfloat16
    expected = module(*maps)
    assert (found - expected).abs().max() < 0.05 * expected.abs().max()


@torch.no_grad()
def test_hooked_projections_are_called(make_attention: Any, make_maps: Any) -> None:
    module, maps = make_attention("mdta"), make_maps("mdta", 1, 6, 5, 7)
    called = []
    for name in ("qkv", "qkv_dwconv", "project_out"):
        getattr(module, name).register_forward_hook(lambda module, _, output: called.append(module) or output * 1.5)
    with exda.backend("reference"):
        expected = module(*maps)
    called.clear()
    with exda.backend("triton"):
        found = module(*maps)
    assert len(called) == 3
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)


@torch.no_grad()
def test_depthwise_convolution_of_another_size_is_called(make_attention: Any, make_maps: Any) -> None:
    module, maps = make_attention("cross"), make_maps("cross", 1, 6, 5, 7)
    module.kv_dwconv = nn.Conv2d(12, 12, 7, padding=3, groups=12, dtype=torch.float64)
    with exda.backend("reference"):
        expected = module(*maps)
    with exda.backend("triton"):
        torch.testing.assert_close(module(*maps), expected, rtol=1e-12, atol=1e-12)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["mdta", "cross", "histogram", "xca"])
def test_unsupported_devices_compute_in_pytorch(
    kind: str, make_attention: Any, make_maps: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(f"{triton_ops.channel.__name__}.device_unsupported_reason", lambda x: "no such device")
    module, maps = make_attention(kind), make_maps(kind, 1, 6, 5, 7)
    expected = module(*maps)
    with exda.backend("triton"):
        assert torch.equal(module(*maps), expected)


def test_unsupported_reasons(make_attention: Any, make_maps: Any) -> None:
    (x,) = make_maps("mdta", 1, 6, 5, 7)
    terms = make_attention("mdta").terms()
    assert triton_ops.mdta_unsupported_reason(x, terms) is None
    after = make_attention("mdta", value_position="after").terms()
    assert "after the aggregation" in str(triton_ops.mdta_unsupported_reason(x, after))
    assert "map is torch.float32, the projections are torch.float64" in str(
        triton_ops.mdta_unsupported_reason(x.float(), terms)
    )
    long = x.new_empty(1, 6, 1, 40000)
    assert "at most" in str(triton_ops.mdta_unsupported_reason(long, terms))
    wide = x.new_empty(()).expand(1, 3 * 4096, 5, 7)
    assert "6145 channels and tokens" in str(triton_ops.mdta_unsupported_reason(wide, terms))


def test_histogram_and_xca_have_no_kernels() -> None:
    assert ops.histogram.functions["triton"] is concat_free.histogram
    assert ops.xca.functions["triton"] is concat_free.xca


def test_compiled_in_one_graph(make_attention: Any, make_maps: Any) -> None:
    module, maps = make_attention("mdta", dtype=torch.float32), make_maps("mdta", 1, 6, 5, 7, dtype=torch.float32)
    with exda.backend("triton"):
        compiled = torch.compile(module, fullgraph=True, backend="aot_eager")
        torch.testing.assert_close(compiled(*maps), module(*maps), rtol=0, atol=1e-5)
