"""exda restore."""

import os
import signal
import sys
from importlib import resources
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.workbench.restoration.images import pixels, save, stored
from typer.testing import CliRunner, Result

import exda_primitives as exda
from exda_primitives.cli import app
from exda_primitives.cli.errors import stop_on_signal
from exda_primitives.workbench.demo.model import tiny_restormer
from exda_primitives.workbench.restoration import Restorer, restore
from exda_primitives.workbench.restoration.images import read

HOST = Path(str(resources.files("exda_primitives.workbench.demo") / "data/host.safetensors"))


def run(*arguments: object, checkpoint: Path | str = HOST) -> Result:
    command = ["restore", "--device", "cpu", "--checkpoint", str(checkpoint), *map(str, arguments)]
    return CliRunner().invoke(app, command, env={"COLUMNS": "200"})


def host() -> torch.nn.Module:
    model = tiny_restormer()
    model.load_state_dict(load_file(HOST))
    return model


def same(found: np.ndarray, expected: torch.Tensor) -> bool:
    """Whether both are equal up to the last of 8 bits, which fused blocks may round otherwise in a few values."""
    shown = (expected * 255).round().permute(1, 2, 0).numpy()
    differences = np.abs(found - shown)
    return bool(differences.max() <= 1) and bool((differences > 0).mean() < 1e-3)


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return save(pixels(60, 90), tmp_path / "in.png")


def test_a_single_image(image: Path, tmp_path: Path) -> None:
    result = run(image, tmp_path / "out.png")
    assert result.exit_code == 0, result.output
    assert "90 x 60" in result.output
    assert "whole" in result.output
    assert "1 restored, 0 skipped" in result.output
    expected = restore(host(), torch.from_numpy(read(image).pixels)).image
    assert same(stored(tmp_path / "out.png"), expected)


def test_tiles_say_their_seam_and_what_they_cost(image: Path, tmp_path: Path) -> None:
    result = run(image, tmp_path / "out.png", "--tile", 48, "--overlap", 16)
    assert result.exit_code == 0, result.output
    seam = restore(host(), torch.from_numpy(read(image).pixels), tile=48, overlap=16).seam
    assert seam is not None
    assert f"{seam.largest:.3f}" in result.output
    assert "each tile is all that the model sees" in result.output
    # Noise and tiny tiles: far above what is invisible.
    assert seam.largest > 0.5
    assert "tiles may show" in result.output


@pytest.mark.parametrize(("side", "said"), [(512, False), (513, True)])
def test_large_images_and_tiles_are_to_be_compared_with_smaller_tiles(side: int, said: bool, tmp_path: Path) -> None:
    image = save(pixels(16, side), tmp_path / "in.png")
    result = run(image, tmp_path / "out.png")
    assert result.exit_code == 0, result.output
    assert ("compare --tile 256" in result.output.replace("\n", " ")) == said


def test_a_patched_network(image: Path, tmp_path: Path) -> None:
    model = host()
    exda.patch(model)
    with torch.no_grad():
        for parameter in exda.new_parameters(model):
            parameter.add_(0.2)
    exda.save(model, tmp_path / "exda.safetensors")
    result = run(image, tmp_path / "out.png", "--patch", tmp_path / "exda.safetensors")
    assert result.exit_code == 0, result.output
    expected = restore(model, torch.from_numpy(read(image).pixels)).image
    found = stored(tmp_path / "out.png")
    assert same(found, expected)
    run(image, tmp_path / "host.png")
    assert not np.array_equal(found, stored(tmp_path / "host.png"))


def test_half_precision_is_close(image: Path, tmp_path: Path) -> None:
    for name, options in (("full", []), ("half", ["--half"])):
        assert run(image, tmp_path / f"{name}.png", *options).exit_code == 0
    difference = stored(tmp_path / "full.png").astype(int) - stored(tmp_path / "half.png")
    assert 0 < np.abs(difference).mean() < 3


