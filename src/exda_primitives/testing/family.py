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
from .case import PLAIN, Call, Case
from .common import (
    MapWrapper,
    assert_close,
    assert_equal,
    assert_saved,
    assert_unpatched,
    output_of,
    registered,
    run,
    seeded,
    without_warnings,
)

MakeModule = Callable[[], nn.Module]

_WIDE = (torch.float32, torch.float64)


def check_family(
    family: Family, make_module: MakeModule, *, sorts: bool = False, only: Sequence[str] | None = None
) -> None:
    """Checks all that this library promises of an attention, on a module that the family recognises.

    - ``recognised``: ``plan`` finds the module, and counts the parameters that ``patch`` adds.
    - ``layout``: ``to_map`` undoes ``make_inputs``; the output has the layout of the inputs.
    - ``identity``: right after patching, the output is the module's, in float32 and float64, at odd sizes down to one
      pixel (or the only size that it takes), called in all the ways that ``extra_arguments`` names.
    - ``oracle``: with parameters changed as by training, the output is the ``reference`` backend's, in four
      configurations.
    - ``gradients``: equal the reference's and finite differences, and reach every new parameter.
    - ``saving``: state dicts, ``exda.save``, copies and pickles keep every bit; the original's state dict loads.
    - ``unpatch``: restores the module with its attributes and values bit for bit.
    - ``keywords``: arguments may be passed by the names in the module's forward.
    - ``export``: ``torch.export`` with dynamic height and width.
    - ``half``: float16, bfloat16 and autocast, compared with float32.
    - ``meta``: forward and backward on the meta device, on which tools count operations and memory.

    Args:
        family: the family to check; registered during the call if it is not yet.
        make_module: returns a small module (8 channels) with any weights that the family should recognise.
        sorts: whether the attention sorts pixels by their values. Rounding may then reorder them: ``identity``
            requires bit-equal outputs, and ``half`` compares with the reference in the same dtype.
        only: names of the checks to run; by default all.

    Raises:
        AssertionError: if a check fails; the first failure is raised, with the check's name and the cause.
        RegistrationError: for a family that cannot be registered.

    Examples:
        >>> import exda_primitives as exda
        >>> from exda_primitives.patching.registry import known_families
        >>> from exda_primitives.testing import check_family
        >>> attention = lambda: exda.from_host(exda.models.Restormer(dim=8).latent[0].attn).release()
        >>> check_family(known_families()["mdta"], attention, only=["recognised", "layout", "identity"])
    """
    with registered(FAMILIES, family):
        run(f"the family {family.name!r}", FAMILY_CHECKS, only, Case(family, make_module, sorts))


def _recognised(case: Case) -> None:
    family, model = case.family, case.wrapped()
    report = plan(model, tokens=case.configs[0].tokens, families=family.name)
    misses = "; ".join(map(str, report.near_misses)) or "nothing alike"
    assert [match.name for match in report.matches] == ["attention"], f"the module is not recognised: {misses}"
    (match,) = report.matches
    attention = model.patched(case.configs[0])
    new = {name: parameter.numel() for name, parameter in attention.new_parameters().items()}
    assert match.extra_parameters == sum(new.values()), f"plan counts {match.extra_parameters} parameters, added {new}"
    assert (match.dim, match.heads) == (attention.dim, attention.num_heads)
    made = family.replacement(attention.dim, attention.num_heads, attention.has_bias(), **attention.config.as_dict())
    assert made.new_parameters().keys() == new.keys()
    needed = [name for name in family.replacement.PARTS if name not in family.replacement.OPTIONAL]
    assert [name for name in needed if not hasattr(made, made.host_parts[name])] == []


@torch.no_grad()
def _layout(case: Case) -> None:
    family = case.family
    for size in case.sizes:
        given = case.call(size, torch.float32)
        maps, more = [x for x in given[: family.inputs] if x is not None], given[family.inputs :]
        inputs = family.make_inputs(maps)
        for x, made in zip(maps, inputs, strict=True):
            assert_equal(family.to_map(made, size[1:]), x, "to_map(make_inputs(maps))")
        output = seeded(case.make_module)(*(x.clone() for x in inputs), *more)
        assert output.shape == inputs[0].shape, f"takes {tuple(inputs[0].shape)}, returns {tuple(output.shape)}"


