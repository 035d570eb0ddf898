"""A recorded function, replayed on other tensors of the same kind, returns what the function itself would."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import triton
import triton.language as tl
from torch import Tensor

from exda_primitives.ops.triton import recorded
from exda_primitives.ops.triton.kernel import single_config
from exda_primitives.ops.triton.recorded import Recorded

from .agreement import random


@single_config
@triton.jit
def scale_kernel(x, out, length, factor, block: tl.constexpr):
    i = tl.arange(0, block)
    tl.store(out + i, tl.load(x + i, mask=i < length, other=0.0) * factor, mask=i < length)


def scaled(x: Tensor, factor: float) -> Tensor:
    """``factor * x`` by a kernel, for a contiguous x."""
    out = torch.empty(x.shape, dtype=x.dtype)
    scale_kernel[(1,)](x, out, x.numel(), factor, block=64)
    return out


class Counted:
    """A recorded function and ``calls``, how often it was called instead of replayed."""

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self.function, self.calls = function, 0
        self.recorded = Recorded(self)

    def __call__(self, tensors: tuple[Tensor, ...], *constants: object) -> Tensor:
        self.calls += 1
        return self.function(*tensors, *constants)

    def check(self, *tensors: Tensor | None, constants: tuple[object, ...] = ()) -> None:
        """Checks that the recorded function returns exactly what the function does."""
        torch.testing.assert_close(
            self.recorded(tensors, *constants), self.function(*tensors, *constants), rtol=0, atol=0
        )


def views_copies_and_kernels(x: Tensor, bias: Tensor | None, factor: float = 3.0) -> Tensor:
    """Views, copies, kernels, and PyTorch's operations on one or several of their results."""
    first, second = x.chunk(2, dim=1)
    a, b = scaled(first.contiguous(), factor), scaled(second[:, 1:].contiguous(), 2.0)
    if bias is not None:
        a = a + bias[:, None]
    both = torch.cat([a, b, first[:, :1]], 1).flatten(1)
    out = scaled(both, 0.5)
    return out.unflatten(1, (-1, x.shape[2]))[:, 1:]


def test_tensors_of_one_kind_call_the_function_once() -> None:
    counted = Counted(views_copies_and_kernels)
    for seed in range(4):
        counted.check(random(2, 4, 3, seed=seed), random(2, seed=seed + 9))
    assert counted.calls == 1


@pytest.mark.parametrize(
    "other",
    [
        lambda: (random(1, 4, 3), random(2)),
        lambda: (random(2, 4, 3), None),
        lambda: (random(2, 4, 3, dtype=torch.float32), random(2, dtype=torch.float32)),
        lambda: (random(2, 3, 4).transpose(1, 2), random(2)),
        lambda: (random(2, 5, 3)[:, 1:], random(2)),
        lambda: (random(2 * 4 * 3 + 1)[1:].view(2, 4, 3), random(2)),
    ],
    ids=["batch", "no bias", "dtype", "strides", "slice", "alignment"],
)
def test_another_kind_calls_the_function_again(other: Callable[[], tuple[Tensor, Tensor | None]]) -> None:
    counted = Counted(views_copies_and_kernels)
    counted.check(random(2, 4, 3), random(2))
    counted.check(*other())
    counted.check(*other())
    assert counted.calls == 2


def test_constants_are_part_of_the_kind() -> None:
    counted = Counted(views_copies_and_kernels)
    for factor in (1.5, 2.5, 1.5):
        counted.check(random(2, 4, 3), None, constants=(factor,))
    assert counted.calls == 2


def test_tensors_that_share_memory_when_recorded_need_not_do_so_later() -> None:
    counted = Counted(views_copies_and_kernels)
    flat = random(2 * 4 * 3 + 2)
    counted.check(flat[: 2 * 4 * 3].view(2, 4, 3), flat[-2:])
    counted.check(random(2, 4, 3), random(2))
    assert counted.calls == 1


def test_one_tensor_given_twice_is_replayed_on_two() -> None:
    counted = Counted(lambda x, y: scaled(x, 2.0) + y)
    x = random(3, 4)
    counted.check(x, x)
    counted.check(random(3, 4), random(3, 4, seed=1))
    assert counted.calls == 1


def test_every_call_returns_new_memory() -> None:
    counted = Counted(views_copies_and_kernels)
    outs = [counted.recorded((random(2, 4, 3, seed=seed), None)) for seed in range(3)]
    kept = [out.clone() for out in outs]
    counted.recorded((random(2, 4, 3, seed=7), None))
    assert all(torch.equal(*pair) for pair in zip(outs, kept, strict=True))


@pytest.mark.parametrize(
    "function",
    [lambda x: x.mul_(2), lambda x: scaled(x, 2.0).add_(1), lambda x: scaled(x, 1.0) + NO_ARGUMENT],
    ids=["input changed in place", "result changed in place", "tensor that is no argument"],
)
def test_function_that_cannot_be_replayed_is_called_every_time(function: Callable[[Tensor], Tensor]) -> None:
    counted = Counted(function)
    for seed in range(3):
        x = random(2, 4, 3, seed=seed)
        torch.testing.assert_close(counted.recorded((x.clone(),)), function(x.clone()), rtol=0, atol=0)
    assert counted.calls == 3


NO_ARGUMENT = random(2, 4, 3, seed=5)


def test_memory_is_released_after_its_last_use() -> None:
    counted = Counted(views_copies_and_kernels)
    counted.recorded((random(2, 4, 3), None))
    (record,) = counted.recorded._records.values()
    assert record is not None
    slots = [random(2, 4, 3), None, *record._empty]
    held = []
    for action, done in record._actions:
        action(slots, 0)
        for slot in done:
            slots[slot] = None
        held.append(sum(each is not None for each in slots[2:]))
    # At most two copies and their products at once; only the output is left at the end.
    assert max(held) <= 4
    assert held[-1] == 1


def test_number_of_records_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorded, "_MOST_RECORDS", 2)
    counted = Counted(views_copies_and_kernels)
    for batch in (1, 2, 3, 1):
        counted.check(random(batch, 4, 3), None)
    assert len(counted.recorded._records) <= 2


def test_error_leaves_no_record() -> None:
    counted = Counted(views_copies_and_kernels)
    with pytest.raises(RuntimeError, match="size of tensor"):
        counted.recorded((random(2, 4, 3), random(5)))
    assert not counted.recorded._records
    counted.check(random(2, 4, 3), random(2))
