"""exda demo: the report, the image, and outputs that are refused."""

from pathlib import Path

import pytest
from PIL import Image
from typer.testing import CliRunner

from exda_primitives.cli import app


def test_demo_prints_the_report_and_writes_the_image(tmp_path: Path) -> None:
    out, own = tmp_path / "image.png", tmp_path / "own.jpg"
    Image.effect_noise((200, 150), 60).convert("RGB").save(own)
    result = CliRunner().invoke(app, ["demo", "--out", str(out), "--image", str(own)], env={"COLUMNS": "160"})
    assert result.exit_code == 0, result.output
    assert "8 attentions replaced" in result.output
    assert "computes what it computed before: max |difference| =" in result.output
    assert "PSNR (dB)" in result.output
    assert "the same output to the last bit: yes" in result.output
    assert "with fused blocks" in result.output
    assert out.read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("out", ["image.txt", "no/such/folder/image.png"])
def test_demo_refuses_an_output_before_it_starts(out: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["demo", "--out", str(tmp_path / out)])
    assert result.exit_code == 2
    assert "--out" in result.output
    assert list(tmp_path.iterdir()) == []


def test_without_a_command_the_commands_are_listed() -> None:
    result = CliRunner().invoke(app, [])
    assert "demo" in result.output
