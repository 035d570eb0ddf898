"""Exports a network: writes a file, runs it, compares it with the network, and only then gives it its name."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ...errors import ConfigError, ExDAError, condensed
from ...files import atomic_write
from ...patching.backbones import MULTIPLE, backbones_in, multiple_of
from ...patching.present import configs_of
from ..shared.machine import package_version
from ..shared.padding import padded_side
from .check import Difference, difference_of, size_to_trace
from .compiled import check_compiler, load_compiled, write_compiled
from .darktable import check_packable, pack
from .onnx_file import CAPTURED_OPSET, OnnxNetwork, put_metadata, write_captured, write_traced
from .program import load_pt2, write_pt2

FORMATS = ("onnx", "pt2", "dtmodel")

OPSETS = (17, 20)
"""Lowest and highest opset. The lowest is the first with layer norms."""

_INEXACT_SORTING = (
    "it sorts pixels by their values, and where two are nearly the same, any rounding, PyTorch's own among it, may put "
    "them the other way round"
)
_INEXACT_CHOICE = (
    "it sends each pixel to the experts with the largest logits, and where two are nearly the same, any rounding, "
    "PyTorch's own among it, may choose another; before training, all are the same"
)
_INEXACT_BANDS = (
    "it cuts frequencies into bands at a whole number that it computes from the image, which any rounding may move by "
    "one; and for images below 512 x 512 pixels, the sizes it was checked at, no frequency counts as low"
)


@dataclass(frozen=True)
class Exported:
    """A file that was written.

    Attributes:
        path: path of the file.
        metadata: the metadata in it.
        difference: how its output differs from PyTorch's.
        inexact: why no other program can compute exactly what the network does; None for most networks.
    """

    path: Path
    metadata: dict[str, str]
    difference: Difference
    inexact: str | None = None


def export(
    model: nn.Module,
    path: Path,
    *,
    format: str = "onnx",
    opset: int = OPSETS[0],
    half: bool = False,
    compiled: bool = False,
) -> Exported:
    """Writes a network to a file that accepts any batch, height and width that the network accepts.

    Before the file gets its name, it is run on three sizes other than the one it was traced with, and compared with the
    network. If the difference is larger than rounding explains, no file is kept. Input and output are float32, even if
    the file computes in float16.

    Args:
        model: the network, (B, C, H, W) -> (B, C', H', W'), patched or not, on any device; it is not changed.
        path: path of the file; an existing one is replaced.
        format: ``"onnx"``; ``"pt2"`` for a file that ``torch.export.load`` reads; ``"dtmodel"`` for darktable's package
            of an ONNX file, whose name there is the path's without its ending.
        opset: version of the ONNX operators, 17 to 20.
        half: compute in float16, with weights of half the size.
        compiled: compile a ``"pt2"`` by AOTInductor, for this machine's CPU: ``torch._inductor.aoti_load_package`` and
            PyTorch's C++ library run it. This needs a C++ compiler, and minutes.

    Returns:
        The file's metadata, and how its output differs from PyTorch's.

    Raises:
        ConfigError: the format or the opset is not supported, or another format than ``"pt2"`` shall be compiled.
        ExDAError: the network cannot be exported or draws random numbers in evaluation, there is no compiler, or the
            file computes something else; with the reason.
        OSError: the file cannot be written.

    Examples:
        >>> from pathlib import Path; import torch
        >>> from exda_primitives.workbench.export import export
        >>> model = torch.nn.Conv2d(3, 3, 3, padding=1)
        >>> done = export(model, Path("restored.onnx"))  # doctest: +SKIP
    """
    if format not in FORMATS:
        raise ConfigError(f"format must be one of {', '.join(FORMATS)}, got {format!r}.")
    if not OPSETS[0] <= opset <= OPSETS[1]:
        raise ConfigError(f"opset must be from {OPSETS[0]} to {OPSETS[1]}, got {opset}.")
    if compiled:
        if format != "pt2":
            raise ConfigError(f"only the format 'pt2' can be compiled, got {format!r}.")
        check_compiler()
    network = deepcopy(model).cpu().float().eval().requires_grad_(False)
    backbones = backbones_in(network)
    multiple = multiple_of(backbones) or MULTIPLE
    batch, *sides = size_to_trace(multiple)
    # The random numbers of the calling program stay as they are.
    with torch.random.fork_rng(devices=[]):
        channels, made = _channels(network, sides)
        _check_repeats(network, torch.rand(1, channels, *sides))
    metadata = {
        "version": package_version("exda_primitives") or "none",
        "network": ", ".join(dict.fromkeys(backbone.name for backbone in backbones.values())) or type(model).__name__,
        "multiple": str(multiple),
        "least_side": str(padded_side(1, multiple)),
        "input_channels": str(channels),
        "output_channels": str(made),
        "sorts": "yes" if any(each.sorts for each in backbones.values()) else "no",
        "precision": "float16" if half else "float32",
        "patched": _patched(network),
    }
    if format == "dtmodel":
        check_packable(metadata)
    written = _Half(deepcopy(network).half()) if half else network
    image = torch.rand(batch, channels, *sides, generator=torch.Generator().manual_seed(1))
    dtype = torch.float16 if half else torch.float32
    failures, inexact = [], _inexact(network)
    with atomic_write(path) as partial:
        for name, write, load in _ways(format, written, image, multiple, opset, metadata, compiled):
            try:
                write(partial)
                difference = difference_of(load(partial), network, channels, multiple, dtype)
            except OSError:
                # For instance a full disk: no other way would do better.
                raise
            except Exception as error:
                said = str(error) if isinstance(error, ExDAError) else f"{type(error).__name__}: {_first_line(error)}"
                failures.append(f"{name}: {said}")
                continue
            if difference.is_allowed:
                if format == "dtmodel":
                    pack(partial, path.stem, metadata)
                return Exported(path, metadata, difference, inexact)
            failures.append(
                f"{name}: its output differs by {difference.relative:.1e} of the network's (largest "
                f"{difference.largest:.1e}), allowed {difference.allowed:.1e}"
                + (f"; no file can be exact, for {inexact}" if inexact else "")
            )
        # Raised within the block, so that `atomic_write` discards the file.
        raise ExDAError(f"{path}: not written: {'; '.join(failures)}.")


class _Half(nn.Module):
    """A float16 network with float32 input and output."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        restored: Tensor = self.network(image.half())
        return restored.float()


_Way = tuple[str, Callable[[Path], None], Callable[[Path], Callable[[Tensor], Tensor]]]


def _ways(
    format: str,
    model: nn.Module,
    image: Tensor,
    multiple: int,
    opset: int,
    metadata: dict[str, str],
    compiled: bool,
) -> Iterator[_Way]:
    """Yields the ways to try in order: a name, a function that writes the file, and one that loads it."""
    if compiled:
        yield "by AOTInductor", lambda file: write_compiled(model, image, file, multiple, metadata), load_compiled
        return
    if format == "pt2":
        yield "torch.export", lambda file: write_pt2(model, image, file, multiple, metadata), load_pt2
        return

    def traced(file: Path) -> None:
        write_traced(model, image, file, opset)
        put_metadata(file, metadata)

    def by_program(file: Path) -> None:
        if opset < CAPTURED_OPSET:
            raise ExDAError(f"needs opset {CAPTURED_OPSET} or higher")
        write_captured(model, image, file, multiple=multiple, opset=opset)
        put_metadata(file, metadata)

    # Tracing first, as it takes seconds where torch.export takes minutes.
    yield "traced", traced, OnnxNetwork
    yield "by torch.export", by_program, OnnxNetwork


def _channels(network: nn.Module, sides: list[int]) -> tuple[int, int]:
    """Returns the network's numbers of input and output channels, found by trying."""
    first = next((module for module in network.modules() if isinstance(module, nn.Conv2d)), None)
    errors = []
    for channels in dict.fromkeys([3, 1, *([first.in_channels] if first else [])]):
        try:
            with torch.no_grad():
                made = network(torch.zeros(1, channels, *sides))
        except Exception as error:
            errors.append(f"with {channels} channels {type(error).__name__}: {_first_line(error)}")
            continue
        if not isinstance(made, Tensor) or made.ndim != 4:
            kind = f"a tensor of {tuple(made.shape)}" if isinstance(made, Tensor) else f"a {type(made).__name__}"
            raise ExDAError(f"{type(network).__name__} makes {kind} of an image; expected (B, C, H, W).")
        return channels, made.shape[1]
    raise ExDAError(
        f"{type(network).__name__} cannot be called with an image as its only argument: {'; '.join(errors)}."
    )


def _check_repeats(network: nn.Module, image: Tensor) -> None:
    """Refuses a network whose output depends on random numbers: no file could compute the same.

    Raises:
        ExDAError: if it draws random numbers, and two calls differ.
    """
    with torch.no_grad():
        before = torch.get_rng_state()
        first = network(image)
        if torch.equal(torch.get_rng_state(), before):
            return
        difference = float((network(image) - first).abs().max())
    if difference:
        raise ExDAError(
            f"{type(network).__name__} draws random numbers even in evaluation: two calls with one image differ by up "
            f"to {difference:.1e}. No file can compute the same; restore with the checkpoint itself."
        )


def _patched(network: nn.Module) -> str:
    """Returns JSON that maps each configuration to the attentions that have it."""
    names: dict[str, list[str]] = {}
    for name, config in configs_of(network).items():
        names.setdefault(str(config), []).append(name)
    return json.dumps({config: condensed(held) for config, held in names.items()})


def _inexact(network: nn.Module) -> str | None:
    backbones = backbones_in(network).values()
    if any(each.sorts for each in backbones):
        return _INEXACT_SORTING
    reasons = {"adair": _INEXACT_BANDS, "amir": _INEXACT_CHOICE}
    return next((reasons[each.name] for each in backbones if each.name in reasons), None)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
