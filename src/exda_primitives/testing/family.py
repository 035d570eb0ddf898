"""Checks of an attention family."""

from __future__ import annotations

import copy
import io
from collections.abc import Callable, Sequence
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import Tensor, nn

from ..ops import backend
from ..patching import Family, plan
from ..patching.registry import FAMILIES
from ..primitives import ExDAConfig
from .held import (
    Holder,
    assert_close,
    assert_equal,
    assert_given_back,
    assert_saved,
    maps,
    quiet,
    registered,
    run,
    seeded,
    trained,
)

MakeModule = Callable[[], nn.Module]

CONFIGS = (
    ExDAConfig(),
    ExDAConfig(tokens=2, value="none", scale="mean", stride=1),
    ExDAConfig(tokens=0, value_position="after"),
    ExDAConfig(tokens="channels", reinject="channelwise", value="gelu", init="paper"),
)
"""Few configurations that together use every option. The last one has no identity start (``init="paper"``)."""

PLAIN = ExDAConfig(tokens=0, value="none")
"""Without primitives: the replacement computes the host's formula."""

SIZE = 2, 9, 7
SIZES = (SIZE, (1, 1, 5), (1, 1, 1))
"""(B, H, W): odd sides, one row, one pixel."""

_WIDE = (torch.float32, torch.float64)


def check_family(
    family: Family, make_module: MakeModule, *, sorts: bool = False, only: Sequence[str] | None = None
) -> None:
    """Checks all that this library promises of an attention, on a module that the family recognises.

    - ``recognised``: ``plan`` finds the module, and counts the parameters that ``patch`` adds.
    - ``layout``: ``to_map`` undoes ``arguments``; the output has the layout of the inputs.
    - ``identity``: right after patching, the output is the module's, in float32 and float64, at odd sizes down to one
      pixel.
    - ``oracle``: with parameters changed as by training, the output is the ``reference`` backend's, in four
      configurations.
    - ``gradients``: equal the reference's and finite differences, and reach every new parameter.
    - ``saving``: state dicts, ``exda.save``, copies and pickles keep every bit; the original's state dict loads.
    - ``unpatch``: restores the module with its attributes and values bit for bit.
    - ``keywords``: arguments may be passed by the names in the module's forward.
    - ``export``: ``torch.export`` with dynamic height and width.
    - ``half``: float16, bfloat16 and autocast, compared with float32.

    Args:
        family: the family to check; registered during the call if it is not yet.
        make_module: returns a small module (8 channels) with any weights that the family should recognise.
        sorts: whether the attention sorts pixels by their values. Rounding may then reorder them: ``identity``
            requires bit-equal outputs, and ``half`` compares with the reference in the same dtype.
        only: names of the checks to run; by default all.

    Raises:
        AssertionError: if a check fails; the first failure is raised, with the check's name and the cause.
        RegistrationError: for a family that cannot be registered.

    Example:
        >>> import exda_primitives as exda
        >>> from exda_primitives.patching.registry import known_families
        >>> from exda_primitives.testing import check_family
        >>> attention = lambda: exda.from_host(exda.models.Restormer(dim=8).latent[0].attn).release()
        >>> check_family(known_families()["mdta"], attention, only=["recognised", "layout", "identity"])
    """
    with registered(FAMILIES, family):
        run(f"the family {family.name!r}", FAMILY_CHECKS, only, family, make_module, sorts)


def _held(family: Family, make_module: MakeModule, seed: int = 0) -> Holder:
    return Holder(seeded(make_module, seed), family).eval()


def _patched(family: Family, make_module: MakeModule, config: ExDAConfig) -> Holder:
    """Returns a patched holder in float64, with parameters changed as by training."""
    model = _held(family, make_module).double()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model.patched(config)
    trained(model)
    return model


def _dim(family: Family, make_module: MakeModule) -> int:
    return plan(_held(family, make_module), families=family.name).matches[0].dim


def _recognised(family: Family, make_module: MakeModule, sorts: bool) -> None:
    model = _held(family, make_module)
    report = plan(model, families=family.name)
    misses = "; ".join(map(str, report.near_misses)) or "nothing alike"
    assert [match.name for match in report.matches] == ["attention"], f"the module is not recognised: {misses}"
    (match,) = report.matches
    attention = model.patched(ExDAConfig())
    new = {name: parameter.numel() for name, parameter in attention.new_parameters().items()}
    assert match.extra_parameters == sum(new.values()), f"plan counts {match.extra_parameters} parameters, added {new}"
    assert (match.dim, match.heads) == (attention.dim, attention.num_heads)
    # The replacement has to be buildable from scratch, with the same new parameters and all parts that are required.
    made = family.replacement(attention.dim, attention.num_heads, attention.has_bias())
    assert made.new_parameters().keys() == new.keys()
    needed = [name for name in family.replacement.PARTS if name not in family.replacement.OPTIONAL]
    assert [name for name in needed if not hasattr(made, made.host_parts[name])] == []


