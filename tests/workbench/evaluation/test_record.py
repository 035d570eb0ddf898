"""Result files of an evaluation, and the files that they never replace."""

import csv
import json
import math
import os
import re
import zlib
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from exda_primitives.errors import ConfigError
from exda_primitives.workbench.evaluation import PROTOCOLS, PUBLISHED, ImageResult, Published, Score
from exda_primitives.workbench.evaluation.record import Record, configuration, file_digest, refuse_others
from exda_primitives.workbench.evaluation.table import printed, rows_of
from exda_primitives.workbench.shared import results

CPU = torch.device("cpu")
FILES = ("evaluate.csv", "evaluate.json", "evaluate.md", "evaluate.png")
FOUND = [
    ImageResult("a, b", "rain", 32, 48, Score(30.0, 0.9), Score(20.0, 0.5), None),
    ImageResult("c", "rain", 32, 48, Score(34.0, 0.8), Score(22.0, 0.7), 16),
    ImageResult("d", "noise15", 32, 48, Score(28.5, 0.7), Score(24.0, 0.6), None),
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


def record(
    folder: Path,
    published: Published | None = PUBLISHED[0],
    *,
    total: int = 3,
    overwrite: bool = False,
    command: str = "exda evaluate",
    **changes: Any,
) -> Record:
    return Record(
        folder,
        config(**changes),
        "As it is.",
        total,
        published,
        command=command,
        device=CPU,
        overwrite=overwrite,
    )


def write_results(
    folder: Path, found: list[ImageResult] = FOUND, published: Published | None = PUBLISHED[0], **options: Any
) -> results.Result:
    with record(folder, published, total=len(found), **options) as made:
        for each in found:
            made.add(each)
        return made.finish()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_finished_evaluation_writes_four_files(tmp_path: Path) -> None:
    write_results(tmp_path)
    assert tuple(contents(tmp_path)) == FILES
    result = results.read(tmp_path / "evaluate.json", "evaluate")
    assert result["seeds"] == [0]
    assert result["machine"]["torch"] == torch.__version__
    assert result["config"]["versions"].keys() == {"torchmetrics", "numpy", "pillow"}
    assert result["missing"] == 0
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
    result = write_results(tmp_path)
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
        "1 of 3 images were restored in tiles",
        "As it is.",
        "Command: `exda evaluate`",
    ):
        assert said in text
    assert "not comparable" not in text
    write_results(tmp_path, protocol="moce-ir", overwrite=True)
    assert "measured here is moce-ir, published promptir" in (tmp_path / "evaluate.md").read_text()


def test_without_published_figures(tmp_path: Path) -> None:
    result = write_results(tmp_path, published=None)
    assert len(rows_of(result)[0]) == 6
    assert "ublished" not in (tmp_path / "evaluate.md").read_text()


def test_infinite_psnr(tmp_path: Path) -> None:
    equal = ImageResult("e", "rain", 32, 48, Score(math.inf, 1.0), Score(math.inf, 1.0), None)
    write_results(tmp_path, [*FOUND, equal])
    result = json.loads((tmp_path / "evaluate.json").read_text())
    assert result["runs"][0]["psnr"] == "inf"
    assert result["pictures"][3]["degraded_psnr"] == "inf"
    assert "| rain | 3 | inf | 0.9000 |" in (tmp_path / "evaluate.md").read_text()


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    made = record(tmp_path)
    with made:
        made.add(FOUND[0])
    before = contents(tmp_path)
    made.add(FOUND[1])
    # The temporary file of the atomic write, as a link to a device that is always full.
    partial = f".evaluate.json.{zlib.crc32(b'evaluate.json'):08x}.{os.getpid()}.partial"
    (tmp_path / partial).symlink_to("/dev/full")
    with pytest.raises(OSError, match=r"No space left on device: .*evaluate\.json'"):
        made.finish()
    assert contents(tmp_path) == before


@pytest.mark.parametrize("changes", [{"seed": 1}, {"protocol": "moce-ir"}])
def test_other_results_are_not_replaced(tmp_path: Path, changes: dict[str, Any]) -> None:
    write_results(tmp_path)
    before = contents(tmp_path)
    with pytest.raises(ConfigError, match=f"results of another {next(iter(changes))}.*--overwrite"):
        refuse_others(tmp_path, config(**changes))
    with pytest.raises(ConfigError, match="results of another"):
        write_results(tmp_path, **changes)
    assert contents(tmp_path) == before
    write_results(tmp_path, overwrite=True, **changes)
    assert contents(tmp_path)["evaluate.json"] != before["evaluate.json"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError, SystemExit])
