"""Train the demo's weights, and compare equal further training with and without ExDA.

A tiny Restormer is trained to remove haze, rain and noise. From its weights two arms are then trained for equally many
steps, on the same patches with the same degradations and optimiser settings: the host as it is, and the host after
`exda.patch`. Both are measured on photographs that neither was trained on.

Phases run in the order of `Phase`. Each leaves a checkpoint and a record in ``--out``; a phase whose checkpoint exists
is not run again, so repeating the command resumes an interrupted run. On a CPU that is busy with other work,
``OMP_NUM_THREADS=1`` is often fastest.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import torch
import typer
from demo_recipe import Phase, Run, console, photo_of, read_images, run_phase, sha256
from demo_report import report


def main(
    *,
    data: Annotated[Path, typer.Option(exists=True, dir_okay=False, help="Zip of <number>_<photo>.jpg crops.")],
    out: Annotated[Path, typer.Option(file_okay=False, help="Where checkpoints and records go.")],
    pretrain_steps: Annotated[int, typer.Option(min=1)] = 6000,
    further_steps: Annotated[int, typer.Option(min=1)] = 2400,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    device: Annotated[str, typer.Option(help="Torch device.")] = "cpu",
    stop_after: Annotated[Phase, typer.Option(help="Last phase to run.")] = Phase.REPORT,
) -> None:
    """Train the demo's weights and compare the host with the patched host."""
    out.mkdir(parents=True, exist_ok=True)
    training, training_names, testing, testing_names = read_images(data)
    console.print(
        f"{len(training_names)} crops to train on; {len(testing_names)} held out, of "
        f"{len({photo_of(name) for name in testing_names})} photographs; {torch.get_num_threads()} threads"
    )
    run = Run(out=out, seed=seed, device=torch.device(device), data_sha256=sha256(data), train=training)
    order = list(Phase)
    for phase in order[: order.index(stop_after) + 1]:
        if phase is Phase.REPORT:
            # File names only: the result is published, and full paths would show the user's folders.
            command = (
                f"python benchmarks/demo_weights.py --data {data.name} --out {out.name} "
                f"--pretrain-steps {pretrain_steps} --further-steps {further_steps} --seed {seed} "
                f"--device {device}"
            )
            report(run, testing, testing_names, command)
        else:
            run_phase(run, phase, pretrain_steps if phase is Phase.PRETRAIN else further_steps)


if __name__ == "__main__":
    typer.run(main)
