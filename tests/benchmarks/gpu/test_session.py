"""A stage that fails, crashes or hangs does not stop the next one."""

from __future__ import annotations

import signal
import sys
from pathlib import Path

import pytest
from benchmarks.gpu.plan import Stage
from benchmarks.gpu.rows import FILE, Row, read
from benchmarks.gpu.session import LOG, Session

from benchmarks.gpu import session

# The process of a stage: its name says what it does.
PROCESS = """
import json, os, signal, sys, time
name, out = sys.argv[2], sys.argv[sys.argv.index("--out") + 1]
print("this is", name, "within", round(float(sys.argv[sys.argv.index("--end") + 1]) - time.monotonic()), flush=True)
def write(kind):
    with open(os.path.join(out, "results.jsonl"), "a") as file:
        file.write(json.dumps({"stage": sys.argv[sys.argv.index("--named") + 1], "kind": kind}) + chr(10))
write("begun")
if name == "crash":
    os.kill(os.getpid(), signal.SIGSEGV)
if name == "fail":
    sys.exit(3)
if name == "hang":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(60)
if name == "leave":
    with open(os.path.join(out, "results.jsonl"), "a") as file:
        file.write('{"stage": "leave", "kin')
    sys.exit(1)
"""


def run(folder: Path, *stages: Stage, seconds: float = 60.0) -> tuple[bool, list[Row]]:
    done = Session(stages, seconds, folder, (sys.executable, "-c", PROCESS)).run()
    return done, read(folder / FILE)


def stage(name: str, most: float = 30.0, **more: object) -> Stage:
    return Stage(name, 1.0, most, (name,), **more)  # type: ignore[arg-type]


@pytest.fixture(autouse=True)
def short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "_GRACE", 0.2)


def test_stages_run_in_order_and_write_their_rows(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done, rows = run(tmp_path / "new", stage("one"), Stage("two", 1, 30, ("left --option", "right")))
    assert done
    assert [(row["stage"], row["kind"], row.get("fate")) for row in rows if row["stage"] in ("one", "two")] == [
        ("one", "begun", None),
        ("one", "stage", "done"),
        ("two", "stage", "done"),
    ]
    # Processes that run at the same time have names of their own.
    assert {row["stage"] for row in rows} == {"one", "two", "left", "right"}
    assert "this is one within 30\n" in (tmp_path / "new" / LOG).read_text()
    printed = capsys.readouterr().out
    assert "-- one, at 0 s, for 30 s at most\none: begun" in printed
    assert "one: stage fate done" in printed


@pytest.mark.parametrize(
    ("name", "fate", "status"),
    [("crash", "failed", [-11]), ("fail", "failed", [3]), ("hang", "timed out", [-9]), ("leave", "failed", [1])],
)
def test_a_failing_stage_does_not_stop_the_next(tmp_path: Path, name: str, fate: str, status: list[int]) -> None:
    done, rows = run(tmp_path, stage(name, most=2.0 if name == "hang" else 30.0), stage("next"))
    assert not done
    fates = {row["stage"]: row for row in rows if row["kind"] == "stage"}
    assert (fates[name]["fate"], fates[name]["exit_status"]) == (fate, status)
    assert f"this is {name}" in fates[name]["said"]
    assert fates["next"]["fate"] == "done"
    assert len([row for row in rows if row["kind"] == "unreadable"]) == (name == "leave")


def test_several_that_hang_are_ended_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[tuple[int, int]] = []
    kill = session._kill
    monkeypatch.setattr(session, "_kill", lambda late, sent: (killed.append((len(late), sent)), kill(late, sent)))
    _, rows = run(tmp_path, Stage("all", 1, 2.0, ("hang", "fine", *["hang"] * 3)))
    # The four that hang get both signals; in the end the process groups of all five are killed.
    assert killed == [(4, signal.SIGTERM), (4, signal.SIGKILL), (5, signal.SIGKILL)]
    (fate,) = [row for row in rows if row["kind"] == "stage"]
    assert (fate["fate"], fate["exit_status"]) == ("timed out", [-9, 0, -9, -9, -9])


def test_a_stage_without_enough_time_left_is_skipped(tmp_path: Path) -> None:
    done, rows = run(tmp_path, Stage("long", 5, 30, ("long",)), stage("short"), seconds=4.0)
    assert not done
    assert [(row["stage"], row.get("fate")) for row in rows] == [
        ("long", "skipped"),
        ("short", None),
        ("short", "done"),
    ]
    assert "this is short within 4\n" in (tmp_path / LOG).read_text()


def test_a_missing_program_fails_only_its_stage(tmp_path: Path) -> None:
    _, rows = run(tmp_path, stage("under", under="compute-sanitizer-of-nobody --tool memcheck"), stage("next"))
    first, *_, last = rows
    assert first["fate"] == "failed"
    assert "compute-sanitizer-of-nobody" in first["exit_status"][0]
    assert last["fate"] == "done"


def test_rows_are_appended_to_an_existing_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, stage("one"))
    capsys.readouterr()
    _, rows = run(tmp_path, stage("two", environment={"A": "B"}))
    assert [row["stage"] for row in rows] == ["one", "one", "two", "two"]
    assert "one:" not in capsys.readouterr().out
