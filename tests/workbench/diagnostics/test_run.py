"""The grid: resumed where it was interrupted, the same bits from the same seed, and nothing overwritten by mistake."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import matplotlib.figure
import pytest
import torch
from torch import Tensor

from exda_primitives import ConfigError, ExDAError
from exda_primitives.workbench.diagnostics import plot
from exda_primitives.workbench.diagnostics.data import Digits
from exda_primitives.workbench.diagnostics.digits import DigitsExperiment
from exda_primitives.workbench.diagnostics.experiment import Experiment, Run
from exda_primitives.workbench.diagnostics.function import CHANNELS, CONDITIONS, POSITIONS, FunctionExperiment
from exda_primitives.workbench.diagnostics.position import TASKS, PositionExperiment
from exda_primitives.workbench.diagnostics.run import grid, run
from exda_primitives.workbench.diagnostics.table import against_linear, markdown, printed
from exda_primitives.workbench.shared.results import Result, read

NAMES = ("linear", "residual")


def some_digits() -> Digits:
    return Digits(torch.rand(10, 1, 8, 8, generator=torch.Generator().manual_seed(0)), "random", "0")


def tiny(kind: type[Experiment], steps: int = 2) -> Experiment:
    if kind is DigitsExperiment:
        return DigitsExperiment(some_digits(), [1, 2], steps, NAMES, batch=2)
    if kind is FunctionExperiment:
        return FunctionExperiment(steps, ("linear", "residual", "token"), CONDITIONS[1::3])
    return PositionExperiment(steps, NAMES, TASKS[1:2])


KINDS = [DigitsExperiment, FunctionExperiment, PositionExperiment]


@pytest.fixture(scope="module", params=KINDS)
def result(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[type[Experiment], Path]:
    """Experiment and result file of a run of two seeds and two steps."""
    path = tmp_path_factory.mktemp("run") / "result.json"
    run(tiny(request.param), path, [0, 1], "exda diagnose")
    return request.param, path


def rows(result: Result) -> dict[tuple[str, str, int], dict[str, object]]:
    return {(row["condition"], row["variant"], row["seed"]): row for row in result["runs"]}


def test_every_run_is_there_once(result: tuple[type[Experiment], Path]) -> None:
    kind, path = result
    found = read(path, kind.kind)
    wanted = grid(tiny(kind), [0, 1])
    assert [Run(*key) for key in rows(found)] == wanted
    assert len(found["runs"]) == len(wanted)
    assert found["machine"]["threads"] == 1
    assert found["config"]["steps"] == 2
    values = [row[kind.metric.name] for row in found["runs"]]
    assert len(set(values)) == len(values)


def test_duplicate_conditions_and_seeds_are_trained_once() -> None:
    assert len(grid(DigitsExperiment(some_digits(), [1, 1, 2], 2, NAMES), [0, 0])) == 4


def test_tokens_are_compared_only_in_channel_attention() -> None:
    found = {(each.condition, each.variant) for each in grid(tiny(FunctionExperiment), [0])}
    assert (f"{CHANNELS}, order 2", "token") in found
    assert (f"{POSITIONS}, order 2", "token") not in found


def test_a_seed_gives_the_same_bits(result: tuple[type[Experiment], Path], tmp_path: Path) -> None:
    kind, path = result
    # The state of the global generator and the number of threads do not matter, and are left as they are.
    torch.manual_seed(5)
    threads, state = torch.get_num_threads(), torch.get_rng_state()
    again = run(tiny(kind), tmp_path / "again.json", [1], "exda diagnose")
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads
    before = rows(read(path, kind.kind))
    assert all(before[key] == row for key, row in rows(again).items())
    assert len(again["runs"]) == len(before) // 2


def test_an_interrupted_run_resumes(
    result: tuple[type[Experiment], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, path = result
    whole = read(path, kind.kind)
    partial = tmp_path / "partial.json"
    partial.write_text(json.dumps(whole | {"runs": whole["runs"][:1], "seeds": [0]}))
    trained: list[Run] = []

    def note(self: Experiment, each: Run, on_step: object) -> dict[str, object]:
        trained.append(each)
        return original(self, each)

    original = Experiment.train
    monkeypatch.setattr(Experiment, "train", note)
    assert run(tiny(kind), partial, [0, 1], whole["command"]) == whole
    assert trained == grid(tiny(kind), [0, 1])[1:]
    assert run(tiny(kind), partial, [0, 1], "exda again") == read(partial, kind.kind) == whole
    assert trained == grid(tiny(kind), [0, 1])[1:]


def test_another_configuration_is_refused(result: tuple[type[Experiment], Path]) -> None:
    kind, path = result
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"another config \(steps 2, here 3\)"):
        run(tiny(kind, steps=3), path, [0], "exda diagnose")
    other = KINDS[KINDS.index(kind) - 1]
    with pytest.raises(ConfigError, match=f"kind '{kind.kind}', expected '{other.kind}'"):
        run(tiny(other), path, [0], "exda diagnose")
    assert path.read_bytes() == before


def test_progress_grows_to_1(tmp_path: Path) -> None:
    shares: list[float] = []
    run(tiny(DigitsExperiment), tmp_path / "result.json", [0], "", lambda each, done: shares.append(done))
    # Two variants of two steps each; depth 2 counts twice as much as depth 1.
    assert shares == pytest.approx([1 / 12, 2 / 12, 3 / 12, 4 / 12, 6 / 12, 8 / 12, 10 / 12, 1])


def test_no_seeds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no seeds"):
        run(tiny(PositionExperiment), tmp_path / "result.json", [], "")


class Diverging(PositionExperiment):
    def batches(self, condition: str, seed: int) -> Callable[[], tuple[Tensor, Tensor]]:
        draw = super().batches(condition, seed)

        def drawn() -> tuple[Tensor, Tensor]:
            inputs, targets = draw()
            return inputs, targets * (float("nan") if seed else 1)

        return drawn


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with pytest.raises(ExDAError, match=r"position: the loss of Run\(.*seed=1\) is nan in step 1"):
        run(Diverging(2, ("linear",), TASKS[:1]), path, [0, 1], "exda diagnose")
    assert [row["seed"] for row in read(path, "position")["runs"]] == [0]


def test_training_lowers_the_error() -> None:
    """40 steps bring the error well below that after one step."""
    first, later = (tiny(FunctionExperiment, steps).train(Run(CONDITIONS[1], "linear", 0)) for steps in (1, 40))
    assert later["error"] < 0.9 * first["error"]


def test_the_table(result: tuple[type[Experiment], Path]) -> None:
    kind, path = result
    found = read(path, kind.kind)
    text = markdown(kind, found)
    assert found["machine"]["cpu"] in text
    assert "Command: `exda diagnose`" in text
    assert "Seeds: 0, 1." in text
    (row, *_) = re.findall(r"\| V \+ g\(V\) before .* \|", text)
    assert re.fullmatch(r"\| V.* \| [\d,]+ \| -?[\d.]+ ± [\d.e-]+ \(2\) \| [-+\d.]+ \([-+\d.]+ to [-+\d.]+\) \|", row)
    assert len(re.findall(r"\| linear V \(the host\) .* \| - \|", text)) == len(tiny(kind).conditions)
    assert [table.title for table in printed(kind, found)] == list(tiny(kind).conditions)


def test_one_seed_has_neither_spread_nor_interval(result: tuple[type[Experiment], Path]) -> None:
    kind, path = result
    found = read(path, kind.kind)
    found["runs"] = [row for row in found["runs"] if row["seed"] == 1]
    assert not re.search(r"±.*\|| to ", "".join(re.findall(r"^\| [VOGl].*$", markdown(kind, found), re.MULTILINE)))


def row_of(seed: int, value: float) -> dict[str, float]:
    return {"seed": seed, "psnr": value, "error": value}


def test_variants_are_compared_seed_by_seed() -> None:
    linear, other = [row_of(0, 1.0), row_of(1, 4.0), row_of(2, 9.0)], [row_of(1, 8.0), row_of(0, 0.5)]
    gained = against_linear(other, linear, DigitsExperiment.metric)
    assert gained == (-0.5, 1.75, 4.0)
    ratio = against_linear(other, linear, PositionExperiment.metric)
    assert ratio == pytest.approx((0.5, 1.0, 2.0))
    assert against_linear([row_of(3, 1.0)], linear, DigitsExperiment.metric) is None
    assert against_linear(other, [], DigitsExperiment.metric) is None


def test_the_plot(result: tuple[type[Experiment], Path]) -> None:
    kind, path = result
    made = plot.figure(kind, read(path, kind.kind))
    assert isinstance(made, matplotlib.figure.Figure)
    panels = [axes for axes in made.axes if axes.axison]
    assert [axes.get_title().replace("\n", " ") for axes in panels] == list(tiny(kind).conditions)
    dots = [line for line in panels[0].lines if line.get_marker() == "o"]
    assert sum(len(line.get_xdata()) for line in dots) == 2 * len(dots)