def test_a_folder_with_a_broken_image(tmp_path: Path) -> None:
    for name in ("1.png", "sub/2.tif", "sub/3.jpg"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        save(pixels(), tmp_path / "in" / name)
    broken = tmp_path / "in/sub/2.tif"
    broken.write_bytes(broken.read_bytes()[:500])
    result = run(tmp_path / "in", tmp_path / "out")
    assert result.exit_code == 1
    assert "2.tif: skipped: damaged or cut short" in result.output
    assert "2 restored, 1 skipped" in result.output
    assert (tmp_path / "out/1.png").exists()
    assert (tmp_path / "out/sub/3.jpg").exists()
    assert not (tmp_path / "out/sub/2.tif").exists()


def test_an_existing_output_is_kept(image: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    out.write_bytes(b"mine")
    result = run(image, out)
    assert result.exit_code == 1
    assert "exists; --overwrite replaces it" in result.output
    assert out.read_bytes() == b"mine"
    assert run(image, out, "--overwrite").exit_code == 0
    assert out.read_bytes().startswith(b"\x89PNG")


def test_a_lost_bit_depth_is_reported(tmp_path: Path) -> None:
    save(pixels(bits=16), tmp_path / "in.png")
    result = run(tmp_path / "in.png", tmp_path / "out.jpg")
    assert result.exit_code == 0, result.output
    assert "16 bit written as 8 bit: JPEG holds no more" in result.output


def test_too_little_memory(image: Path, tmp_path: Path) -> None:
    result = run(image, tmp_path / "out.png", "--memory", 0.1)
    assert result.exit_code == 1
    assert "skipped: not enough memory" in result.output
    assert [path.name for path in tmp_path.iterdir()] == ["in.png"]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["none.png", "out.png"], 1, "none.png does not exist"),
        (["in.png", "out.gif"], 1, "must end in one of"),
        (["in.png", "in.png/out.png"], 1, "in.png is a file; give another folder"),
        (["in.png", "out.png", "--tile", "64", "--overlap", "48"], 1, "at most half a tile"),
        (["in.png", "out.png", "--tile", "0"], 2, "--tile"),
        (["in.png", "out.png", "--device", "tpu"], 2, "none of auto, cpu, cuda"),
        (["in.png", "out.png", "--model", "nothing"], 1, "nothing"),
    ],
    ids=lambda given: str(given)[:40],
)
def test_a_wrong_command_does_nothing(arguments: list[str], code: int, message: str, image: Path) -> None:
    paths = [str(image.parent / name) for name in arguments[:2]]
    result = run(*paths, *arguments[2:])
    assert result.exit_code == code
    assert message in result.output
    assert [path.name for path in image.parent.iterdir()] == ["in.png"]