@torch.no_grad()
def _identity(case: Case) -> None:
    hosts = [case.wrapped().to(dtype) for dtype in _WIDE]
    for config in (PLAIN, *(config for config in case.configs if config.init == "identity")):
        ours = copy.deepcopy(hosts[-1])
        ours.patched(config)
        for host, (dtype, tolerance) in zip(hosts, ((torch.float32, 1e-5), (torch.float64, 1e-10)), strict=True):
            patched = copy.deepcopy(ours).to(dtype)
            for size in case.sizes:
                for call in case.calls(size, dtype):
                    what = f"{config} on {_shapes(call)} of {dtype}"
                    assert_close(patched(*call), output_of(host, call), 0 if case.sorts else tolerance, what)


@torch.no_grad()
def _oracle(case: Case) -> None:
    for config in case.configs:
        model = case.patched(config)
        for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-4)):
            model.to(dtype)
            for size in case.sizes:
                for call in case.calls(size, dtype):
                    kept = [None if x is None else x.clone() for x in call]
                    what = f"{config} on {_shapes(call)} of {dtype}"
                    expected = _computed(model, call, "reference")
                    for name in ("auto", "torch"):
                        assert_close(_computed(model, call, name), expected, tolerance, f"{name}, {what}")
                    for x, before in zip(call, kept, strict=True):
                        if x is not None and before is not None:
                            assert_equal(x, before, f"an input, {what}")


def _shapes(call: Call) -> str:
    return ", ".join("None" if x is None else str(tuple(x.shape)) for x in call)


def _computed(model: nn.Module, call: Call, name: Any) -> Tensor:
    with backend(name):
        output: Tensor = model(*call)
    return output


def _gradients(case: Case) -> None:
    for config in (case.configs[0], case.configs[-1]):
        model = case.patched(config)
        names, leaves, loss = _differentiable(model, case.call())
        found, expected = (torch.autograd.grad(loss(name), leaves) for name in ("torch", "reference"))
        # One bound for all, from the largest gradient: a small one may be a difference of large numbers and then
        # carries their rounding error.
        bound = 1e-9 * max(float(each.abs().max()) for each in expected)
        for name, ours, theirs in zip(names, found, expected, strict=True):
            error = float((ours - theirs).abs().max())
            assert error <= bound, f"{config}: the gradient of {name} is {error:.2g} from the reference's"
        without_gradient = {name for name, ours in zip(names, found, strict=True) if not ours.any()}
        without_gradient &= {f"attention.{name}" for name in model.ours.new_parameters()}
        assert not without_gradient, f"{config}: no gradient reaches {', '.join(sorted(without_gradient))}"
        # Few pixels, so that the step of the finite differences does not reorder any in an attention that sorts them.
        small = (1, 3, 4) if len(case.sizes) > 2 else case.sizes[-1]
        _, leaves, loss = _differentiable(model, case.call(small))
        _check_slope(leaves, loss)


def _differentiable(model: MapWrapper, call: Call) -> tuple[list[str], list[Tensor], Callable[[str], Tensor]]:
    """Returns what gradients are taken of and by: names and tensors of maps and parameters, and a loss.

    The loss, a function of the backend's name, is the sum of the output times fixed random weights.
    """
    inputs = [x.requires_grad_() for x in call[: model.family.inputs] if x is not None]
    generator = torch.Generator().manual_seed(3)
    weights = torch.randn(inputs[0].shape, generator=generator, dtype=torch.float64)
    leaves = {f"input {i}": x for i, x in enumerate(inputs)} | dict(model.named_parameters())
    return [*leaves], [*leaves.values()], lambda name: (_computed(model, call, name) * weights).sum()


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
def _saving(case: Case) -> None:
    call = case.call(dtype=torch.float32)
    for config in case.configs:
        model = case.patched(config).float()
        expected = model(*call)
        other = case.wrapped(seed=1)
        other.patched(config)
        other.load_state_dict(model.state_dict())
        assert_equal(other(*call), expected, f"{config}: the state dict")
        buffer = io.BytesIO()
        torch.save(model, buffer)
        buffer.seek(0)
        pickled = torch.load(buffer, weights_only=False)
        for what, again in (("copy.deepcopy", copy.deepcopy(model)), ("a pickle", pickled)):
            assert_equal(again(*call), expected, f"{config}: {what}")
        assert_saved(model, case.wrapped(seed=1), call)
    host, patched = case.wrapped(), case.wrapped(seed=1)
    patched.patched(case.configs[0])
    with without_warnings():
        patched.load_state_dict(host.state_dict())
    assert_close(patched(*call), output_of(host, call), 1e-5, "the original's state dict")


