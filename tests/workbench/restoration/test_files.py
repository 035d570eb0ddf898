"""Restoring many files: their order, where results go, and that a bad image does not stop the others."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.workbench.restoration.images import claiming, pixels, save, stored
from torch import Tensor, nn

from exda_primitives.errors import ConfigError, ImageError
from exda_primitives.workbench.restoration import Restorer
from exda_primitives.workbench.restoration.files import (
    HIDDEN,
    NO_FILE,
    NOT_AN_IMAGE,
    RESULTS,
    Done,
    Job,
    Skipped,
    restore_files,
    work_for,
)


class Negative(nn.Conv2d):
    def __init__(self) -> None:
        super().__init__(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        if x.shape[1] != 3:
            raise RuntimeError("three channels")
        return 1 - x


def test_a_folder_in_natural_order(tmp_path: Path) -> None:
    names = ["b/10.png", "b/9.jpg", "a2.TIF", "a10.png", "A3.webp"]
    for name in [*names, "notes.txt", "b/x.gif", "raw.dng"]:
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).touch()
    found = work_for(tmp_path / "in", tmp_path / "out")
    order = ["a2.TIF", "A3.webp", "a10.png", "b/9.jpg", "b/10.png"]
    assert found.jobs == [Job(tmp_path / "in" / name, tmp_path / "out" / name) for name in order]
    assert found.left_out == {NOT_AN_IMAGE: ["b/x.gif", "notes.txt", "raw.dng"]}


def test_names_with_unusual_digits_have_an_order_too(tmp_path: Path) -> None:
    names = ["01.png", "1.png", "1²2.png", "\u0663.png"]
    for name in names:
        (tmp_path / name).touch()
    found = [job.source.name for job in work_for(tmp_path, tmp_path / "out").jobs]
    assert sorted(found) == sorted(names)
    assert found.index("01.png") < found.index("1.png") < found.index("\u0663.png")


def test_files_left_out_are_listed_by_reason(tmp_path: Path) -> None:
    for name in ("1.png", "._1.png", ".DS_Store", ".thumbnails/1.png", "sub/.2.jpg", "raw.heic", "out/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to("nowhere")
    found = work_for(tmp_path, tmp_path / "out")
    # A link that leads nowhere stays a job, so that its missing image is reported.
    assert [job.source.name for job in found.jobs] == ["1.png", "gone.png"]
    assert found.left_out == {
        HIDDEN: ["._1.png", ".DS_Store", ".thumbnails", "sub/.2.jpg"],
        NOT_AN_IMAGE: ["raw.heic"],
        NO_FILE: ["pipe.png"],
        RESULTS: ["out"],
    }


def test_images_behind_links_are_found_and_cycles_end(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/1.png").touch()
    (tmp_path / "in/sub").mkdir(parents=True)
    (tmp_path / "in/link").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "in/sub/up").symlink_to("..")
    found = work_for(tmp_path / "in", tmp_path / "out")
    assert found.jobs == [Job(tmp_path / "in/link/1.png", tmp_path / "out/link/1.png")]


def test_a_folder_that_cannot_be_read_is_skipped_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("1.png", "private/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    listed = Path.iterdir

    def refused(self: Path) -> object:
        # Raised here, since permissions do not stop a superuser who runs the tests.
        if self.name == "private":
            raise PermissionError(13, "Permission denied", str(self))
        return listed(self)

    monkeypatch.setattr(Path, "iterdir", refused)
    found = work_for(tmp_path, tmp_path / "out")
    assert [job.source.name for job in found.jobs] == ["1.png"]
    assert [(skipped.job.source.name, skipped.reason) for skipped in found.skipped] == [
        ("private", "Permission denied")
    ]


def test_results_inside_the_input_folder_are_not_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("1.png", "out/1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert work_for(tmp_path, tmp_path / "out").jobs == [Job(tmp_path / "1.png", tmp_path / "out/1.png")]
    monkeypatch.chdir(tmp_path)
    assert work_for(Path(), tmp_path / "out").jobs == [Job(Path("1.png"), tmp_path / "out/1.png")]
    assert [job.source.name for job in work_for(tmp_path, tmp_path).jobs] == ["1.png", "1.png"]


def test_a_file_into_a_file_or_a_folder(tmp_path: Path) -> None:
    (tmp_path / "1.png").touch()
    source = tmp_path / "1.png"
    assert work_for(source, tmp_path / "2.tif").jobs == [Job(source, tmp_path / "2.tif")]
    (tmp_path / "out").mkdir()
    assert work_for(source, tmp_path / "out").jobs == [Job(source, tmp_path / "out/1.png")]
    # A single file is restored whatever its name.
    hidden = source.rename(tmp_path / "._1.png")
    assert work_for(hidden, tmp_path / "2.tif").jobs == [Job(hidden, tmp_path / "2.tif")]


def test_inputs_and_outputs_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    (tmp_path / "1.png").touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts/a.txt").touch()
    for source, target, message in (
        ("none.png", "2.png", "does not exist"),
        ("1.png", "2", "must end in"),
        ("empty", "1.png", "give a folder"),
        ("empty", "out", "no image .* It holds no file"),
        ("texts", "out", r"Left out are files of these kinds: not named as an image .*: a\.txt"),
    ):
        with pytest.raises(ImageError, match=message):
            work_for(tmp_path / source, tmp_path / target)
    with pytest.raises(ImageError, match="/dev/zero is no regular file"):
        work_for(Path("/dev/zero"), tmp_path / "2.png")


@pytest.mark.parametrize("target", ["1.png/out.png", "1.png/sub/out.png", "link/out.png"])
def test_an_output_below_a_file_is_refused_before_the_work(target: str, tmp_path: Path) -> None:
    (tmp_path / "1.png").touch()
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(ConfigError, match=r"cannot hold results: .* is a file"):
        work_for(tmp_path / "1.png", tmp_path / target)
    with pytest.raises(ConfigError, match=r"cannot hold results: .* is a file"):
        work_for(tmp_path, tmp_path / target)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    save(pixels(), folder / "1.png")
    save(pixels(bits=16), folder / "2.tif")
    cut = save(pixels(), folder / "3.png")
    cut.write_bytes(cut.read_bytes()[:900])
    (folder / "4.png").mkdir()
    (folder / "5.png").write_bytes(claiming(100_000, 100_000))
    save(pixels(), folder / "6.png")
    return folder


def run(folder: Path, out: Path, **options: bool) -> dict[str, Done | Skipped]:
    options = {"overwrite": False} | options
    return {r.job.source.name: r for r in restore_files(Restorer(Negative()), work_for(folder, out).jobs, **options)}


def test_a_bad_image_does_not_stop_the_others(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    results = run(folder, out)
    assert [name for name, result in results.items() if isinstance(result, Done)] == ["1.png", "2.tif", "6.png"]
    assert isinstance(results["3.png"], Skipped)
    assert "cut short" in results["3.png"].reason
    assert isinstance(results["5.png"], Skipped)
    assert "100000 x 100000" in results["5.png"].reason
    assert sorted(path.name for path in out.iterdir()) == ["1.png", "2.tif", "6.png"]
    assert np.array_equal(stored(out / "1.png"), 255 - pixels())
    assert np.array_equal(stored(out / "2.tif"), 65535 - pixels(bits=16))


def test_existing_files_are_not_replaced_unless_asked(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "1.png").write_bytes(b"mine")
    results = run(folder, out)
    assert isinstance(results["1.png"], Skipped)
    assert "--overwrite" in results["1.png"].reason
    assert (out / "1.png").read_bytes() == b"mine"
    assert isinstance(results["6.png"], Done)
    assert isinstance(run(folder, out, overwrite=True)["1.png"], Done)
    assert np.array_equal(stored(out / "1.png"), 255 - pixels())


def test_the_input_is_replaced_only_when_asked(folder: Path) -> None:
    before = {path.name: path.read_bytes() for path in folder.glob("*.*") if path.is_file()}
    assert all(isinstance(result, Skipped) for result in run(folder, folder).values())
    assert {path.name: path.read_bytes() for path in folder.glob("*.*") if path.is_file()} == before
    run(folder, folder, overwrite=True)
    assert np.array_equal(stored(folder / "1.png"), 255 - pixels())
    assert (folder / "3.png").read_bytes() == before["3.png"]


def test_a_full_disk_stops_the_run(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("exda_primitives.workbench.restoration.images.write_bytes", full)
    # The next image could not be written either.
    with pytest.raises(OSError, match="No space left on device"):
        run(folder, tmp_path / "out")


def test_an_output_that_is_a_folder_or_below_a_file_is_refused_before_the_forward_pass(tmp_path: Path) -> None:
    for name in ("in/1.png", "in/sub/2.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        save(pixels(), tmp_path / name)
    (tmp_path / "out/1.png").mkdir(parents=True)
    (tmp_path / "out/sub").touch()

    class Never(Negative):
        def forward(self, x: Tensor) -> Tensor:
            assert not x.any(), "only the zeros that probe its input may be passed"
            return super().forward(x)

    work = work_for(tmp_path / "in", tmp_path / "out")
    first, second = restore_files(Restorer(Never()), work.jobs, overwrite=False)
    assert isinstance(first, Skipped)
    assert "1.png exists" in first.reason
    assert isinstance(second, Skipped)
    assert "sub is a file" in second.reason


@pytest.mark.parametrize(
    "name", ["x" * 251 + ".png", "\u00e4" * 125 + ".png", "two\nlines.png", "bad\udcff.png", "-.png"]
)
def test_all_names_that_the_file_system_takes(name: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    save(pixels(), tmp_path / "plain.png").rename(tmp_path / "in" / name)
    (result,) = run(tmp_path / "in", tmp_path / "out").values()
    assert isinstance(result, Done)
    assert os.listdir(tmp_path / "out") == [name]


def test_a_name_that_is_too_long_fails_before_the_work(tmp_path: Path) -> None:
    source = save(pixels(), tmp_path / "1.png")
    (result,) = restore_files(Restorer(Negative()), [Job(source, tmp_path / ("x" * 260 + ".png"))], overwrite=False)
    assert isinstance(result, Skipped)
    assert result.reason.endswith("File name too long")


def test_an_interruption_leaves_nothing_half_written(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    renamed = Path.replace

    def interrupted(self: Path, target: Path) -> Path:
        if target.name == "2.tif":
            raise KeyboardInterrupt
        return renamed(self, target)

    monkeypatch.setattr(Path, "replace", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(folder, out)
    assert [path.name for path in out.iterdir()] == ["1.png"]


class Failing(Negative):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] > 64:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory\nmore")
        return super().forward(x)


def test_a_model_that_fails_on_an_image_skips_it(tmp_path: Path) -> None:
    save(pixels(20, 90), tmp_path / "1.png")
    save(pixels(), tmp_path / "2.png")
    work = work_for(tmp_path, tmp_path / "out")
    first, second = restore_files(Restorer(Failing()), work.jobs, overwrite=False)
    assert isinstance(first, Skipped)
    assert first.reason == "DefaultCPUAllocator: can't allocate memory"
    assert isinstance(second, Done)


def test_progress_is_reported_for_every_tile(tmp_path: Path) -> None:
    save(pixels(64, 100), tmp_path / "1.png")
    save(pixels(), tmp_path / "2.png")
    seen: list[tuple[int, int, int]] = []

    def progress(index: int, done: int, total: int) -> None:
        seen.append((index, done, total))

    restorer = Restorer(Negative(), tile=64, overlap=16)
    work = work_for(tmp_path, tmp_path / "out")
    results = list(restore_files(restorer, work.jobs, overwrite=False, progress=progress))
    assert seen == [(0, 1, 2), (0, 2, 2), (1, 1, 1)]
    assert isinstance(results[0], Done)
    assert (results[0].size, results[0].restored.tile) == ((64, 100), 64)
    # The pixels are in the file; results of a thousand images would fill the memory with them.
    left = results[0].restored.image
    assert (left.nbytes, left.base) == (0, None)


def test_grey_stays_grey(tmp_path: Path) -> None:
    values = pixels(channels=1, bits=16)
    save(values, tmp_path / "1.png")
    list(restore_files(Restorer(Negative()), work_for(tmp_path, tmp_path / "out").jobs, overwrite=False))
    assert np.array_equal(stored(tmp_path / "out/1.png"), 65535 - values)


def test_16_bits_survive_tiles(tmp_path: Path) -> None:
    values = pixels(100, 70, bits=16)
    save(values, tmp_path / "1.png")
    restorer = Restorer(Negative(), tile=48, overlap=16)
    list(restore_files(restorer, work_for(tmp_path, tmp_path / "out").jobs, overwrite=False))
    # Blending equal values rounds once.
    assert np.abs(stored(tmp_path / "out/1.png").astype(int) - (65535 - values.astype(int))).max() <= 1
    assert torch.get_default_dtype() == torch.float32