@pytest.mark.parametrize("kind", ["missing", "damaged", "dual-pixel"])
def test_unusable_checkpoints_are_refused(kind: str, image: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    if kind == "damaged":
        path.write_bytes(HOST.read_bytes()[:1000])
    elif kind == "dual-pixel":
        model = exda.models.Restormer(6, 3, 8, [1, 1, 1, 1], 1, dual_pixel_task=True)
        save_file(model.state_dict(), path)
    result = run(image, tmp_path / "out.png", checkpoint=path)
    assert result.exit_code == 1
    expected = {"missing": "does not exist", "damaged": "safetensors", "dual-pixel": "6 channels"}[kind]
    assert expected in result.output
    assert not (tmp_path / "out.png").exists()


def test_files_left_out_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    save(pixels(), folder / "1.png")
    for name in ("._1.png", ".DS_Store", *(f"{number}.heic" for number in range(1, 8))):
        (folder / name).touch()
    result = run(folder, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "hidden, left out: ._1.png, .DS_Store" in result.output
    assert "left out: 1.heic, 2.heic, 3.heic, 4.heic, 5.heic, ... (7 in all)" in result.output
    assert os.listdir(tmp_path / "out") == ["1.png"]


@pytest.mark.parametrize("name", ["demo", "demo-host"])
def test_the_packaged_weights_restore(name: str, image: Path, tmp_path: Path) -> None:
    result = run(image, tmp_path / "out.png", checkpoint=name)
    assert result.exit_code == 0, result.output
    model = host()
    if name == "demo":
        exda.patch(model)
        model.load_state_dict(load_file(HOST.with_name("exda.safetensors")))
    expected = restore(model, torch.from_numpy(read(image).pixels)).image
    assert same(stored(tmp_path / "out.png"), expected)


@pytest.mark.usefixtures("terminal")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_stops_the_run_and_leaves_no_partial_file(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("1.png", "2.png", "3.png", "4.png"):
        (tmp_path / "in").mkdir(exist_ok=True)
        save(pixels(), tmp_path / "in" / name)
    (tmp_path / "in/2.png").write_bytes(b"no image")
    before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)]
    restored, calls = Restorer.restore_array, []

    def killed(self: Restorer, *arguments: object) -> object:
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), number)
        return restored(self, *arguments)

    monkeypatch.setattr(Restorer, "restore_array", killed)
    # Scripts start their background commands with SIGINT ignored; one that is sent all the same must stop the run.
    ignored = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        result = run(tmp_path / "in", tmp_path / "out")
    finally:
        signal.signal(signal.SIGINT, ignored)
    assert result.exit_code == 128 + number
    assert "interrupted: 1 of 4 images were written, none in part\n" in result.output
    # What was skipped before the signal is reported all the same.
    assert "2.png: skipped: not a PNG" in result.output
    assert os.listdir(tmp_path / "out") == ["1.png"]
    assert [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)] == before


def test_under_nohup_a_closed_terminal_does_not_stop_the_run(image: Path, tmp_path: Path) -> None:
    ignored = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with stop_on_signal(lambda: "never"):
            os.kill(os.getpid(), signal.SIGHUP)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, ignored)


def test_a_full_disk_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "in").mkdir()
    for name in ("1.png", "2.png"):
        save(pixels(), tmp_path / "in" / name)
    writing = Path.write_bytes

    def full(self: Path, data: bytes) -> int:
        writing(self, data[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    result = run(tmp_path / "in", tmp_path / "out")
    assert result.exit_code == 1
    assert f"error: {tmp_path}/out/1.png: No space left on device\n" in result.output
    assert "0 restored, 0 skipped" in result.output
    assert os.listdir(tmp_path / "out") == []


def test_tiles_of_a_network_that_sorts(tmp_path: Path) -> None:
    source = save(pixels(48, 72), tmp_path / "in.png")
    sizes = {"dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1, "ffn_expansion_factor": 2}
    said = {}
    for name in ("histoformer", "restormer"):
        model = exda.models.create(name, **sizes)
        save_file(model.state_dict(), tmp_path / f"{name}.safetensors")
        tiles = ("--tile", 48, "--overlap", 16, "--overwrite")
        result = run(source, tmp_path / "out.png", *tiles, checkpoint=tmp_path / f"{name}.safetensors")
        assert result.exit_code == 0, result.output
        said[name] = "This network sorts pixels by their values" in result.output
    assert said == {"histoformer": True, "restormer": False}
    whole = run(source, tmp_path / "out.png", "--overwrite", checkpoint=tmp_path / "histoformer.safetensors")
    assert whole.exit_code == 0
    assert "sorts pixels" not in whole.output


def test_missing_packages_are_named(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyvips", None)
    result = run(image, tmp_path / "out.png")
    assert result.exit_code == 1
    assert 'pip install "psutil>=5.9" "pyvips[binary]>=3"' in result.output


def test_known_blocks_are_fused_on_the_cpu(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from exda_primitives.fusion.block import FusedBlock

    seen: list[int] = []
    whole = Restorer.restore_array

    def noted(self: Restorer, *arguments: object) -> object:
        seen.append(sum(isinstance(module, FusedBlock) for module in self.model.modules()))
        return whole(self, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Restorer, "restore_array", noted)
    assert run(image, tmp_path / "out.png").exit_code == 0
    assert run(image, tmp_path / "half.png", "--half").exit_code == 0
    fused, half = seen
    assert fused == half > 0
