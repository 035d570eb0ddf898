"""The folder of a run: when it cannot be written, when another run is there, when it has moved."""

import errno
import resource
from contextlib import contextmanager

import pytest
import torch
from filelock import FileLock
from tests.workbench.training.runs import PowerError, checkpoint, config, files_in, final_state, run, same

import exda_primitives as exda
from exda_primitives.errors import WriteError
from exda_primitives.workbench.training import prepare, train


@contextmanager
def files_up_to(size):
    """Lets the system refuse larger files while they are written, as a full disk does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_fills_up(tmp_path):
    """It fills up while a checkpoint is written: the last good one stays, and the run resumes from it."""
    configuration, out = config(tmp_path), tmp_path / "out"
    run(configuration, tmp_path / "whole")
    with pytest.raises(PowerError):
        run(configuration, out, stop=3)
    before = (out / "last.ckpt").read_bytes()
    with files_up_to(len(before) // 2), pytest.raises(WriteError, match="File too large") as caught:
        run(configuration, out)
    assert f"{out} holds the checkpoint of step 2. Once that is fixed, the same command goes on." in str(caught.value)
    assert (out / "last.ckpt").read_bytes() == before
    assert files_in(out) == ["last.ckpt", "weights.safetensors"]
    run(configuration, out)
    assert same(final_state(out), final_state(tmp_path / "whole"))


def test_a_disk_that_is_full_from_the_first_save(tmp_path):
    configuration, out = config(tmp_path), tmp_path / "out"
    with files_up_to(1000), pytest.raises(WriteError, match=r"out holds no checkpoint yet\."):
        run(configuration, out)
    assert files_in(out) == []
    assert run(configuration, out)["runs"][0]["legs"][0]["after_step"] == 0


@pytest.mark.parametrize("write", ["write_network", "draw", "results.write"])
def test_a_disk_that_is_full_after_the_checkpoint(tmp_path, monkeypatch, write):
    """The checkpoint is kept although the files that are made from it cannot be written."""
    configuration, out = config(tmp_path), tmp_path / "out"

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(f"exda_primitives.workbench.training.run.{write}", full)
        with pytest.raises(
            WriteError, match=r"cannot be written to \(No space left on device\)\. .* the checkpoint of"
        ):
            run(configuration, out)
    assert checkpoint(out)["step"] == (2 if write == "write_network" else 5)
    run(configuration, out)
    assert files_in(out) == ["last.ckpt", "result.json", "weights.safetensors"]


def test_a_second_run_in_the_same_folder_is_refused(tmp_path):
    configuration, out = config(tmp_path), tmp_path / "out"
    tried = []

    def on_step(state):
        with pytest.raises(exda.ConfigError, match=r"out: another run is at work there\. Wait for it, or give another"):
            run(configuration, out)
        tried.append(state.step)

    train(prepare(configuration, out, accelerator="cpu"), on_step=on_step)
    assert len(tried) == 5
    with FileLock(out / ".lock", timeout=0):
        assert checkpoint(out)["step"] == 5


def test_a_file_system_without_locks(tmp_path, monkeypatch):
    def refuse(lock):
        raise NotImplementedError

    monkeypatch.setattr("exda_primitives.workbench.training.folder.FileLock.acquire", refuse)
    assert run(config(tmp_path), tmp_path / "out")["runs"][0]["steps"] == 5


def test_partly_written_files_are_removed(tmp_path):
    configuration, out = config(tmp_path), tmp_path / "out"
    out.mkdir()
    for name in ("last.ckpt", "weights.safetensors"):
        (out / f".{name}.12345.partial").write_bytes(b"half of one")
    (out / ".mine.partial").write_bytes(b"")
    run(configuration, out)
    assert files_in(out) == [".mine.partial", "last.ckpt", "result.json", "weights.safetensors"]


def test_folders_that_are_links(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to("there")
    run(config(tmp_path), tmp_path / "link")
    assert files_in(tmp_path / "there") == ["last.ckpt", "result.json", "weights.safetensors"]
    (tmp_path / "nowhere").symlink_to("gone")
    with pytest.raises(exda.ConfigError, match=r"nowhere: cannot hold results"):
        run(config(tmp_path), tmp_path / "nowhere")


def test_a_run_resumes_in_a_moved_folder(tmp_path):
    configuration = config(tmp_path)
    run(configuration, tmp_path / "whole")
    with pytest.raises(PowerError):
        run(configuration, tmp_path / "one", stop=3)
    (tmp_path / "one").rename(tmp_path / "other")
    run(configuration, tmp_path / "other")
    assert same(final_state(tmp_path / "other"), final_state(tmp_path / "whole"))


def test_a_checkpoint_of_an_earlier_version_of_this_library(tmp_path, capsys):
    """Such a checkpoint has neither a stamp of the images nor one of the file that the run started from."""
    configuration, out = config(tmp_path), tmp_path / "out"
    with pytest.raises(PowerError):
        run(configuration, out, stop=3)
    saved = checkpoint(out)
    del saved["legs"][0]["pictures"]
    torch.save(saved, out / "last.ckpt")
    run(configuration, out)
    assert "goes on after step 2, bit for bit" in capsys.readouterr().out
