"""Which configuration an autotuned kernel launches with, and how the choice is cached on disk."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import triton
import triton.language as tl

from exda_primitives.errors import InputError
from exda_primitives.ops.triton import config_cache
from exda_primitives.ops.triton.kernel import Kernel, on_launch

CONFIGS = [triton.Config({"block": block}, num_warps=warps) for block, warps in ((16, 1), (32, 2), (64, 4))]


@triton.jit
def add_kernel(x, out, length, precision: tl.constexpr, block: tl.constexpr):
    i = tl.program_id(0) * block + tl.arange(0, block)
    tl.store(out + i, tl.load(x + i, mask=i < length, other=0.0) + block, mask=i < length)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("EXDA_CACHE", str(tmp_path))
    return tmp_path


class Tuned:
    """A kernel whose configurations take the given times, or raise the given errors, when they are timed."""

    def __init__(self, *outcomes: float | Exception) -> None:
        self.outcomes, self.timed = list(outcomes), 0
        self.kernel = Kernel(add_kernel, CONFIGS)
        self.kernel.tunes = True
        self.kernel.do_bench = self._bench

    def _bench(self, call: Any, quantiles: tuple[float, ...]) -> list[float]:
        outcome = self.outcomes[self.timed % len(self.outcomes)]
        self.timed += 1
        call()
        if isinstance(outcome, Exception):
            raise outcome
        return [outcome] * len(quantiles)

    def __call__(self, length: int = 40, dtype: torch.dtype = torch.float32, precision: str = "ieee") -> int:
        """Launches the kernel, which adds its block size to zeros; returns that of the chosen configuration."""
        x, out = torch.zeros(length, dtype=dtype), torch.empty(length, dtype=dtype)
        self.kernel[lambda meta: (triton.cdiv(length, meta["block"]),)](x, out, length, precision=precision)
        assert torch.equal(out, out[0].expand(length))
        return int(out[0])


def out_of_resources() -> Exception:
    return triton.runtime.errors.OutOfResources(300_000, 232_448, "shared memory")


def test_fastest_configuration_is_chosen_and_timed_once() -> None:
    tuned = Tuned(3.0, 1.0, 2.0)
    assert [tuned(), tuned(), tuned()] == [32, 32, 32]
    assert tuned.timed == 3


@pytest.mark.parametrize(
    ("options", "retimed"),
    [
        # The size counts in powers of two: 33 to 64 elements are one case.
        ({"length": 33}, False),
        ({"length": 64}, False),
        ({"length": 65}, True),
        ({"length": 32}, True),
        ({"dtype": torch.float16}, True),
        ({"precision": "tf32"}, True),
    ],
)
def test_another_size_dtype_or_precision_is_timed_again(options: dict[str, Any], retimed: bool) -> None:
    tuned = Tuned(3.0, 1.0, 2.0)
    tuned(length=40)
    tuned(**options)
    assert tuned.timed == (6 if retimed else 3)


def test_next_process_reads_the_choice_from_disk() -> None:
    Tuned(3.0, 1.0, 2.0)()
    later = Tuned(1.0, 3.0, 2.0)
    assert (later(), later.timed) == (32, 0)


def test_another_version_of_triton_is_timed_again(monkeypatch: pytest.MonkeyPatch) -> None:
    Tuned(3.0, 1.0, 2.0)()
    monkeypatch.setattr(triton, "__version__", "3.1.4")
    assert Tuned(1.0, 3.0, 2.0)() == 16


def test_other_configurations_are_timed_again() -> None:
    Tuned(3.0, 1.0, 2.0)()
    later = Tuned(1.0, 3.0)
    later.kernel.configs = CONFIGS[:2]
    assert (later(), later.timed) == (16, 2)


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"a": 1}', "\0"])
def test_damaged_file_gives_one_warning_and_is_replaced(content: str, cache: Path) -> None:
    Tuned(3.0, 1.0, 2.0)()
    (file,) = cache.iterdir()
    file.write_text(content)
    with pytest.warns(UserWarning, match="is damaged") as caught:
        assert Tuned(1.0, 3.0, 2.0)() == 16
    assert [str(each.message).startswith(str(file)) for each in caught] == [True]
    assert list(json.loads(file.read_text()).values()) == [str(CONFIGS[0])]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Tuned(3.0, 2.0, 1.0)() == 16


def test_choice_that_is_no_longer_a_configuration_is_timed_again(cache: Path) -> None:
    Tuned(3.0, 1.0, 2.0)()
    (file,) = cache.iterdir()
    file.write_text(json.dumps(dict.fromkeys(json.loads(file.read_text()), "block: 8")))
    assert Tuned(1.0, 3.0, 2.0)() == 16


def test_choices_of_two_processes_are_both_kept(cache: Path) -> None:
    first, second = Tuned(3.0, 1.0, 2.0), Tuned(3.0, 1.0, 2.0)
    first(length=40)
    second(length=100)
    first(length=400)
    (file,) = cache.iterdir()
    assert len(json.loads(file.read_text())) == 3


def test_unwritable_cache_does_not_prevent_the_choice(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (cache / "file").write_text("")
    monkeypatch.setenv("EXDA_CACHE", str(cache / "file"))
    assert Tuned(3.0, 1.0, 2.0)() == 32


def test_cache_folder_follows_triton(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXDA_CACHE")
    monkeypatch.setenv("TRITON_CACHE_DIR", "/somewhere")
    assert config_cache.folder() == Path("/somewhere/exda_primitives")
    monkeypatch.delenv("TRITON_CACHE_DIR")
    monkeypatch.setenv("TRITON_HOME", "/home/me")
    assert config_cache.folder() == Path("/home/me/.triton/cache/exda_primitives")


def test_configuration_that_does_not_fit_is_skipped() -> None:
    assert Tuned(out_of_resources(), 2.0, 3.0)() == 32


def test_error_if_no_configuration_fits() -> None:
    tuned = Tuned(out_of_resources())
    tuned.kernel.start = lambda *_: (_ for _ in ()).throw(out_of_resources())  # type: ignore[method-assign]
    with pytest.raises(InputError, match=r"add_kernel: none of its 3 configurations fits this GPU .*shared memory"):
        tuned()


def test_out_of_memory_while_timing_is_no_error_and_is_not_cached(cache: Path) -> None:
    # Only the timer's own buffer does not fit in memory; the kernel itself runs.
    tuned = Tuned(torch.OutOfMemoryError("CUDA out of memory"))
    assert tuned() == 16
    assert list(cache.iterdir()) == []
    assert Tuned(out_of_resources(), torch.OutOfMemoryError("CUDA out of memory"), 1.0)() == 64
    assert list(cache.iterdir()) == []


def test_interpreter_takes_the_first_configuration() -> None:
    tuned = Tuned(3.0, 1.0, 2.0)
    tuned.kernel.tunes = False
    assert (tuned(), tuned.timed) == (16, 0)


def test_innermost_launch_callback_is_called() -> None:
    kernel, called = Kernel(add_kernel, CONFIGS[:1]), []

    def launch() -> None:
        kernel[(1,)](torch.zeros(16), torch.empty(16), 16, precision="ieee")

    with on_launch(lambda *_: called.append("outer")):
        launch()
        with on_launch(lambda *_: called.append("inner")):
            launch()
        launch()
    launch()
    assert called == ["outer", "inner", "outer"]
