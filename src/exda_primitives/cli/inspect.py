"""``exda inspect``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from ..workbench.shared.files import fingerprint
from ..workbench.shared.progress import progress_on
from .command import command_line
from .devices import named_device
from .errors import stop_on_signal
from .images import open_and_report
from .names import known_names, printable
from .networks import HELP, AnyHost, Ignore, ParamKey, PatchedWith, PatchFile, Reading, checkpoint_file, network_of
from .source import Adapters, run_adapters

if TYPE_CHECKING:
    from torch import nn

    from ..workbench.inspection.images import LabelledImages


def inspect(
    model: Annotated[
        str,
        typer.Argument(help=f"Weights: {HELP}."),
    ],
    images: Annotated[Path, typer.Option(help="Folder, .zip or .npz of images.")],
    out: Annotated[Path, typer.Option(help="Folder for the results.", file_okay=False)] = Path("exda-inspect"),
    degrade: Annotated[
        list[str] | None,
        typer.Option(
            help="noise25, rain, ..., or clean; may be given several times. By default noise25, rain, haze, blur, low."
        ),
    ] = None,
    labels_from_folders: Annotated[
        bool, typer.Option("--labels-from-folders", help="Degrade nothing: each folder is named after a degradation.")
    ] = False,
    of: Annotated[
        list[str] | None,
        typer.Option(help="What to embed: outputs, tokens, or both by giving it twice; by default all that exist."),
    ] = None,
    block: Annotated[
        list[str] | None, typer.Option(help="Names of attentions, such as latent or *.0.attn; by default all.")
    ] = None,
    size: Annotated[int, typer.Option(help="Side in pixels to which larger images are cropped.", min=16)] = 256,
    seeds: Annotated[int, typer.Option(help="How often k-means is run, from seeds 0, 1, ...", min=1)] = 10,
    seed: Annotated[int, typer.Option(help="Seed of the degradations and the projections.", min=0)] = 0,
    patch: PatchFile = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    any_host: AnyHost = False,
    param_key: ParamKey = None,
    patched_with: PatchedWith = None,
    ignore: Ignore = None,
    adapter: Adapters = None,
) -> None:
    """Find out whether a model's attentions know how an image is degraded.

    Clean images are degraded, and each attention's output is pooled into one point per image. The results say how well
    k-means finds the degradations in these points (NMI, ARI), show their projections by t-SNE and UMAP, where the
    global tokens look, and the spectra of the features.
    """
    from ..workbench.inspection.embeddings import READERS  # noqa: PLC0415
    from ..workbench.inspection.run import InspectionOptions, check_free, run  # noqa: PLC0415
    from ..workbench.inspection.table import NOTE, printed  # noqa: PLC0415

    console = Console()
    where = named_device(device)
    if labels_from_folders and degrade:
        raise typer.BadParameter("images are either degraded or labelled by their folders", param_hint="--degrade")
    check_free(out)
    run_adapters(adapter)
    reading = Reading(param_key, ignore, patched_with)
    network, about = _network(model, reading, patch, any_host=any_host)
    network.to(where)
    labelled = _images(network, images, degrade, labels_from_folders, size, seed)
    options = InspectionOptions(block or None, known_names("--of", of or (), READERS), range(seeds), seed)
    config = about | _about(images, labelled) | {"device": where.type}
    with stop_on_signal(lambda: "nothing was written"), progress_on(console) as progress:
        task = progress.add_task("", total=1.0)
        command = command_line()
        result, notes = run(
            network,
            labelled,
            out,
            options,
            config,
            command,
            lambda title, done: progress.update(task, description=escape(printable(title)), completed=done),
        )
    console.print(printed(result))
    console.print(NOTE, highlight=False)
    for note in notes:
        console.print(printable(note), markup=False, highlight=False, soft_wrap=True)
    written = ", ".join(sorted(path.name for path in out.iterdir()))
    console.print(printable(f"written to {out}: {written}"), markup=False, highlight=False, soft_wrap=True)


def _network(name: str, reading: Reading, patch: Path | None, *, any_host: bool) -> tuple[nn.Module, dict[str, Any]]:
    """Returns the network and its description for the results."""
    weights = checkpoint_file(name)
    network = network_of(weights, reading, patch=patch, any_host=any_host)
    # The name as typed: demo says more than the name of its file in the package.
    about: dict[str, Any] = {"model": Path(name).name, "model_sha256": fingerprint(weights)}
    if patch is not None:
        about |= {"patch": patch.name, "patch_sha256": fingerprint(patch)}
    return network, about | {"exda": configuration(network)}


def configuration(network: nn.Module) -> dict[str, Any] | None:
    """Returns the configuration of all attentions, or a dict of each by its name if they differ; None without ExDA."""
    from ..errors import MixedConfigError  # noqa: PLC0415
    from ..patching import config_of, configs_of  # noqa: PLC0415

    configs = configs_of(network)
    if not configs:
        return None
    try:
        return config_of(network).as_dict()
    except MixedConfigError:
        return {name: config.as_dict() for name, config in configs.items()}


def _images(
    network: nn.Module, images: Path, names: list[str] | None, by_folder: bool, size: int, seed: int
) -> LabelledImages:
    from ..workbench.inspection.images import DEFAULT, degraded, labelled_by_folder  # noqa: PLC0415
    from ..workbench.restoration import Restorer  # noqa: PLC0415

    found = open_and_report(images, 3 if Restorer(network).channels == 3 else 1)
    return labelled_by_folder(found, size) if by_folder else degraded(found, names or DEFAULT, size, seed)


def _about(images: Path, labelled: LabelledImages) -> dict[str, Any]:
    return {
        "images": images.name,
        "images_sha256": fingerprint(images),
        "pictures": len(labelled),
        "labels": labelled.kinds,
        "labels_from": "degradation" if labelled.synthetic else "folders",
        "size": labelled.size,
        "degradation_seed": labelled.seed if labelled.synthetic else None,
    }
