"""Every kernel compiles for GPUs that CI does not have, and its shared memory fits them."""

from __future__ import annotations

from pathlib import Path

from . import kernels_of_maps as maps
from . import kernels_of_products as products
from .compilation import shared_memory

# Bytes of shared memory that one program can have on an A100 (compute capability 8.0); an H100 (9.0) has more.
MOST_SHARED = 163 * 1024


def test_half_types_on_compute_capability_9(tmp_path: Path) -> None:
    kernels = [
        *products.grams("bf16", 48, 1, 64),
        *products.folds("bf16", 48, 1, False),
        *products.mixes("bf16", 48, (48, 48, 1), 64),
        *maps.norms("bf16")[:2],
        *maps.norms_with_products("bf16"),
        *maps.tokens("bf16")[::2],
        *maps.gated_products("bf16"),
    ]
    sliding = maps.depthwise("bf16", 8)
    found = shared_memory([*sliding, *kernels], 90, tmp_path)
    assert max(found) <= MOST_SHARED
    # Depthwise kernels use it only for sums over threads and neighbours in other threads: within the 48 KiB that every
    # program has without opting in to more.
    assert max(found[: len(sliding)]) <= 48 * 1024


def test_float32_on_compute_capability_8(tmp_path: Path) -> None:
    kernels = [
        *maps.depthwise("fp32", 4),
        maps.norms_with_products("fp32")[0],
        *products.grams("fp32", 15, 1, 16),
        products.folds("fp32", 18, 18, True)[1],
        *products.folds("fp32", 18, 18, True)[3:],
        products.folds("fp32", 15, 0, False)[1],
    ]
    assert max(shared_memory(kernels, 80, tmp_path)) <= MOST_SHARED
