"""Arguments to compile the kernels of Gram blocks, folds and mixes."""

from __future__ import annotations

from exda_primitives.ops.triton.tiles import tile_side

from .compilation import PACKAGE, Kernel, integers, pointers


def grams(dtype: str, c: int, tokens: int, block: int) -> list[Kernel]:
    arguments = (
        pointers(dtype, "q", "k", "g", "dq", "dk", "dg", "more")
        | pointers("fp32", "partial", "grad")
        | integers("q_batch", "q_row", "k_batch", "k_row", "g_batch", "g_row", "dq_batch", "dk_batch", "N", "heads")
        | {"C": c, "K": tokens, "SPLIT": 4096, "BLOCK": block, "TILES": -(-(c + tokens) // block), "ALIGNED": True}
        | {"TYPE": "float32", "PRECISION": "ieee"}
    )
    return [(f"{PACKAGE}.gram", kernel, arguments) for kernel in ("_gram_kernel", "_gram_backward_kernel")]


def folds(dtype: str, c: int, tokens: int, channelwise: bool) -> list[Kernel]:
    arguments = (
        pointers("fp32", "gram", "matrix", "token_matrix", "out", "branch_matrix", "shift")
        | pointers("fp32", "grad", "shift_grad", "direct", "d_matrix", "d_token_matrix")
        | pointers("fp32", "d_gram", "d_parameters", "d_convolution")
        | pointers(dtype, "temperature", "gate", "alpha", "left", "weight", "vector", "bias")
        | integers("left_row", "heads", "weight_row", "batch", "d_matrix_image", "d_token_image")
        | integers("grad_image", "shift_image", "direct_image")
        | {"scale": 0.5, "ROWS": 2 * c, "C": c, "COLUMNS": c, "K": tokens, "CHANNELWISE": channelwise, "HEADS": 2}
        | {"BLOCK_O": 16, "BLOCK_J": 32, "BLOCK_M": tile_side(c + tokens, 4096), "BLOCK_R": 16, "BLOCK": 32}
        | {"TYPE": "float32"}
    )
    absent = {} if tokens else {"gate": None, "alpha": None, "bias": None, "d_token_matrix": None, "direct": None}
    return [
        *(
            (f"{PACKAGE}.fold_kernels", kernel, arguments | absent)
            for kernel in ("fold_kernel", "fold_branch_kernel", "compose_kernel")
        ),
        (f"{PACKAGE}.fold_backward", "fold_backward_kernel", arguments | absent),
        (f"{PACKAGE}.compose_backward", "compose_backward_kernel", arguments | absent),
    ]


def mixes(dtype: str, rows: int, channels: tuple[int, int, int], block: int) -> list[Kernel]:
    pairs = [f"{name}{i}" for i in range(3) for name in ("x", "dx")]
    strides = [f"{name}{i}_{what}" for name in ("m", "x") for i in range(3) for what in ("image", "row")]
    arguments = (
        pointers(dtype, *pairs, "grad", "residual", "out")
        | pointers("fp32", "m0", "m1", "m2", "shift", "partial")
        | integers(
            *strides,
            "out_image",
            "shift_image",
            "shift_row",
            "residual_image",
            "residual_row",
            "grad_image",
            "grad_row",
            "N",
        )
        | dict(zip(("C0", "C1", "C2"), channels, strict=True))
        | {"ROWS": rows, "SHIFT": True, "RESIDUAL": True, "SPLIT": 4096, "TRANSPOSED": False}
        | {"TYPE": "float32", "PRECISION": "ieee"}
    )
    kernels = [
        ("mix_kernel", {"BLOCK_O": block}),
        ("mix_kernel", {"BLOCK_O": block, "TRANSPOSED": True}),
        ("matrix_gradients_kernel", {"BLOCK_O": block, "BLOCK_C": block}),
        ("matrix_gradients_kernel", {"BLOCK_O": block, "BLOCK_C": block, "TRANSPOSED": True}),
        ("map_gradients_kernel", {"BLOCK_C": min(block, 64)}),
    ]
    return [(f"{PACKAGE}.mix_kernels", kernel, arguments | blocks) for kernel, blocks in kernels]


def of_ones(kernels: list[Kernel]) -> list[Kernel]:
    """The same kernels for sizes and strides of 1, which Triton compiles as constants."""
    return [
        (module, name, {key: 1 if value == "i32" else value for key, value in arguments.items()})
        for module, name, arguments in kernels
    ]
