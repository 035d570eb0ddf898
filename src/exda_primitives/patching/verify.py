"""The last check before a swap: compares host and replacement on random input, with the model's own weights."""

from __future__ import annotations

import torch
from torch import nn

from ..errors import VerificationError
from ..primitives import ExDAModule
from ..primitives.config import REPLACING
from ..surgery.copies import detached, isolated_global_state, random_maps
from ..surgery.randomness import OwnRandomNumbers
from .adapter import Family

# (B, H, W).
SIZE = (2, 9, 7)
# In float64, relative to the maximum; a host with a float32 constant inside differs by 1e-7.
TOLERANCE = 1e-5


def verify(host: nn.Module, replacement: ExDAModule, family: Family) -> None:
    """Compares host and replacement at identity init, on copies in float64; not for weights on the meta device.

    Raises:
        VerificationError: for a difference above 1e-5 of the maximum; the message names the module.
    """
    with isolated_global_state():
        host, replacement = detached((host, replacement), torch.float64)
        if replacement.config.value in REPLACING:
            # Such a value cannot start at identity: compare everything else.
            replacement.value = None
        replacement.start_at_identity()
        generator = torch.Generator().manual_seed(0)
        batch, *size = SIZE
        height, width = family.only_size(host, replacement.host_parts) or size
        maps = random_maps(family.inputs, (batch, replacement.dim, height, width), torch.float64, generator)
        inputs = family.make_inputs(maps)
        more = family.extra_arguments(host, replacement.host_parts, maps[0], generator)[0]
        with OwnRandomNumbers():
            expected = host(*(x.clone() for x in inputs), *more)
        got = replacement(*inputs, *more, **family.forward_kwargs(height, width))
    largest = expected.nan_to_num().abs().max()
    # NaN weights are no error here: both outputs are NaN then.
    if not torch.isclose(got, expected, rtol=0, atol=float(TOLERANCE * largest), equal_nan=True).all():
        error = float((got - expected).abs().max() / largest)
        raise VerificationError(
            f"{replacement.full_name}: the replacement's output at identity init differs from the host's by "
            f"{error:.2g} of its maximum, expected at most {TOLERANCE:g}. Nothing was changed. Leave this module out "
            f"with exclude={replacement.full_name!r}, or report it."
        )
