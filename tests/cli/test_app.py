"""The command line as a whole: what it starts with, where it prints to, and how it ends."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

import exda_primitives
from exda_primitives.cli import app
from exda_primitives.cli.errors import PlainErrorGroup
from exda_primitives.errors import ConfigError

COMMANDS = ["bench", "demo", "diagnose", "evaluate", "export", "info", "inspect", "plan", "restore", "train"]
ASK = """
import sys
from exda_primitives.cli import app
for arguments in ([], *([name] for name in {commands}), ["bench", "run"], ["diagnose", "digits"]):
    try:
        app([*arguments, "--help"])
    except SystemExit as done:
        assert done.code == 0
heavy = {{"torch", "numpy", "PIL", "matplotlib", "lightning", "lightning_fabric", "timm"}}
print("loaded", sorted(heavy & sys.modules.keys()))
"""


def exda(*arguments: str, stdout: object = subprocess.PIPE, env: dict[str, str] | None = None) -> tuple[int, str, str]:
    """Runs exda in a process of its own; returns its exit code, output and errors."""
    command = [sys.executable, "-c", "from exda_primitives.cli import app; app()", *arguments]
    own = os.environ | {"OMP_NUM_THREADS": "1"} | (env or {})
    done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, env=own, check=False)
    return done.returncode, (done.stdout or b"").decode(errors="replace"), done.stderr.decode(errors="replace")


def test_help_needs_nothing_heavy() -> None:
    code = ASK.format(commands=COMMANDS)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded []"
    for command in COMMANDS:
        assert f" {command} " in done.stdout


def test_version() -> None:
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output) == (0, f"exda_primitives {exda_primitives.__version__}\n")


@pytest.mark.parametrize("arguments", [["--help"], ["--version"]])
def test_output_to_a_full_device_is_a_plain_error(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        code, _, errors = exda(*arguments, stdout=full)
    assert (code, errors) == (1, "error: No space left on device\n")


def test_a_closed_pipe_ends_without_a_message() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    code, _, errors = exda("--help", stdout=writing)
    os.close(writing)
    assert (code, errors) == (1, "")


def test_no_file_takes_the_place_of_a_closed_stream() -> None:
    script = (
        "import os, sys; os.close(1); os.close(2); from exda_primitives.cli import app\n"
        "try: app(['--version'])\n"
        "except SystemExit as done: assert done.code == 0\n"
        "os._exit(0 if os.open('.', os.O_RDONLY) > 2 else 3)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_an_ascii_terminal_gets_escaped_names() -> None:
    code, _, errors = exda("info", "d\u00e4mo\udcff.pth", env={"PYTHONIOENCODING": "ascii", "LC_ALL": "C"})
    assert (code, errors) == (1, "error: d\\xe4mo\\udcff.pth: does not exist.\n")


def test_an_empty_environment_is_enough() -> None:
    """As under cron, without HOME, PATH or TERM."""
    command = ["env", "-i", sys.executable, "-c", "from exda_primitives.cli import app; app()", "plan", "demo"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "already patched: 8" in done.stdout


@pytest.fixture
def failing() -> typer.Typer:
    """A command that raises the error of `ERRORS` with the given name."""
    made = typer.Typer(cls=PlainErrorGroup)

    @made.callback()
    def _group() -> None:
        pass

    @made.command()
    def fail(name: str) -> None:
        raise ERRORS[name][0]

    return made


ERRORS = {
    "full": (OSError(28, "No space left on device", "out/1.png"), 1, "error: out/1.png: No space left on device"),
    "nameless": (OSError(28, "No space left on device"), 1, "error: No space left on device"),
    "permission": (PermissionError(13, "Permission denied", "a\nb"), 1, "error: a\nb: Permission denied"),
    "text": (OSError("a message"), 1, "error: a message"),
    "ours": (ConfigError("what was \x1b[31mfound"), 1, "error: what was \\x1b[31mfound"),
    "interruption": (KeyboardInterrupt(), 130, "interrupted"),
    "memory": (MemoryError(), 1, "error: not enough memory"),
    "allocator": (
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried\nmore"),
        1,
        "error: not enough memory (DefaultCPUAllocator: can't allocate memory: you tried)",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_an_error_is_a_plain_line(name: str, failing: typer.Typer) -> None:
    _, code, line = ERRORS[name]
    result = CliRunner().invoke(failing, ["fail", name])
    assert (result.exit_code, result.output) == (code, f"{line}\n")


def test_a_fault_of_the_program_keeps_its_traceback(failing: typer.Typer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ERRORS, "fault", (RuntimeError("a fault"), 1, ""))
    result = CliRunner().invoke(failing, ["fail", "fault"])
    assert isinstance(result.exception, RuntimeError)


@pytest.mark.parametrize("arguments", [["info", "~/none.pth"], ["info", "demo", "--adapter=~/none.pth"]])
def test_a_quoted_tilde_is_the_home_folder(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    assert f"{tmp_path}/none.pth" in result.output


def test_every_command_keeps_the_memory_that_it_frees(monkeypatch):
    calls = []
    monkeypatch.setattr(exda_primitives.memory, "keep", lambda: calls.append("keep"))
    assert CliRunner().invoke(app, ["plan", "--help"]).exit_code == 0
    assert calls == ["keep"]
