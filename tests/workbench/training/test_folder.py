"""The folder of a run: when it cannot be written, when another run is there, when it has moved."""

import errno
import resource
from contextlib import contextmanager

import pytest
import torch
from filelock import FileLock
from tests.workbench.training.runs import PowerError, checkpoint, config, everything, left_in, run, same

import exda_primitives as exda
from exda_primitives.errors import WriteError
from exda_primitives.workbench.training import prepare, train


@contextmanager
def files_up_to(size):
    """The system refuses larger ones, in the midst of writing, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up(tmp_path):
    """In the midst of a checkpoint: the last good one stays, and the run goes on from it."""
    told, out = config(tmp_path), tmp_path / "out"
    run(told, tmp_path / "whole")
    with pytest.raises(PowerError):
        run(told, out, stop=3)
    before = (out / "last.ckpt").read_bytes()
    with files_up_to(len(before) // 2), pytest.raises(WriteError, match="File too large") as caught:
        run(told, out)
    assert f"{out} holds the checkpoint of step 2. Once that is mended, the same command goes on." in str(caught.value)
    assert (out / "last.ckpt").read_bytes() == before
    assert left_in(out) == ["last.ckpt", "weights.safetensors"]
    run(told, out)
    assert same(everything(out), everything(tmp_path / "whole"))


def test_a_disk_that_is_full_from_the_first_save(tmp_path):
    told, out = config(tmp_path), tmp_path / "out"
    with files_up_to(1000), pytest.raises(WriteError, match=r"out holds no checkpoint yet\."):
        run(told, out)
    assert left_in(out) == []
    assert run(told, out)["runs"][0]["legs"][0]["after_step"] == 0


@pytest.mark.parametrize("write", ["write_network", "draw", "results.write"])
def test_a_disk_that_is_full_behind_the_checkpoint(tmp_path, monkeypatch, write):
    """The resume is not lost with what is made of it."""
    told, out = config(tmp_path), tmp_path / "out"

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(f"exda_primitives.workbench.training.run.{write}", full)
        with pytest.raises(
            WriteError, match=r"cannot be written to \(No space left on device\)\. .* the checkpoint of"
        ):
            run(told, out)
    assert checkpoint(out)["step"] == (2 if write == "write_network" else 5)
    run(told, out)
    assert left_in(out) == ["last.ckpt", "result.json", "weights.safetensors"]


def test_two_runs_in_one_folder(tmp_path):
    told, out = config(tmp_path), tmp_path / "out"
    tried = []

    def on_step(state):
        with pytest.raises(exda.ConfigError, match=r"out: another run is at work there\. Wait for it, or give another"):
            run(told, out)
        tried.append(state.step)

    train(prepare(told, out, accelerator="cpu"), on_step=on_step)
    assert len(tried) == 5
    with FileLock(out / ".lock", timeout=0):
        assert checkpoint(out)["step"] == 5


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def refuse(lock):
        raise NotImplementedError

    monkeypatch.setattr("exda_primitives.workbench.training.folder.FileLock.acquire", refuse)
    assert run(config(tmp_path), tmp_path / "out")["runs"][0]["steps"] == 5


def test_what_was_left_half_written_is_removed(tmp_path):
    told, out = config(tmp_path), tmp_path / "out"
    out.mkdir()
    for name in ("last.ckpt", "weights.safetensors"):
        (out / f".{name}.12345.partial").write_bytes(b"half of one")
    (out / ".mine.partial").write_bytes(b"")
    run(told, out)
    assert left_in(out) == [".mine.partial", "last.ckpt", "result.json", "weights.safetensors"]


def test_folders_that_are_links(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    run(config(tmp_path), tmp_path / "link")
    assert left_in(tmp_path / "there") == ["last.ckpt", "result.json", "weights.safetensors"]
    (tmp_path / "nowhere").symlink_to("gone")
    with pytest.raises(exda.ConfigError, match=r"nowhere: cannot hold results"):
        run(config(tmp_path), tmp_path / "nowhere")


def test_a_moved_folder_goes_on(tmp_path):
    told = config(tmp_path)
    run(told, tmp_path / "whole")
    with pytest.raises(PowerError):
        run(told, tmp_path / "one", stop=3)
    (tmp_path / "one").rename(tmp_path / "other")
    run(told, tmp_path / "other")
    assert same(everything(tmp_path / "other"), everything(tmp_path / "whole"))


def test_a_checkpoint_of_an_earlier_version_of_this_library(tmp_path, capsys):
    """It knows neither the images' stamp nor the file that it began with."""
    told, out = config(tmp_path), tmp_path / "out"
    with pytest.raises(PowerError):
        run(told, out, stop=3)
    held = checkpoint(out)
    del held["legs"][0]["pictures"]
    torch.save(held, out / "last.ckpt")
    run(told, out)
    assert "goes on after step 2, bit for bit" in capsys.readouterr().out
