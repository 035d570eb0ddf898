"""The networks that commands are given: a checkpoint, or the demo's weights, which are in the package."""

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
    "a .pth, .ckpt or .safetensors file; or demo, the package's own small ExDA network, or demo-host, the same without"
)

_DEMO = {"demo": "exda.safetensors", "demo-host": "host.safetensors"}


_ONNX_TILE = 512


def checkpoint_file(name: str) -> Path:
    """Where the weights are that were asked for; a file that is called ``demo`` is ``./demo``."""
    if name in _DEMO:
        return Path(str(resources.files("exda_primitives.workbench.demo") / "data" / _DEMO[name]))
    return Path(name)


ParamKey = Annotated[
    str | None, typer.Option(help="Entry of the checkpoint that holds the weights, where there are several.")
]
Ignore = Annotated[
    list[str] | None,
    typer.Option(help="Names in the checkpoint, a pattern, that the network does not use. As often as needed."),
]
PatchedWith = Annotated[
    str | None,
    typer.Option(
        metavar="OPTION=VALUE,...",
        help="With which options it was patched, where the checkpoint does not say: tokens=2,value_position=after; "
        "none named: the default ones.",
    ),
]
AnyHost = Annotated[
    bool, typer.Option("--any-host", help="Take ExDA weights that were trained on a host with other weights, too.")
]


class Reading(NamedTuple):
    """How a checkpoint is read, as the options of a command say it."""

    param_key: str | None
    ignore: list[str] | None
    patched_with: str | None

    def arguments(self) -> dict[str, Any]:
        """Keywords of ``exda.models.create`` and ``identify``.

        Raises:
            ConfigError: for options that do not exist.
        """
        return {"param_key": self.param_key, "ignore": self.ignore, "config": _config(self.patched_with)}


def network_of(
    weights: Path, reading: Reading, name: str = "auto", patch: Path | None = None, *, any_host: bool = False
) -> nn.Module:
    """The network that a checkpoint is of, with the ExDA weights of another file, if any."""
    from ..checkpoints import load  # noqa: PLC0415
    from ..models import create  # noqa: PLC0415

    network = create(name, checkpoint=weights, **reading.arguments())
    if patch is not None:
        load(network, patch, any_host=any_host)
    return network


def restorer_of(network: nn.Module, device: torch.device, *, half: bool, **options: Any) -> Restorer:
    """What restores with the network on the device: on a CPU fused, in 16 bits if ``half``.

    Args:
        network: moved to the device.
        device: where it computes.
        half: float16; on the CPU bfloat16.
        **options: of ``Restorer``.
    """
    import torch  # noqa: PLC0415

    from ..errors import NoMatchError  # noqa: PLC0415
    from ..fusion import fuse  # noqa: PLC0415
    from ..workbench.restoration import Restorer  # noqa: PLC0415

    network = network.to(device)
    if device.type == "cpu":
        # Networks without a block that is known stay as they are.
        with suppress(NoMatchError):
            fuse(network)
    dtype = (torch.float16 if device.type == "cuda" else torch.bfloat16) if half else None
    return Restorer(network, dtype=dtype, **options)


def onnx_restorer(file: Path, device: torch.device, tile: int | None, overlap: int | None) -> Restorer:
    """What restores with an ONNX file, run by onnxruntime on the device; in tiles of 512 pixels if nothing is said."""
    from ..workbench.export.onnx_file import OnnxNetwork  # noqa: PLC0415
    from ..workbench.restoration import Restorer  # noqa: PLC0415

    network = OnnxNetwork(file, device.type)
    multiple = network.metadata.get("multiple", "")
    # Not by memory: that of another program is not counted.
    restorer = Restorer(
        network, tile=tile or _ONNX_TILE, overlap=overlap, multiple=int(multiple) if multiple.isdecimal() else None
    )
    restorer.sorts = network.metadata.get("sorts") == "yes"
    return restorer


def _config(options: str | None) -> Any:
    from ..patching.options import configured  # noqa: PLC0415

    if options is None:
        return None
    pairs = [each.partition("=") for each in options.split(",") if each.strip()]
    given: Any = {"init": "paper"} | {key.strip(): _plain(value.strip()) for key, _, value in pairs}
    return configured("--patched-with", None, given)


def _plain(value: str) -> int | str:
    return int(value) if value.isdecimal() else value
