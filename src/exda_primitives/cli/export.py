"""``exda export``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape

from .names import known_names, printable
from .networks import HELP, AnyHost, Ignore, ParamKey, PatchedWith, PatchFile, Reading, checkpoint_file, network_of
from .source import Adapters, run_adapters

if TYPE_CHECKING:
    from ..workbench.export import Exported


def export(
    checkpoint: Annotated[str, typer.Argument(help=f"Weights: {HELP}.")],
    target: Annotated[Path, typer.Argument(metavar="OUTPUT", help="File to write: .onnx, .pt2 or .dtmodel.")],
    model: Annotated[str, typer.Option(help="The network's name; auto: as the checkpoint says.")] = "auto",
    patch: PatchFile = None,
    format: Annotated[
        str,
        typer.Option(
            help="onnx, pt2 (for torch.export.load), dtmodel (for darktable), or auto: by the ending of OUTPUT."
        ),
    ] = "auto",
    opset: Annotated[
        int,
        typer.Option(help="ONNX operator set; onnxruntime, darktable and TensorRT take all of these.", min=17, max=20),
    ] = 17,
    half: Annotated[
        bool, typer.Option("--half", help="Store weights and compute in float16; input and output stay float32.")
    ] = False,
    compiled: Annotated[
        bool, typer.Option("--compiled", help="Compile a .pt2 for this machine's CPU by AOTInductor; takes minutes.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that exists.")] = False,
    any_host: AnyHost = False,
    param_key: ParamKey = None,
    patched_with: PatchedWith = None,
    ignore: Ignore = None,
    adapter: Adapters = None,
) -> None:
    """Write a network, patched or not, to a file that other programs run, for any batch, height and width.

    Before the file gets its name, it is run on three sizes and compared with PyTorch. If the difference is larger than
    rounding explains, nothing is written, and the reason is printed.
    """
    # Imported here because --help has to work without importing torch.
    from ..workbench.export import export as export_network  # noqa: PLC0415

    kind = _format(format, target)
    _check_target(target, overwrite=overwrite)
    run_adapters(adapter)
    reading = Reading(param_key, ignore, patched_with)
    network = network_of(checkpoint_file(checkpoint), reading, model, patch, any_host=any_host)
    console = Console()
    with console.status("writing, running and comparing; minutes where a network is captured by torch.export"):
        exported = export_network(network, target, format=kind, opset=opset, half=half, compiled=compiled)
    _print(exported, console)


def _format(format: str, target: Path) -> str:
    from ..workbench.export import FORMATS  # noqa: PLC0415

    kind = target.suffix.lower().removeprefix(".") if format == "auto" else format
    known_names("OUTPUT" if format == "auto" else "--format", [kind], FORMATS)
    return kind


def _check_target(target: Path, *, overwrite: bool) -> None:
    from ..errors import ConfigError  # noqa: PLC0415
    from ..workbench.shared.files import check_writable, is_nonregular_file  # noqa: PLC0415

    if is_nonregular_file(target):
        raise ConfigError(f"{target}: is no regular file; give another name")
    if target.exists() and not overwrite:
        raise ConfigError(f"{target}: exists; --overwrite replaces it")
    check_writable(target.parent)
    if not target.parent.is_dir():
        raise ConfigError(f"{target.parent}: does not exist; make the folder first")


def _print(exported: Exported, console: Console) -> None:
    metadata, difference = exported.metadata, exported.difference
    sizes = ", ".join(" x ".join(map(str, size)) for size in difference.sizes)
    patched = ", patched" if metadata["patched"] != "{}" else ""
    lines = [
        f"{printable(exported.path)}: {metadata['network']}{patched}, {metadata['precision']}, "
        f"{exported.path.stat().st_size / 2**20:.1f} MiB; sides: multiples of {metadata['multiple']}, at least "
        f"{metadata['least_side']}",
        f"Compared with PyTorch on {sizes} (batch x height x width): largest difference {difference.largest:.1e}, "
        f"relative {difference.relative:.1e}.",
    ]
    if exported.inexact:
        lines.append(f"Another program cannot compute exactly what this network does: {exported.inexact}.")
    if difference.own is not None:
        lines.append(f"PyTorch's own rounding changes its output by {difference.own:.1e}, relative.")
    for line in lines:
        console.print(escape(line), highlight=False, soft_wrap=True)
