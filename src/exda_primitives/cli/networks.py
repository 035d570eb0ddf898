"""Builds the networks that commands are given: from a checkpoint, or from the demo's weights in the package."""

from __future__ import annotations

from contextlib import suppress
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

if TYPE_CHECKING:
    import torch
    from torch import nn

    from ..workbench.restoration import Restorer

HELP = (
    "a .pth, .ckpt or .safetensors file, or the name of one in the folder EXDA_HOME (exda models lists the published "
    "ones); or demo, the package's own small ExDA network, or demo-host, the same without"
)

_DEMO = {"demo": "exda.safetensors", "demo-host": "host.safetensors"}


def checkpoint_file(name: str) -> Path:
    """Returns the path of the weights.

    Args:
        name: ``demo`` or ``demo-host`` for the package's own network (a file of that name is ``./demo``), the path of a
            file, or the name of one in the folder ``EXDA_HOME``.

    Raises:
        CheckpointError: see ``exda_primitives.models.home.checkpoint_by_name``.
    """
    if name in _DEMO:
        return Path(str(resources.files("exda_primitives.workbench.demo") / "data" / _DEMO[name]))
    path = Path(name)
    if path.exists():
        return path
    from ..models.home import checkpoint_by_name  # noqa: PLC0415

    return checkpoint_by_name(name) or path


ParamKey = Annotated[
    str | None, typer.Option(help="Entry of the checkpoint with the weights, if several entries have weights.")
]
Ignore = Annotated[
    list[str] | None,
    typer.Option(help="Pattern of names in the checkpoint that are not the network's. May be given several times."),
]
PatchedWith = Annotated[
    str | None,
    typer.Option(
        metavar="OPTION=VALUE,...",
        help="Options with which the network was patched, if the checkpoint does not record them: "
        "tokens=2,value_position=after; options that are not named have their defaults.",
    ),
]
PatchFile = Annotated[
    Path | None, typer.Option(help="Weights to add to the network, written by exda.save or exda adapt.", dir_okay=False)
]
AnyHost = Annotated[
    bool, typer.Option("--any-host", help="Accept ExDA weights that were trained on a host with other weights.")
]


class Reading(NamedTuple):
    """The options of a command that say how to read a checkpoint."""

    param_key: str | None
    ignore: list[str] | None
    patched_with: str | None

    def arguments(self) -> dict[str, Any]:
        """Returns keyword arguments for ``exda.models.create`` and ``identify``.

        Raises:
            ConfigError: for unknown options in ``patched_with``.
        """
        return {"param_key": self.param_key, "ignore": self.ignore, "config": _config(self.patched_with)}


def network_of(
    weights: Path, reading: Reading, name: str = "auto", patch: Path | None = None, *, any_host: bool = False
) -> nn.Module:
    """Builds a checkpoint's network; with ``patch``, a file of ``exda.save`` or ``exda adapt``, loads that into it."""
    from ..models import create  # noqa: PLC0415

    network = create(name, checkpoint=weights, **reading.arguments())
    if patch is not None:
        from ..workbench.adaptation import load  # noqa: PLC0415

        load(network, patch, any_host=any_host)
    return network


def restorer_of(network: nn.Module, device: torch.device, *, half: bool, **options: Any) -> Restorer:
    """Returns a ``Restorer`` of the network on the device; on a CPU, the network is fused.

    Args:
        network: is moved to the device.
        device: where the network computes.
        half: computes in float16, on the CPU in bfloat16.
        **options: further arguments of ``Restorer``.
    """
    import torch  # noqa: PLC0415

    from ..errors import NoMatchError  # noqa: PLC0415
    from ..fusion import fuse  # noqa: PLC0415
    from ..workbench.restoration import Restorer  # noqa: PLC0415

    network = network.to(device)
    if device.type == "cpu":
        # A network without a block that fuse recognises stays as it is.
        with suppress(NoMatchError):
            fuse(network)
    dtype = (torch.float16 if device.type == "cuda" else torch.bfloat16) if half else None
    return Restorer(network, dtype=dtype, **options)


def _config(options: str | None) -> Any:
    """Parses ``tokens=2,value_position=after`` to an ``ExDAConfig``; None to None."""
    from ..patching.options import configured  # noqa: PLC0415

    if options is None:
        return None
    pairs = [each.partition("=") for each in options.split(",") if each.strip()]
    given: Any = {"init": "paper"} | {key.strip(): _plain(value.strip()) for key, _, value in pairs}
    return configured("--patched-with", None, given)


def _plain(value: str) -> int | str:
    return int(value) if value.isdecimal() else value