@torch.no_grad()
def _layout(family: Family, make_module: MakeModule, sorts: bool) -> None:
    for size in SIZES:
        given = maps(family, _dim(family, make_module), size, torch.float32)
        inputs = family.arguments(given)
        for x, made in zip(given, inputs, strict=True):
            assert_equal(family.to_map(made, size[1:]), x, "to_map(arguments(maps))")
        output = seeded(make_module)(*(x.clone() for x in inputs))
        assert output.shape == inputs[0].shape, f"takes {tuple(inputs[0].shape)}, returns {tuple(output.shape)}"


@torch.no_grad()
def _identity(family: Family, make_module: MakeModule, sorts: bool) -> None:
    hosts = [_held(family, make_module).to(dtype) for dtype in _WIDE]
    # The last configuration has no identity start.
    for config in (PLAIN, *CONFIGS[:3]):
        ours = copy.deepcopy(hosts[-1])
        dim = ours.patched(config).dim
        for host, (dtype, tolerance) in zip(hosts, ((torch.float32, 1e-5), (torch.float64, 1e-10)), strict=True):
            patched = copy.deepcopy(ours).to(dtype)
            for size in SIZES:
                inputs = maps(family, dim, size, dtype)
                found = patched(*inputs)
                what = f"{config} on {tuple(inputs[0].shape)} of {dtype}"
                assert_close(found, host(*inputs), 0 if sorts else tolerance, what)


@torch.no_grad()
def _oracle(family: Family, make_module: MakeModule, sorts: bool) -> None:
    for config in CONFIGS:
        model = _patched(family, make_module, config)
        for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
            model.to(dtype)
            for size in SIZES:
                inputs = maps(family, model.ours.dim, size, dtype)
                # To see that the attention does not write into its inputs.
                kept = [x.clone() for x in inputs]
                what = f"{config} on {tuple(inputs[0].shape)} of {dtype}"
                expected = _computed(model, inputs, "reference")
                for name in ("auto", "torch"):
                    assert_close(_computed(model, inputs, name), expected, tolerance, f"{name}, {what}")
                for x, before in zip(inputs, kept, strict=True):
                    assert_equal(x, before, f"an input, {what}")


def _computed(model: nn.Module, inputs: Sequence[Tensor], name: Any) -> Tensor:
    with backend(name):
        output: Tensor = model(*inputs)
    return output


def _gradients(family: Family, make_module: MakeModule, sorts: bool) -> None:
    for config in (CONFIGS[0], CONFIGS[3]):
        model = _patched(family, make_module, config)
        names, leaves, loss = _differentiable(model, SIZE)
        found, expected = (torch.autograd.grad(loss(name), leaves) for name in ("torch", "reference"))
        # One bound for all, from the largest gradient: a small one may be a difference of large numbers and then
        # carries their rounding error.
        bound = 1e-9 * max(float(each.abs().max()) for each in expected)
        for name, ours, theirs in zip(names, found, expected, strict=True):
            error = float((ours - theirs).abs().max())
            assert error <= bound, f"{config}: the gradient of {name} is {error:.2g} from the reference's"
        silent = {name for name, ours in zip(names, found, strict=True) if not ours.any()}
        silent &= {f"attention.{name}" for name in model.ours.new_parameters()}
        assert not silent, f"{config}: no gradient reaches {', '.join(sorted(silent))}"
        # Few pixels, so that the step of the finite differences does not reorder any in an attention that sorts them.
        _, leaves, loss = _differentiable(model, (1, 3, 4))
        _check_slope(leaves, loss)


def _differentiable(model: Holder, size: Sequence[int]) -> tuple[list[str], list[Tensor], Callable[[str], Tensor]]:
    """Returns what gradients are taken of and by: names and tensors of inputs and parameters, and a loss.

    The loss, a function of the backend's name, is the sum of the output times fixed random weights.
    """
    inputs = [x.requires_grad_() for x in maps(model.family, model.ours.dim, size)]
    generator = torch.Generator().manual_seed(3)
    weights = torch.randn(inputs[0].shape, generator=generator, dtype=torch.float64)
    leaves = {f"input {i}": x for i, x in enumerate(inputs)} | dict(model.named_parameters())
    return [*leaves], [*leaves.values()], lambda name: (_computed(model, inputs, name) * weights).sum()


def _check_slope(leaves: Sequence[Tensor], loss: Callable[[str], Tensor]) -> None:
    """Compares the gradients with a central difference along one random direction d of all leaves.

    (loss(x + h d) - loss(x - h d)) / 2h has to be the sum of gradient * d.
    """
    generator, step = torch.Generator().manual_seed(4), 1e-7
    directions = [torch.randn(leaf.shape, generator=generator, dtype=leaf.dtype) for leaf in leaves]
    gradients = torch.autograd.grad(loss("torch"), leaves)
    products = [float((gradient * move).sum()) for gradient, move in zip(gradients, directions, strict=True)]
    values = []
    # In place, from x to x + h d, then to x - h d.
    for length in (step, -2 * step):
        with torch.no_grad():
            for leaf, direction in zip(leaves, directions, strict=True):
                leaf.add_(direction, alpha=length)
            values.append(float(loss("torch")))
    slope, expected = (values[0] - values[1]) / (2 * step), sum(products)
    # Relative to the largest term, because terms of both signs may cancel in the sum.
    assert abs(slope - expected) < 1e-5 * max(map(abs, products)), (
        f"a loss has the slope {slope:.6g} by differences, {expected:.6g} by gradients"
    )


