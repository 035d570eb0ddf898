"""``exda diagnose``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ..workbench.shared.progress import progress_on
from .command import command_line
from .errors import stop_on_signal
from .names import known_names, printable

if TYPE_CHECKING:
    from ..workbench.diagnostics.experiment import Experiment, Run

diagnose = typer.Typer(
    help="Small CPU experiments that isolate what a non-linear value, its position and a token do.",
    no_args_is_help=True,
)

Out = Annotated[
    Path, typer.Option(help="Folder for the results; those that are in it are not trained again.", file_okay=False)
]
Quick = Annotated[bool, typer.Option("--quick", help="Fewer steps, conditions and forms: about a minute.")]
Seeds = Annotated[int, typer.Option(help="How often each network is trained, from seeds 0, 1, ...", min=1)]
Steps = Annotated[int | None, typer.Option(help="Training steps, instead of the experiment's own number.", min=1)]
Variants = Annotated[
    list[str] | None,
    typer.Option(
        "--variant", help="Form of the value path; may be given several times. By default those that the task compares."
    ),
]


@diagnose.command()
def function(
    out: Out = Path(), quick: Quick = False, seeds: Seeds = 3, steps: Steps = None, variant: Variants = None
) -> None:
    """Approximate a function of one number by attention, with linear and with non-linear values."""
    from ..workbench.diagnostics.function import FunctionExperiment, quick_options  # noqa: PLC0415

    _run(FunctionExperiment(**_options(quick_options() if quick else {}, steps, variant)), out, seeds)


@diagnose.command()
def digits(
    out: Out = Path(),
    quick: Quick = False,
    seeds: Seeds = 3,
    steps: Steps = None,
    variant: Variants = None,
    data: Annotated[
        Path | None,
        typer.Option(help="An .npz with images, or a folder with torchvision's MNIST (by default: data)."),
    ] = None,
    download: Annotated[bool, typer.Option("--download", help="Fetch MNIST into the folder.")] = False,
    depth: Annotated[
        list[int] | None,
        typer.Option(help="Number of attentions in sequence, by default 1; may be given several times."),
    ] = None,
    batch: Annotated[int | None, typer.Option(help="Images per step, by default 32.", min=1)] = None,
    rate: Annotated[float | None, typer.Option(help="Learning rate, above 0, by default 0.002.", min=0)] = None,
    windows: Annotated[
        bool,
        typer.Option(
            "--windows",
            help="By attention within windows of 7 x 7 pixels, an extension of this library: by default 2 in sequence, "
            "without variants that have tokens.",
        ),
    ] = False,
) -> None:
    """Restore degraded digits by channel attention alone, with linear and with non-linear values."""
    from ..workbench.diagnostics.data import load_digits  # noqa: PLC0415
    from ..workbench.diagnostics.digits import DigitsExperiment, quick_options  # noqa: PLC0415
    from ..workbench.diagnostics.windows import WindowsExperiment  # noqa: PLC0415

    if rate == 0:
        raise typer.BadParameter("a rate of 0 learns nothing", param_hint="--rate")
    options = _options(quick_options() if quick else {}, steps, variant, batch=batch, rate=rate)
    if depth:
        options["depths"] = depth
    experiment = WindowsExperiment if windows else DigitsExperiment
    _run(experiment(load_digits(data, download=download), **options), out, seeds)


@diagnose.command()
def position(
    out: Out = Path(), quick: Quick = False, seeds: Seeds = 3, steps: Steps = None, variant: Variants = None
) -> None:
    """Tell tasks that need a non-linearity before the aggregation from those that need one after it."""
    from ..workbench.diagnostics.position import PositionExperiment, quick_options  # noqa: PLC0415

    _run(PositionExperiment(**_options(quick_options() if quick else {}, steps, variant)), out, seeds)


def _options(
    options: dict[str, Any], steps: int | None, given: Sequence[str] | None, **others: float | None
) -> dict[str, Any]:
    from ..workbench.diagnostics.variants import VARIANTS  # noqa: PLC0415

    asked = {"steps": steps, "variants": known_names("--variant", given or (), VARIANTS), **others}
    return options | {name: value for name, value in asked.items() if value}


def _run(experiment: Experiment, out: Path, seeds: int) -> None:
    from ..errors import ConfigError  # noqa: PLC0415
    from ..files import atomic_write, write_text  # noqa: PLC0415
    from ..workbench.diagnostics.plot import figure  # noqa: PLC0415
    from ..workbench.diagnostics.run import run  # noqa: PLC0415
    from ..workbench.diagnostics.table import markdown, printed  # noqa: PLC0415
    from ..workbench.shared.machine import machine_line  # noqa: PLC0415
    from ..workbench.shared.plotting import matplotlib_figure  # noqa: PLC0415

    # Fail before the training, not after it, if Matplotlib is missing.
    matplotlib_figure("diagnose")
    console = Console()
    path = out / f"diagnose_{experiment.kind}.json"
    beside = [each for each in map(path.with_suffix, (".md", ".png")) if each.exists()]
    if beside and not path.exists():
        raise ConfigError(f"{beside[0]} exists without {path.name} and would be overwritten; give another folder")

    def summary() -> str:
        return (
            f"what was trained is in {path}; the same command goes on there" if path.exists() else "nothing was written"
        )

    with stop_on_signal(summary), progress_on(console) as progress:
        task = progress.add_task(experiment.kind, total=1.0)

        def on_progress(each: Run, done: float) -> None:
            progress.update(task, completed=done, description=f"{each.condition}, {each.variant}, seed {each.seed}")

        result = run(experiment, path, range(seeds), command_line(), on_progress)
        progress.update(task, completed=1.0)
    write_text(path.with_suffix(".md"), markdown(type(experiment), result))
    with atomic_write(path.with_suffix(".png")) as partial:
        figure(type(experiment), result).savefig(partial, format="png", dpi=150)
    for table in printed(type(experiment), result):
        console.print(table)
    console.print(machine_line(result["machine"]), markup=False, highlight=False)
    console.print(printable(f"written: {path}, .md, .png"), markup=False, highlight=False, soft_wrap=True)
