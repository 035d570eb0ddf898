"""``exda info``."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from .names import printable
from .networks import HELP, Ignore, ParamKey, PatchedWith, Reading, checkpoint_file
from .source import Adapters, run_adapters


def info(
    checkpoint: Annotated[str, typer.Argument(help=f"Weights: {HELP}.")],
    param_key: ParamKey = None,
    patched_with: PatchedWith = None,
    ignore: Ignore = None,
    adapter: Adapters = None,
) -> None:
    """Say which network a checkpoint is of, how it is configured and patched, and how the file stores its weights."""
    from ..checkpoints.contents import read_checkpoint  # noqa: PLC0415
    from ..checkpoints.exda_file import read_header  # noqa: PLC0415
    from ..checkpoints.split import split_state_dict  # noqa: PLC0415
    from ..errors import some_of  # noqa: PLC0415
    from ..models.catalog import identity_of  # noqa: PLC0415

    run_adapters(adapter)
    table = Table("", "", show_header=False, box=None, padding=(0, 2, 0, 0))
    table.columns[1].overflow = "fold"
    reading = Reading(param_key, ignore, patched_with).arguments()
    contents = read_checkpoint(checkpoint_file(checkpoint), reading["param_key"]).without(reading["ignore"])
    numbers = sum(tensor.numel() for tensor in contents.tensors.values())
    kinds = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in contents.tensors.values()})
    table.add_row("file", printable(contents.path))
    table.add_row("tensors", f"{len(contents.tensors)}, {numbers:,} numbers, {', '.join(kinds)}")
    header = read_header(contents) if contents.is_ours else None
    # A file that exda.save wrote without whole=True has only the parameters that ExDA added, so no network to identify.
    if header is None or header.whole:
        identity = identity_of(contents, reading["config"])
        held = identity.state
        table.add_row("wrapping", contents.wrapping or "none")
        table.add_row("prefix", identity.prefix or "none")
        table.add_row("network", identity.architecture.name)
        for name, argument in identity.arguments.items():
            table.add_row(f"  {name}", str(argument))
    else:
        held = split_state_dict(contents.tensors, contents.path, known=header.attentions)
        table.add_row("network", "none: the parameters that ExDA added, for exda.load(model, file)")
    for config, names in held.by_config().items():
        table.add_row("ExDA", f"in {len(names)} attentions ({some_of(names)}): {config}")
    Console().print(table, markup=False, highlight=False)
