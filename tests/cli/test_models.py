"""``exda models``."""

from itertools import pairwise

import pytest
from typer.testing import CliRunner

from exda_primitives.cli import app


@pytest.fixture
def listed(tmp_path, monkeypatch):
    monkeypatch.setenv("EXDA_HOME", str(tmp_path))
    return lambda *arguments: CliRunner().invoke(app, ["models", *arguments], env={"COLUMNS": "140"})


def test_all_checkpoints_are_listed(listed, tmp_path):
    (tmp_path / "promptir.ckpt").write_bytes(b"")
    lines = listed().output.splitlines()
    names = [name for name, more in pairwise(lines) if more.startswith("    ")]
    assert len(names) == 23
    assert [name for name in names if name.endswith(" (here)")] == ["promptir (here)"]
    said = "    rain; restormer, 26.13 M parameters; deraining.pth; licence: Academic Public License"
    assert (lines[0], lines[1].startswith(said)) == ("restormer-deraining", True)
    assert str(tmp_path) in lines[-1]


def test_a_single_checkpoint_is_shown_with_address_and_licence(listed):
    output = listed("*deraining").output
    assert "https://drive.google.com/" in output
    assert "licence: Academic" in output


def test_an_unknown_checkpoint_is_refused(listed):
    result = listed("*nothing*")
    assert result.exit_code == 2
    assert "no published checkpoint is called" in result.output
