"""Arguments to compile the kernels of norms, depthwise convolutions, token maps and gated products."""

from __future__ import annotations

from exda_primitives.ops.triton import norm

from .compilation import PACKAGE, Kernel, integers, pointers


def norms(dtype: str) -> list[Kernel]:
    shared = (
        pointers(dtype, "x", "dy", "weight", "bias", "out", "dx")
        | pointers("fp32", "partial")
        | integers("PIXELS", "x_image", "x_channel", "dy_image", "dy_channel")
        | {"x_pixel": 1, "dy_pixel": 1, "EPS": 1e-5, "TYPE": "float32"}
    )
    # One channel more than a program holds at once.
    beyond = norm.WHOLE + 1
    kernels = []
    for channels, mean, absent in ((48, True, {}), (beyond, False, {"weight": None, "bias": None, "partial": None})):
        for kernel, lane in (("layer_norm_kernel", norm._FORWARD), ("layer_norm_backward_kernel", norm._BACKWARD)):
            sizes = {"CHANNELS": channels, "SUBTRACT_MEAN": mean} | norm._blocking(channels, lane)
            kernels.append((f"{PACKAGE}.norm_kernels", kernel, shared | sizes | absent))
    return kernels


def norms_with_products(dtype: str) -> list[Kernel]:
    arguments = (
        pointers(dtype, "x", "dy", "norm_weight", "norm_bias", "weight", "bias", "out", "dx")
        | pointers("fp32", "partial")
        | integers("PIXELS", "x_image", "x_channel", "dy_image", "dy_output")
        | {"x_pixel": 1, "dy_pixel": 1, "EPS": 1e-5, "TYPE": "float32", "SUBTRACT_MEAN": True, "PRECISION": "tf32"}
        | {"CHANNELS": 96, "OUTPUTS": 289, "SPLIT": 4096, "BC": 128, "BN": 64, "BO": 64}
    )
    return [
        (f"{PACKAGE}.norm_pointwise_kernels", kernel, arguments)
        for kernel in ("norm_pointwise_kernel", "input_gradient_kernel", "weight_gradient_kernel")
    ]


def tokens(dtype: str) -> list[Kernel]:
    arguments = (
        pointers(dtype, "phi", "dg", "out", "dphi")
        | pointers("fp32", "logits", "chunks", "products", "du")
        | integers("MAPS", "H", "W", "h", "w", "CHUNKS", "phi_image", "phi_map", "phi_row")
        | integers("dg_image", "dg_map", "dg_row")
        | {"phi_column": 1, "dg_column": 1, "STRIDE": 2, "STEPS": 1, "KNOWN": 256, "BLOCK": 1024, "TYPE": "float32"}
    )
    # Triton compiles integer arguments that are 1 as constants.
    ones = dict.fromkeys(("MAPS", "H", "W", "h", "w", "CHUNKS", "phi_image", "dg_image"), 1)
    return [
        (f"{PACKAGE}.tokens_kernels", kernel, sizes)
        for kernel in ("pool_kernel", "upsample_kernel", "upsample_backward_kernel", "pool_backward_kernel")
        for sizes in (arguments, arguments | ones)
    ]


def depthwise(dtype: str, run: int) -> list[Kernel]:
    """Forward and backward with all optional arguments; for ``run`` 8 also the gate, and variants without them."""
    sizes = [f"{name}_{axis}" for name in ("x", "dy", "dz") for axis in ("image", "channel", "row")]
    names = ("CHANNELS", "H", "W", *sizes)
    common = (
        pointers(dtype, "x", "dy", "dz", "weight", "bias", "shift", "out", "dx")
        | pointers("fp32", "partials")
        | integers(*names)
        | {"TYPE": "float32", "RUN": run}
        | dict.fromkeys(("x_column", "dy_column", "dz_column"), 1)
    )
    # Triton compiles integer arguments that are 1 as constants.
    ones = dict.fromkeys(names, 1)
    forward = (f"{PACKAGE}.depthwise_forward", "depthwise_kernel", common | {"WIDTH": 64, "VALID": None})
    sliding = {"BX": 64, "CH": 2 * run, "RY": 16, "UNROLL": 2}
    backward = (f"{PACKAGE}.depthwise_backward", "depthwise_backward_kernel", common | sliding)
    # The gate includes GELU.
    if run == 8:
        # tests/benchmarks/kernels/test_machine_code.py compiles backward without shift and with all the rest.
        variants = [
            (forward, {"ACTIVATION": "gate", "VALID": "i32"}),
            (forward, {"ACTIVATION": "none", "dy": None, "bias": None, "shift": None} | ones),
            (backward, {"dx": None} | ones),
            (backward, {"partials": None, "shift": None}),
        ]
    else:
        variants = [
            (forward, {"ACTIVATION": "gelu"}),
            (forward, {"ACTIVATION": "gelu", "VALID": "i32"}),
            (backward, {}),
        ]
    return [(module, name, arguments | given) for (module, name, arguments), given in variants]


def gated_products(dtype: str) -> list[Kernel]:
    """Up to 48 output channels, on aligned rows, with all optional arguments.

    Up to 128, and with none, is among the passes of tests/benchmarks/kernels/test_machine_code.py.
    """
    strides = [f"{name}_{axis}" for name in ("x", "residual") for axis in ("image", "channel", "row")]
    common = (
        pointers(dtype, "x", "weight", "bias", "shift", "matrix", "constant", "residual", "out")
        | integers("HIDDEN", "H", "W", *strides)
        | {"VALID": "i32", "RUN": 8, "TYPE": "float32", "PRECISION": "ieee", "ROWS": 48, "BO": 64}
    )
    return [(f"{PACKAGE}.gated_product", "gated_product_kernel", common)]