@torch.no_grad()
def _saving(family: Family, make_module: MakeModule, sorts: bool) -> None:
    for config in CONFIGS:
        model = _patched(family, make_module, config).float()
        inputs = maps(family, model.ours.dim, SIZE, torch.float32)
        expected = model(*inputs)
        other = _held(family, make_module, seed=1)
        other.patched(config)
        other.load_state_dict(model.state_dict())
        assert_equal(other(*inputs), expected, f"{config}: the state dict")
        buffer = io.BytesIO()
        torch.save(model, buffer)
        buffer.seek(0)
        pickled = torch.load(buffer, weights_only=False)
        for what, again in (("copy.deepcopy", copy.deepcopy(model)), ("a pickle", pickled)):
            assert_equal(again(*inputs), expected, f"{config}: {what}")
        assert_saved(model, _held(family, make_module, seed=1), inputs)
    host, patched = _held(family, make_module), _held(family, make_module, seed=1)
    patched.patched(ExDAConfig())
    with quiet():
        patched.load_state_dict(host.state_dict())
    inputs = maps(family, patched.ours.dim, SIZE, torch.float32)
    assert_close(patched(*inputs), host(*(x.clone() for x in inputs)), 1e-5, "the original's state dict")


def _unpatch(family: Family, make_module: MakeModule, sorts: bool) -> None:
    inputs = maps(family, _dim(family, make_module), SIZE, torch.float32)
    for config in CONFIGS:
        model = _held(family, make_module)
        assert_given_back(model, partial(model.patched, config), inputs)


@torch.no_grad()
def _keywords(family: Family, make_module: MakeModule, sorts: bool) -> None:
    names = list(signature(seeded(make_module).forward).parameters)
    model = _patched(family, make_module, PLAIN)
    inputs = family.arguments(maps(family, model.ours.dim, SIZE))
    # In reverse order, so that only the names can tell the arguments apart.
    named = dict(reversed([*zip(names, inputs, strict=False)]))
    assert_equal(model.ours(**named), model.ours(*inputs), f"called by {', '.join(named)}")


@torch.no_grad()
def _export(family: Family, make_module: MakeModule, sorts: bool) -> None:
    model = _patched(family, make_module, CONFIGS[0]).float()
    dim = model.ours.dim
    dynamic = {2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    others = tuple([dynamic] * (family.inputs - 1))
    shapes = (dynamic, others) if others else (dynamic,)
    inputs = tuple(maps(family, dim, (2, 16, 24), torch.float32))
    program = torch.export.export(model, inputs, dynamic_shapes=shapes).module()
    for size in ((2, 16, 24), (2, 10, 14)):
        inputs = tuple(maps(family, dim, size, torch.float32))
        assert_close(program(*inputs), model(*inputs), 1e-5, f"exported, on {tuple(inputs[0].shape)}")


def _half(family: Family, make_module: MakeModule, sorts: bool) -> None:
    for config in CONFIGS:
        trained = _patched(family, make_module, config)
        for dtype in (torch.bfloat16, torch.float16):
            model, what = copy.deepcopy(trained).to(dtype), f"{config} in {dtype}"
            inputs = maps(family, model.ours.dim, SIZE, dtype)
            output = model(*inputs)
            assert output.dtype is dtype, f"{output.dtype}, {what}"
            output.float().square().sum().backward()
            assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters()), f"gradients, {what}"
            # The reference gets the same rounded weights and maps, in float32. If the attention sorts, it computes in
            # the half type instead, because values that are equal there would be sorted differently in float32.
            wide = model if sorts else copy.deepcopy(model).float()
            like = next(wide.parameters())
            with torch.no_grad():
                expected = _computed(wide, [x.to(like) for x in inputs], "reference")
            assert_close(output.detach(), expected, 8 * torch.finfo(dtype).eps, what)
    model = trained.float()
    with torch.autocast("cpu", torch.bfloat16):
        output = model(*maps(family, model.ours.dim, SIZE, torch.float32))
    assert output.isfinite().all(), "not finite under autocast"


FAMILY_CHECKS: dict[str, Callable[[Family, MakeModule, bool], None]] = {
    "recognised": _recognised,
    "layout": _layout,
    "identity": _identity,
    "oracle": _oracle,
    "gradients": _gradients,
    "saving": _saving,
    "unpatch": _unpatch,
    "keywords": _keywords,
    "export": _export,
    "half": _half,
}
"""The checks by name; see ``check_family``."""