def test_results_survive_an_interruption(tmp_path: Path, error: type[BaseException]) -> None:
    def interrupted(made: Record) -> None:
        with made:
            made.add(FOUND[0])
            raise error

    with pytest.raises(error):
        interrupted(record(tmp_path))
    assert tuple(contents(tmp_path)) == ("evaluate.json",)
    saved = results.read(tmp_path / "evaluate.json", "evaluate")
    assert (saved["missing"], len(saved["pictures"]), saved["runs"][0]["psnr"]) == (2, 1, 30)
    with record(tmp_path, command="exda evaluate again") as made:
        assert made.found == FOUND[:1]
        for each in FOUND[1:]:
            made.add(each)
        found = made.finish()
    assert found["command"] == "exda evaluate; exda evaluate again"
    at_once = write_results(tmp_path / "at once")
    assert {**found, "command": ""} == {**at_once, "command": ""}


def test_results_are_written_every_few_seconds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = record(tmp_path)
    made.add(FOUND[0])
    assert not contents(tmp_path)
    monkeypatch.setattr(Record, "EVERY", 0)
    made.add(FOUND[1])
    assert len(results.read(tmp_path / "evaluate.json", "evaluate")["pictures"]) == 2


def test_finished_images_are_not_evaluated_again(tmp_path: Path) -> None:
    write_results(tmp_path)
    before = contents(tmp_path)
    with record(tmp_path) as made:
        assert made.found == FOUND
    assert contents(tmp_path) == before
    with record(tmp_path, overwrite=True) as made:
        assert made.found == []


def test_infinite_figures_are_resumed(tmp_path: Path) -> None:
    equal = ImageResult("e", "rain", 32, 48, Score(math.inf, 1.0), Score(math.inf, 1.0), None)
    with record(tmp_path) as made:
        made.add(equal)
    assert record(tmp_path).found == [equal]


def test_results_of_another_machine_are_not_resumed(tmp_path: Path) -> None:
    with record(tmp_path) as made:
        made.add(FOUND[0])
    path = tmp_path / "evaluate.json"
    path.write_text(path.read_text().replace(torch.__version__, "1.0"))
    with pytest.raises(ConfigError, match=r"another machine \(torch '1.0'"):
        record(tmp_path)


@pytest.mark.parametrize("damage", [{"pictures": 3}, {"pictures": [{"name": "a"}]}, {"pictures": None}])
def test_damaged_results_are_not_resumed(tmp_path: Path, damage: dict[str, Any]) -> None:
    saved = write_results(tmp_path)
    (tmp_path / "evaluate.json").write_text(json.dumps(saved | damage))
    with pytest.raises(ConfigError, match=r"is damaged .*--overwrite"):
        record(tmp_path)


def test_names_that_are_no_text(tmp_path: Path) -> None:
    odd = ImageResult("a\udcff\nb", "rain", 32, 48, Score(30.0, 0.9), Score(20.0, 0.5), None)
    write_results(tmp_path, [odd], command="exda evaluate b\udcff")
    assert results.read(tmp_path / "evaluate.json", "evaluate")["pictures"][0]["name"] == odd.name
    assert "a\\udcff\nb" in (tmp_path / "evaluate.csv").read_text()
    assert "b\\udcff" in (tmp_path / "evaluate.md").read_text()


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('{"kind": "evaluate", "schema": 99}', "is of version 99"),
        ('{"kind": "digits", "schema": 1}', "of kind 'digits'"),
        ("{", "is no JSON"),
        ("[]", "is no result of this library"),
    ],
)
def test_files_of_something_else_are_kept_unless_overwritten(tmp_path: Path, text: str, complaint: str) -> None:
    (tmp_path / "evaluate.json").write_text(text)
    with pytest.raises(ConfigError, match=re.escape(complaint)):
        write_results(tmp_path)
    assert contents(tmp_path) == {"evaluate.json": text.encode()}
    write_results(tmp_path, overwrite=True)
    assert tuple(contents(tmp_path)) == FILES


@pytest.mark.parametrize("name", ["evaluate.csv", "evaluate.md", "evaluate.png"])
def test_files_without_a_result_are_kept(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(ConfigError, match=f"{name} exists without evaluate.json"):
        write_results(tmp_path)
    assert contents(tmp_path) == {name: b"mine"}


def test_the_digest_of_a_file_is_its_sha256(tmp_path: Path) -> None:
    path = tmp_path / "abc"
    path.write_bytes(b"abc")
    # An example of FIPS 180-2.
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_digest(path) == {"file": "abc", "sha256": digest}


@pytest.mark.parametrize("name", PROTOCOLS)
def test_every_protocol_can_be_written(tmp_path: Path, name: str) -> None:
    write_results(tmp_path, protocol=name)
    found = results.read(tmp_path / "evaluate.json", "evaluate")
    assert found["config"] == config(name)
