"""Results as files, and what they never replace."""

import csv
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from exda_primitives import results
from exda_primitives.errors import ConfigError
from exda_primitives.evaluation import PROTOCOLS, PUBLISHED, PictureResult, Published, Score
from exda_primitives.evaluation.record import configuration, file_digest, refuse_others, write
from exda_primitives.evaluation.table import printed, rows_of

CPU = torch.device("cpu")
FILES = ("evaluate.csv", "evaluate.json", "evaluate.md", "evaluate.png")
FOUND = [
    PictureResult("a, b", "rain", 32, 48, Score(30.0, 0.9), Score(20.0, 0.5), None),
    PictureResult("c", "rain", 32, 48, Score(34.0, 0.8), Score(22.0, 0.7), 16),
    PictureResult("d", "noise15", 32, 48, Score(28.5, 0.7), Score(24.0, 0.6), None),
]


def config(protocol: str = "promptir", seed: int = 0) -> dict[str, Any]:
    return configuration(
        PROTOCOLS[protocol],
        {"architecture": "promptir", "parameters": 5},
        {"benchmark": "promptir-3"},
        degradations=("rain", "noise15"),
        restoring={"device": "cpu", "tile": None, "precision": "torch.float32"},
        seed=seed,
    )


def written(
    folder: Path,
    found: list[PictureResult] = FOUND,
    published: Published | None = PUBLISHED[0],
    *,
    overwrite: bool = False,
    **changes: Any,
) -> results.Result:
    return write(
        folder,
        config(**changes),
        "As it is.",
        found,
        published,
        command="exda evaluate",
        device=CPU,
        overwrite=overwrite,
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_four_files(tmp_path: Path) -> None:
    written(tmp_path)
    assert tuple(contents(tmp_path)) == FILES
    result = results.read(tmp_path / "evaluate.json", "evaluate")
    assert result["seeds"] == [0]
    assert result["machine"]["torch"] == torch.__version__
    assert {"torchmetrics", "numpy", "pillow"} <= result["machine"].keys()
    assert result["machine"]["commit"]
    rain, noise, average = result["runs"]
    assert (rain["psnr"], rain["pictures"], rain["degraded_psnr"]) == (32, 2, 21)
    assert rain["ssim"] == pytest.approx(0.85)
    assert rain["published"] == {"psnr": 36.37, "ssim": 0.972}
    assert noise["published"] == {"psnr": 33.98, "ssim": 0.933}
    assert (average["psnr"], average["published"]) == (30.25, None)
    with (tmp_path / "evaluate.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["name"] for line in lines] == ["a, b", "c", "d"]
    assert [float(line["psnr"]) for line in lines] == [30, 34, 28.5]
    assert lines[1]["tile"] == "16"
    with Image.open(tmp_path / "evaluate.png") as image:
        image.load()
        assert min(image.size) > 100


def test_table(tmp_path: Path) -> None:
    result = written(tmp_path)
    head, rows = rows_of(result)
    assert head[2:4] == ["PSNR (dB)", "SSIM"]
    assert head[6:] == ["published PSNR (dB)", "published SSIM"]
    assert rows[0] == ["rain", "2", "32.00", "0.8500", "21.00", "0.6000", "36.37", "0.972"]
    assert rows[2][6:] == ["-", "-"]
    assert printed(result).row_count == 3
    text = (tmp_path / "evaluate.md").read_text()
    assert "| rain | 2 | 32.00 | 0.8500 | 21.00 | 0.6000 | 36.37 | 0.972 |" in text
    for said in (
        "prompt-ir-results.png",
        "1 of 3 pictures were restored in tiles",
        "As it is.",
        "Command: `exda evaluate`",
    ):
        assert said in text
    assert "not comparable" not in text
    written(tmp_path, protocol="moce-ir", overwrite=True)
    assert "measured here is moce-ir, published promptir" in (tmp_path / "evaluate.md").read_text()


def test_without_published_figures(tmp_path: Path) -> None:
    result = written(tmp_path, published=None)
    assert len(rows_of(result)[0]) == 6
    assert "ublished" not in (tmp_path / "evaluate.md").read_text()


def test_infinite_psnr(tmp_path: Path) -> None:
    equal = PictureResult("e", "rain", 32, 48, Score(math.inf, 1.0), Score(math.inf, 1.0), None)
    written(tmp_path, [*FOUND, equal])
    result = json.loads((tmp_path / "evaluate.json").read_text())
    assert result["runs"][0]["psnr"] == "inf"
    assert result["pictures"][3]["degraded_psnr"] == "inf"
    assert "| rain | 3 | inf | 0.9000 |" in (tmp_path / "evaluate.md").read_text()


@pytest.mark.parametrize("changes", [{"seed": 1}, {"protocol": "moce-ir"}])
def test_other_results_are_not_replaced(tmp_path: Path, changes: dict[str, Any]) -> None:
    written(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match=f"results of another {next(iter(changes))}.*--overwrite"):
        refuse_others(tmp_path, config(**changes))
    with pytest.raises(ConfigError, match="results of another"):
        written(tmp_path, **changes)
    assert contents(tmp_path) == before
    written(tmp_path, overwrite=True, **changes)
    assert contents(tmp_path)["evaluate.json"] != before["evaluate.json"]


def test_the_same_is_replaced(tmp_path: Path) -> None:
    written(tmp_path)
    written(tmp_path, FOUND[:2])
    assert len(results.read(tmp_path / "evaluate.json", "evaluate")["pictures"]) == 2


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"kind": "evaluate", "schema": 99}', "is of version 99"),
        ('{"kind": "digits", "schema": 1}', "of kind 'digits'"),
        ("{", "is no JSON"),
        ("[]", "is no result of this library"),
    ],
)
def test_files_of_something_else(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "evaluate.json").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        written(tmp_path)
    assert contents(tmp_path) == {"evaluate.json": text.encode()}
    written(tmp_path, overwrite=True)
    assert tuple(contents(tmp_path)) == FILES


@pytest.mark.parametrize("name", ["evaluate.csv", "evaluate.md", "evaluate.png"])
def test_files_without_a_result(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigError, match=f"{name} exists without evaluate.json"):
        written(tmp_path)
    assert contents(tmp_path) == {name: b"mine"}


def test_digest(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_digest(path) == {"file": "abc", "sha256": digest}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_can_be_written(tmp_path: Path, name: str) -> None:
    written(tmp_path, protocol=name)
    found = results.read(tmp_path / "evaluate.json", "evaluate")
    assert found["config"] == config(name)