def _unpatch(case: Case) -> None:
    for config in case.configs:
        model = case.wrapped()
        assert_unpatched(model, partial(model.patched, config), case.call(dtype=torch.float32))


@torch.no_grad()
def _keywords(case: Case) -> None:
    names = list(signature(seeded(case.make_module).forward).parameters)
    model, call, maps = case.patched(PLAIN), case.call(), case.family.inputs
    inputs = [*case.family.make_inputs([x for x in call[:maps] if x is not None]), *call[maps:]]
    # In reverse order, so that only the names can tell the arguments apart.
    named = dict(reversed([*zip(names, inputs, strict=False)]))
    assert_equal(model.ours(**named), model.ours(*inputs), f"called by {', '.join(named)}")


class _Outer(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, *inputs: Any) -> Any:
        return self.inner(*inputs)


@torch.no_grad()
def _export(case: Case) -> None:
    model, any_number = case.patched(case.configs[0]).float(), torch.export.Dim.DYNAMIC
    fixed = len(case.sizes) < 3
    sizes = ((4, *case.sizes[0][1:]), (6, *case.sizes[0][1:])) if fixed else ((2, 16, 24), (2, 10, 14))
    dynamic = {0: any_number} if fixed else {2: any_number, 3: any_number}
    call = case.call(sizes[0], torch.float32)
    shapes: list[Any] = [dynamic] * case.family.inputs + [None] * (len(call) - case.family.inputs)
    # Within another module, as in networks: the compiler of PyTorch 2.6 does not trace what hooks of the outermost one
    # keep of the map's size.
    program = torch.export.export(_Outer(model), call, dynamic_shapes=(tuple(shapes),)).module()
    for size in sizes:
        call = case.call(size, torch.float32)
        assert_close(program(*call), model(*call), 1e-5, f"exported, on {_shapes(call)}")


def _half(case: Case) -> None:
    for config in case.configs:
        original = case.patched(config).float()
        with torch.autocast("cpu", torch.bfloat16):
            output = original(*case.call(dtype=torch.float32))
        assert output.isfinite().all(), f"not finite under autocast, {config}"
        for dtype in (torch.bfloat16, torch.float16):
            model, what = copy.deepcopy(original).to(dtype), f"{config} in {dtype}"
            call = case.call(dtype=dtype)
            output = model(*call)
            assert output.dtype is dtype, f"{output.dtype}, {what}"
            output.float().square().sum().backward()
            assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters()), f"gradients, {what}"
            # The reference gets the same rounded weights and maps, in float32. If the attention sorts, it computes in
            # the half type instead, because values that are equal there would be sorted differently in float32.
            wide = model if case.sorts else copy.deepcopy(model).float()
            like = next(wide.parameters()).dtype
            with torch.no_grad():
                same = tuple(x.to(like) if x is not None and x.is_floating_point() else x for x in call)
                expected = _computed(wide, same, "reference")
            assert_close(output.detach(), expected, 8 * torch.finfo(dtype).eps, what)


def _meta(case: Case) -> None:
    for config in case.configs:
        model, call = case.patched(config).float(), case.call(dtype=torch.float32)
        expected = model(*call).shape
        model.to("meta")
        output = model(*(x if x is None else x.to("meta") for x in call))
        assert output.is_meta, f"the output is on {output.device}, {config}"
        assert output.shape == expected, f"{tuple(output.shape)} in place of {tuple(expected)}, {config}"
        output.sum().backward()
        without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
        assert not without, f"without a gradient: {', '.join(without)}, {config}"


FAMILY_CHECKS: dict[str, Callable[[Case], None]] = {
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
    "meta": _meta,
}
"""The checks by name; see ``check_family``."""
