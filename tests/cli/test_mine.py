"""exda bench mine: benchmarks of a user's own network."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from tests.workbench.bench import openvino_stub
from tests.workbench.bench.stubs import timed
from typer.testing import CliRunner, Result

import exda_primitives as exda
from exda_primitives.cli import app
from exda_primitives.ops import triton_or_torch
from exda_primitives.workbench.bench import bandwidth_floor, budget, cases
from exda_primitives.workbench.bench.networks import BACKBONES
from exda_primitives.workbench.bench.record import append, read

SOURCE = """
import torch
from torch import nn

class Plain(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Conv2d(1, 1, 3, padding=1))
"""


def mine(checkpoint: object, *options: object) -> Result:
    command = ["bench", "mine", str(checkpoint), "--device", "cpu", *map(str, options)]
    return CliRunner().invoke(app, command, env={"COLUMNS": "200"})


def plain(result: Result) -> str:
    return " ".join(result.output.replace("│", " ").split())


@pytest.fixture(scope="module", autouse=True)
def _quick() -> Iterator[None]:
    """Leaves out what is slow and not tested here: compiling, Triton's interpreter and large copies."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(triton_or_torch, "_MISSING", "not needed here")
        patched.setattr(bandwidth_floor, "_BYTES", {"cpu": 2**20})
        patched.setattr("exda_primitives.cli.mine._TURNS", 2)
        patched.setattr(torch, "compile", lambda model, **options: model)
        yield


@pytest.fixture
def without_onnxruntime(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cases, "find_spec", lambda package: None)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "my net.pth"
    torch.save({"params": BACKBONES["restormer-tiny"]().state_dict()}, path)
    return path


def test_a_checkpoint(checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    openvino_stub.install(monkeypatch)
    result = mine(checkpoint, "--size", 16, "--minutes", 10)
    assert result.exit_code == 0, result.output
    folder = tmp_path / "bench-my-net"
    records = read(folder / "results.jsonl")
    assert [(each.case.variant, each.case.mode, each.status) for each in records] == [
        ("original", "eager", "timed"),
        ("fused-original", "eager", "timed"),
        ("fused", "eager", "timed"),
        ("original", "onnxruntime", "timed"),
        ("original", "openvino", "timed"),
        ("original", "compiled", "timed"),
    ]
    assert {each.case.comparison.backbone for each in records} == {"my-net"}
    assert all(each.check is not None and each.check.error <= each.check.allowed for each in records)
    names = {"results.jsonl", "results.csv", "results.md", "my-net-forward-float32-1.png"}
    assert {path.name for path in folder.iterdir()} == names
    number = r"\d+\.\d\d"
    assert re.fullmatch(
        rf"fused: {number} of the time as it is \(.* for .* at 16x16\), {number} of the memory; "
        rf"patched and fused {number}; torch.compile {number}; onnxruntime {number}; OpenVINO {number}\. "
        r"Of the time as it is, \d+% is in blocks that fuse takes, \d+% in the parts that it computes\.",
        result.output.splitlines()[-1],
    )


@pytest.mark.usefixtures("without_onnxruntime")
def test_a_patched_checkpoint_replaces_earlier_results_of_the_same(tmp_path: Path) -> None:
    model = BACKBONES["restormer-tiny"]()
    exda.patch(model)
    exda.save(model, tmp_path / "net.safetensors", whole=True)
    (tmp_path / "out").mkdir()
    append(tmp_path / "out" / "results.jsonl", timed(backbone="net", height=8))
    result = mine(tmp_path / "net.safetensors", "--size", "24x16", "--minutes", 10, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    records = read(tmp_path / "out" / "results.jsonl")
    assert len(records) == 4
    statuses = {(each.case.variant, each.case.mode): (each.status, each.reason) for each in records}
    assert statuses["original", "eager"] == statuses["fused-original", "eager"] == ("timed", None)
    assert ("fused", "eager") not in statuses
    assert statuses["original", "onnxruntime"][0] == "skipped"
    assert "not installed" in (statuses["original", "onnxruntime"][1] or "")
    line = result.output.splitlines()[-1]
    assert line.startswith("fused: ")
    assert "at 24x16)" in line
    assert "patched and fused" not in line


@pytest.mark.usefixtures("without_onnxruntime")
def test_a_users_class_without_blocks_to_fuse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "nets.py").write_text(SOURCE)
    monkeypatch.setattr("exda_primitives.workbench.bench.plots.matplotlib_figure", _missing)
    result = mine(f"{tmp_path}/nets.py:Plain", "--size", 16, "--minutes", 10, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert {each.case.comparison.backbone for each in read(tmp_path / "out" / "results.jsonl")} == {"Plain"}
    assert "no plot: matplotlib is missing" in result.output
    last = result.output.splitlines()[-1]
    assert last.startswith("fused not timed (skipped); patched and fused not timed (skipped); torch.compile: ")
    assert "no transformer block around a known attention" in plain(result)


def _missing(extra: str) -> None:
    raise exda.ExDAError("matplotlib is missing")


@pytest.mark.usefixtures("without_onnxruntime")
def test_cases_that_exceed_the_minutes_are_left(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Makes the estimate for compiling longer than the minutes.
    monkeypatch.setattr("exda_primitives.workbench.bench.harness._LAYER", {"compiled": 1e6})
    result = mine(checkpoint, "--size", 16, "--minutes", 5, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "left for want of time: 1; give more --minutes" in result.output
    assert "torch.compile not timed (left)" in result.output.splitlines()[-1]
    assert "compiled" not in {each.case.mode for each in read(tmp_path / "out" / "results.jsonl")}


def test_too_short_a_time_is_refused_before_the_work(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "seconds_of_a_pass", lambda *arguments: 10.0)
    result = mine(checkpoint, "--size", 512, "--out", tmp_path / "out")
    assert result.exit_code == 1
    assert plain(result) == (
        "error: --minutes 1: at 512x512, checks and one turn take about 140 s on this machine; give --minutes 3, or a "
        "smaller --size"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--size", "20x16"), "--size 20x16: Restormer takes sides that are multiples of 8; exda restore pads such a"),
        (("--size", "20x16"), "image to 24x16: give that"),
        (("--size", "big"), "'big' is no size"),
        (("--precision", "int8"), "'int8' is none of float32, tf32, bf16, fp16"),
        (("--model", "histoformer"), "is of restormer, not of histoformer"),
        (("--device", "tpu"), "'tpu' is none of auto, cpu, cuda"),
        (("--adapter", "none.py"), "none.py does not exist"),
    ],
)
def test_options_that_cannot_be_measured_are_refused(
    checkpoint: Path, tmp_path: Path, options: tuple[str, str], message: str
) -> None:
    result = mine(checkpoint, "--out", tmp_path / "out", *options)
    assert result.exit_code in (1, 2)
    assert message in plain(result)
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_an_unknown_network_is_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "net.pth")
    result = mine(tmp_path / "net.pth")
    assert result.exit_code == 1
    assert "is of no network that is known" in plain(result)


def test_results_of_another_network_are_kept(checkpoint: Path, tmp_path: Path) -> None:
    append(tmp_path / "results.jsonl", timed())
    result = mine(checkpoint, "--size", 16, "--out", tmp_path)
    assert result.exit_code == 1
    assert "holds results of restormer-tiny; give another folder, by --out" in plain(result)
    assert read(tmp_path / "results.jsonl") == [timed()]
