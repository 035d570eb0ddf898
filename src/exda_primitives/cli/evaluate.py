"""``exda evaluate``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from ..workbench.shared.progress import progress_on
from .command import command_line
from .errors import stop_on_signal
from .images import open_and_report
from .names import printable
from .networks import (
    HELP,
    AnyHost,
    Ignore,
    ParamKey,
    PatchedWith,
    PatchFile,
    Reading,
    checkpoint_file,
    network_of,
    restorer_of,
)
from .source import Adapters, run_adapters

if TYPE_CHECKING:
    import torch

    from ..workbench.evaluation import Case
    from ..workbench.evaluation.published import Published
    from ..workbench.evaluation.run import Progress as OnCase
    from ..workbench.restoration import Restorer

_WEATHERBENCH = "weatherbench"


def evaluate(
    checkpoint: Annotated[str, typer.Argument(help=f"Weights of the network: {HELP}.")],
    protocol: Annotated[
        str,
        typer.Option(
            help="promptir, adair, moce-ir, moce-ir-cdd11, restormer-y, restormer-noise, histoformer, weatherbench, "
            "amir."
        ),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the results.", file_okay=False)],
    benchmark: Annotated[
        str | None,
        typer.Option(
            help="promptir-3, promptir-5, moce-ir-3, moce-ir-5, cdd11, allweather, amir, with --root; weatherbench, "
            "with --pairs."
        ),
    ] = None,
    root: Annotated[Path | None, typer.Option(help="Folder of the benchmark.", file_okay=False)] = None,
    pairs: Annotated[
        tuple[Path, Path] | None,
        typer.Option(help="Two folders, degraded and clean; the two images of a pair have the same name."),
    ] = None,
    clean: Annotated[
        Path | None, typer.Option(help="Clean images to degrade: a folder, a zip, or an npz of arrays.")
    ] = None,
    degrade: Annotated[
        list[str] | None,
        typer.Option(
            help="How to degrade --clean: noise15, noise25, noise50, blur, low, haze, rain, snow, low_haze, ...; may "
            "be given several times."
        ),
    ] = None,
    degradation: Annotated[
        list[str] | None,
        typer.Option(help="Evaluate only this degradation of the benchmark; may be given several times."),
    ] = None,
    partial: Annotated[
        bool, typer.Option("--partial", help="Accept a benchmark whose number of pairs differs from the published one.")
    ] = False,
    model: Annotated[str, typer.Option(help="The network's name; auto: as the checkpoint says.")] = "auto",
    patch: PatchFile = None,
    seed: Annotated[int, typer.Option(help="Seed of noise and degradations; all protocols use 0.", min=0)] = 0,
    tile: Annotated[
        int | None,
        typer.Option(help="Side of tiles in pixels; by default images are restored whole if memory allows.", min=1),
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Compute in 16 bits (float16; on the CPU bfloat16).")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Start again, even if there are results.")] = False,
    any_host: AnyHost = False,
    param_key: ParamKey = None,
    patched_with: PatchedWith = None,
    ignore: Ignore = None,
    adapter: Adapters = None,
) -> None:
    """Measure PSNR and SSIM by the protocol of a repository: its crop, channel, rounding, window and noise.

    Images come from a benchmark's folder, from two folders of pairs, or from clean images that are degraded here.
    All are read before the first is restored, so that missing or wrong ones are reported at once. The command writes
    evaluate.json, evaluate.csv with a line for each image, evaluate.md and evaluate.png. evaluate.json is written
    after each image, and the same command continues after an interruption.
    """
    # Imported here because --help has to work without importing torch.
    from ..workbench.evaluation import check, protocol_named  # noqa: PLC0415
    from ..workbench.evaluation import evaluate as evaluated  # noqa: PLC0415
    from ..workbench.evaluation.record import FILE, Record, configuration, refuse_others  # noqa: PLC0415
    from ..workbench.evaluation.run import selected_degradations  # noqa: PLC0415
    from ..workbench.shared.files import check_writable  # noqa: PLC0415
    from ..workbench.shared.plotting import matplotlib_figure  # noqa: PLC0415
    from .devices import named_device  # noqa: PLC0415

    source = Source(benchmark, root, pairs, clean, degrade or [], seed, whole=not partial)
    where = named_device(device)
    by = protocol_named(protocol)
    # Fail before the work, not after it, if Matplotlib is missing or the folder is not writable.
    matplotlib_figure("evaluate")
    check_writable(out)
    run_adapters(adapter)
    weights = checkpoint_file(checkpoint)
    reading = Reading(param_key, ignore, patched_with)
    network, published, restorer = _network(
        weights, reading, model, patch, where, half, tile, benchmark, any_host=any_host
    )
    cases = source.cases(restorer.channels)
    wanted = selected_degradations(cases, degradation or ())
    names = list(dict.fromkeys(case.degradation for case in cases if case.degradation in wanted))
    total = sum(case.degradation in wanted for case in cases)
    restoring = {"device": where.type, "tile": tile, "precision": str(restorer.autocast_dtype or restorer.own_dtype)}
    config = configuration(by, network, source.described(), degradations=names, restoring=restoring, seed=seed)
    if not overwrite:
        # Before check, which reads every image and takes a while.
        refuse_others(out, config)
    with _progress_bar("reading") as progress:
        config["set of images"] = check(cases, by, names, progress)
    command = command_line()
    with Record(out, config, by.note, total, published, command=command, device=where, overwrite=overwrite) as record:
        if record.found:
            Console().print(f"evaluated before: {len(record.found)} of {total}", highlight=False)

        def summary() -> str:
            without = "without --overwrite " if overwrite else ""
            held = f"{len(record.found)} of {total} images are in {out / FILE}"
            return f"{held}; the same command {without}goes on there" if record.found else "nothing was written"

        with stop_on_signal(summary), _progress_bar("restoring") as progress:
            done = len(record.found)
            for result in evaluated(restorer, cases, by, degradations=names, seed=seed, done=done, progress=progress):
                record.add(result)
        _print(record.finish(), out)


@dataclass(frozen=True)
class Source:
    """The options that say where the images come from.

    Attributes:
        benchmark: name of a benchmark, or None.
        root: the benchmark's folder.
        pairs: folders of degraded and of clean images.
        clean: clean images to degrade.
        degrade: degradations to apply to them.
        seed: seed of these degradations.
        whole: whether a benchmark must have the published number of pairs.

    Raises:
        BadParameter: for options that do not go together.
    """

    benchmark: str | None
    root: Path | None
    pairs: tuple[Path, Path] | None
    clean: Path | None
    degrade: Sequence[str]
    seed: int
    whole: bool

    def __post_init__(self) -> None:
        given = [
            name for name, value in (("--root", self.root), ("--pairs", self.pairs), ("--clean", self.clean)) if value
        ]
        if len(given) != 1:
            found = " and ".join(given) if given else "none"
            raise typer.BadParameter(f"give one of --root, --pairs and --clean; found {found}")
        if (self.root is not None) != (self.benchmark not in (None, _WEATHERBENCH)):
            raise typer.BadParameter("a benchmark's name and --root go together", param_hint="--benchmark")
        if self.benchmark == _WEATHERBENCH and self.pairs is None:
            raise typer.BadParameter("WeatherBench is two folders: give --pairs", param_hint="--benchmark")
        if bool(self.degrade) != (self.clean is not None):
            raise typer.BadParameter("--clean and --degrade go together", param_hint="--degrade")

    def cases(self, channels: int) -> list[Case]:
        """Returns all images, in grey if the network has 1 channel, else in RGB.

        Raises:
            ExDAError: if images are missing or unpaired, or their number is not the published one.
        """
        from ..workbench.data.benchmarks import weatherbench_files  # noqa: PLC0415
        from ..workbench.evaluation import benchmark_files, clean_cases, file_cases, paired_folders  # noqa: PLC0415

        if self.clean is not None:
            return clean_cases(open_and_report(self.clean, 1 if channels == 1 else 3), self.degrade, self.seed)
        if self.pairs is not None:
            if self.benchmark:
                return file_cases(weatherbench_files(*self.pairs, whole=self.whole))
            return file_cases(paired_folders(*self.pairs))
        assert self.root is not None
        assert self.benchmark is not None
        return file_cases(benchmark_files(self.benchmark, self.root, whole=self.whole))

    def described(self) -> dict[str, Any]:
        """Returns the source as the results record it."""
        folders = {"root": self.root, "clean": self.clean}
        if self.pairs is not None:
            folders |= {"degraded": self.pairs[0], "clean": self.pairs[1]}
        return {
            "benchmark": self.benchmark,
            **{name: str(folder.absolute()) for name, folder in folders.items() if folder},
            "published number of pairs": self.benchmark is not None and self.whole,
        }


def _network(
    checkpoint: Path,
    reading: Reading,
    name: str,
    patch: Path | None,
    device: torch.device,
    half: bool,
    tile: int | None,
    benchmark: str | None,
    *,
    any_host: bool,
) -> tuple[Mapping[str, Any], Published | None, Restorer]:
    from ..models import identify  # noqa: PLC0415
    from ..workbench.evaluation import published_for  # noqa: PLC0415
    from ..workbench.evaluation.record import file_digest  # noqa: PLC0415
    from ..workbench.shared.packages import psutil  # noqa: PLC0415

    # If psutil is missing, fail now, not after reading the checkpoint.
    psutil()
    identity = identify(checkpoint, **reading.arguments())
    network = network_of(checkpoint, reading, name, patch, any_host=any_host)
    about = {
        "architecture": identity.architecture.name,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "checkpoint": file_digest(checkpoint),
        "patch": None if patch is None else file_digest(patch),
    }
    published = published_for(identity.architecture.name, identity.arguments, benchmark)
    return about, published, restorer_of(network, device, half=half, tile=tile)


@contextmanager
def _progress_bar(doing: str) -> Iterator[OnCase]:
    with progress_on(Console()) as progress:
        task = progress.add_task(doing)

        def on_case(case: Case, done: float, total: int) -> None:
            progress.update(task, description=f"{doing} {escape(printable(case))}", completed=done, total=total)

        yield on_case


def _print(result: Mapping[str, Any], out: Path) -> None:
    from ..workbench.evaluation.record import FILE  # noqa: PLC0415
    from ..workbench.evaluation.table import printed, remarks  # noqa: PLC0415
    from ..workbench.shared.machine import machine_line  # noqa: PLC0415

    console = Console()
    console.print(printed(dict(result)))
    for line in (*remarks(dict(result)), machine_line(result["machine"])):
        console.print(line, markup=False, highlight=False)
    console.print(printable(f"written: {out / FILE}, .csv, .md, .png"), markup=False, highlight=False, soft_wrap=True)
