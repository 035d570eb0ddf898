"""From cases to scores, with networks whose result is known."""

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.workbench.data.images import write_image
from torch import Tensor, nn

from exda_primitives.errors import ConfigError, DataError, ImageError
from exda_primitives.workbench.data import open_images
from exda_primitives.workbench.evaluation import (
    PROTOCOLS,
    Case,
    ImageResult,
    Score,
    benchmark_files,
    check,
    clean_cases,
    evaluate,
    file_cases,
    measure,
    paired_folders,
    summaries,
)
from exda_primitives.workbench.evaluation.noise import Noise
from exda_primitives.workbench.evaluation.run import as_record, selected_degradations
from exda_primitives.workbench.restoration import Restorer

PROMPTIR = PROTOCOLS["promptir"]


class Half(nn.Module):
    def forward(self, image: Tensor) -> Tensor:
        return image / 2


class Sick(nn.Module):
    """Gives NaN for white images."""

    def forward(self, image: Tensor) -> Tensor:
        return image.where(image < 0.999, torch.nan)


def identity_restorer() -> Restorer:
    return Restorer(nn.Identity())


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    for seed, name in enumerate(("a", "b")):
        write_image(tmp_path / "low" / f"{name}.png", 33, 40, seed=seed)
        write_image(tmp_path / "high" / f"{name}.png", 33, 40, seed=seed + 10)
    return tmp_path / "low", tmp_path / "high"


def clean_folder(root: Path, count: int = 2, height: int = 35, width: int = 37) -> Path:
    for seed in range(count):
        write_image(root / "clean" / f"{seed}.png", height, width, seed=seed)
    return root / "clean"


def test_pairs_of_files(folders: tuple[Path, Path]) -> None:
    files = paired_folders(*folders)
    found = list(evaluate(Restorer(Half()), file_cases(files), PROMPTIR))
    assert [(each.name, each.degradation, each.height, each.width) for each in found] == [
        ("a", "pairs", 32, 32),
        ("b", "pairs", 32, 32),
    ]
    for result, pair in zip(found, files.pairs, strict=True):
        assert pair.degraded is not None
        degraded, clean = (files.read(path, "pairs")[:, 0:32, 4:36] for path in (pair.degraded, pair.clean))
        assert result.degraded == measure(degraded, clean, PROMPTIR)
        assert result.restored == measure(degraded / 2, clean, PROMPTIR)


def test_noise_by_the_rule_of_the_protocol(tmp_path: Path) -> None:
    images = open_images(clean_folder(tmp_path))
    cases = clean_cases(images, ["noise15", "noise50"], seed=0)
    found = list(evaluate(identity_restorer(), cases, PROMPTIR))
    noise = Noise(PROMPTIR, seed=0)
    for result, (sigma, index) in zip(found, [(15, 0), (15, 1), (50, 0), (50, 1)], strict=True):
        clean = images[index][:, 1:33, 2:34]
        assert result.restored == measure(noise.add(clean, sigma), clean, PROMPTIR)


def test_a_level_alone_has_the_noise_that_it_has_among_all_levels(tmp_path: Path) -> None:
    cases = clean_cases(open_images(clean_folder(tmp_path)), ["noise15", "noise50"], seed=0)
    for name, alike in (("promptir", True), ("moce-ir", False)):
        of_all = [
            each for each in evaluate(identity_restorer(), cases, PROTOCOLS[name]) if each.degradation == "noise50"
        ]
        alone = list(evaluate(identity_restorer(), cases, PROTOCOLS[name], degradations=["noise50"]))
        assert (of_all == alone) is alike
        fresh = clean_cases(open_images(tmp_path / "clean"), ["noise50"], seed=0)
        assert (list(evaluate(identity_restorer(), fresh, PROTOCOLS[name])) == alone) is not alike


def test_degradations_left_out_are_not_checked(tmp_path: Path) -> None:
    images = open_images(clean_folder(tmp_path))
    cases = clean_cases(images, ["rain", "noise25"], seed=0)
    alone = list(evaluate(identity_restorer(), clean_cases(images, ["noise25"], seed=0), PROMPTIR))
    assert list(evaluate(identity_restorer(), cases, PROMPTIR, degradations=["noise25"])) == alone
    small = Case("small", "haze", lambda: torch.rand(3, 4, 4), stored=lambda: torch.rand(3, 4, 4))
    check([small, *cases], PROMPTIR, ["rain"])
    with pytest.raises(ImageError, match="small"):
        check([small, *cases], PROMPTIR)


def test_noise_is_not_clipped_where_the_repository_does_not(tmp_path: Path) -> None:
    seen = []

    class Watch(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            seen.append(image)
            return image

    cases = clean_cases(open_images(clean_folder(tmp_path)), ["noise50"], seed=0)
    list(evaluate(Restorer(Watch()), cases, PROTOCOLS["restormer-noise"]))
    assert seen[-1].min() < 0
    assert seen[-1].max() > 1


def test_other_degradations_depend_on_the_seed_and_the_image(tmp_path: Path) -> None:
    images = open_images(clean_folder(tmp_path))

    def scores(seed: int, *names: str) -> list[ImageResult]:
        return list(evaluate(identity_restorer(), clean_cases(images, names, seed), PROMPTIR))

    assert scores(0, "rain") == scores(0, "rain")
    assert scores(0, "rain") != scores(1, "rain")
    assert scores(0, "haze", "rain")[2:] == scores(0, "rain")
    cases = clean_cases(images, ["rain"], seed=0)
    grey = torch.full((3, 20, 20), 0.2)
    made = [case.made for case in cases]
    assert made[0] is not None
    assert made[1] is not None
    assert not torch.equal(made[0](grey), made[1](grey))


def test_a_benchmark(tmp_path: Path) -> None:
    for name in ("denoise/bsd68/a.png", "derain/Rain100L/input/r.png", "derain/Rain100L/target/r.png"):
        write_image(tmp_path / name, 16, 16)
    for name in ("dehaze/input/h_0.8_0.1.png", "dehaze/target/h.png"):
        write_image(tmp_path / name, 16, 16)
    cases = file_cases(benchmark_files("promptir-3", tmp_path, whole=False))
    assert [case.degradation for case in cases] == ["noise15", "noise25", "noise50", "rain", "haze"]
    assert [case.is_noise for case in cases] == [True, True, True, False, False]
    with pytest.raises(DataError, match="published set has 68"):
        benchmark_files("promptir-3", tmp_path)
    with pytest.raises(ConfigError, match="no benchmark is called 'bsd'"):
        benchmark_files("bsd", tmp_path)


def test_medical_images() -> None:
    random = torch.Generator().manual_seed(0)
    clean, degraded = (torch.rand(1, 20, 24, generator=random) for _ in range(2))
    cases = [Case("s", modality, lambda: clean, stored=lambda: degraded) for modality in ("PET", "CT", "MRI")]
    half = nn.Conv2d(1, 1, 1, bias=False)
    nn.init.constant_(half.weight, 0.5)
    check(cases, PROTOCOLS["amir"])
    for result, modality in zip(evaluate(Restorer(half), cases, PROTOCOLS["amir"]), ("PET", "CT", "MRI"), strict=True):
        assert result.restored == measure(degraded / 2, clean, PROTOCOLS["amir"], modality)
        assert result.degraded == measure(degraded, clean, PROTOCOLS["amir"], modality)


def test_equal_images_have_infinite_psnr(tmp_path: Path) -> None:
    clean = clean_folder(tmp_path)
    found = list(evaluate(identity_restorer(), file_cases(paired_folders(clean, clean)), PROMPTIR))
    assert all(each.restored.psnr == math.inf for each in found)
    assert summaries(found)[0].restored.psnr == math.inf
    assert as_record(found[0])["psnr"] == "inf"


def test_averages() -> None:
    def result(degradation: str, psnr: float) -> ImageResult:
        return ImageResult("p", degradation, 16, 16, Score(psnr, psnr / 100), Score(1.0, 0.5), None)

    rows = summaries([result("rain", 20), result("rain", 30), result("haze", 35)])
    assert [(row.degradation, row.images, row.restored) for row in rows] == [
        ("rain", 2, Score(25, 0.25)),
        ("haze", 1, Score(35, 0.35)),
        ("average", 3, Score(30, pytest.approx(0.30))),
    ]
    assert [row.degradation for row in summaries([result("rain", 20)])] == ["rain"]


def test_progress(folders: tuple[Path, Path]) -> None:
    steps = []
    cases = file_cases(paired_folders(*folders))
    check(cases, PROMPTIR, progress=lambda case, done, total: steps.append((str(case), done, total)))
    assert steps == [("a (pairs)", 1, 2), ("b (pairs)", 2, 2)]
    steps.clear()
    list(
        evaluate(
            identity_restorer(),
            cases,
            PROMPTIR,
            progress=lambda case, done, total: steps.append((case.name, done, total)),
        )
    )
    assert steps == [("a", 0, 2), ("a", 1, 2), ("b", 1, 2), ("b", 2, 2), ("b", 2, 2)]


def test_nan_of_a_network_names_the_image(tmp_path: Path) -> None:
    grey = {name: np.full((16, 16, 3), value, np.uint8) for name, value in (("dark", 9), ("white", 255))}
    np.savez(tmp_path / "two.npz", **grey)
    images = open_images(tmp_path / "two.npz")

    def same_again(clean: Tensor) -> Tensor:
        return clean

    cases = [Case(name, "none", partial(images.__getitem__, index), made=same_again) for index, name in enumerate(grey)]
    found = evaluate(Restorer(Sick()), cases, PROMPTIR)
    assert next(found).name == "dark"
    with pytest.raises(ImageError, match=r"white \(none\): the model's output holds NaN or infinity"):
        next(found)


def test_a_network_for_other_channels_is_refused(folders: tuple[Path, Path]) -> None:
    grey = Restorer(nn.Conv2d(1, 1, 1))
    with pytest.raises(ImageError, match=r"a \(pairs\): the model takes grey images"):
        list(evaluate(grey, file_cases(paired_folders(*folders)), PROMPTIR))


@pytest.mark.parametrize("doing", ["check", "evaluate"])
def test_bad_images_are_named(doing: str, folders: tuple[Path, Path]) -> None:
    def run() -> None:
        cases = file_cases(paired_folders(*folders))
        check(cases, PROMPTIR) if doing == "check" else list(evaluate(identity_restorer(), cases, PROMPTIR))

    run()
    write_image(folders[0] / "b.png", 33, 48)
    with pytest.raises(ImageError, match=r"b \(pairs\): the degraded image has 33 x 48 pixels, the clean one 33 x 40"):
        run()
    for folder in folders:
        write_image(folder / "b.png", 15, 40)
    with pytest.raises(ImageError, match=r"b \(pairs\): 15 x 40 pixels"):
        run()
    (folders[1] / "b.png").write_bytes(b"no image")
    with pytest.raises(ImageError, match=r"b\.png is no image"):
        run()


def test_images_without_a_partner_are_named(folders: tuple[Path, Path]) -> None:
    write_image(folders[0] / "c.png")
    with pytest.raises(DataError, match=r"high/c\.\*: missing"):
        paired_folders(*folders)


def test_what_cannot_be_evaluated_is_refused(tmp_path: Path, folders: tuple[Path, Path]) -> None:
    images = open_images(clean_folder(tmp_path))
    cases = file_cases(paired_folders(*folders))
    with pytest.raises(ConfigError, match="nothing to evaluate"):
        check([], PROMPTIR)
    with pytest.raises(ConfigError, match="no images of 'haze', only of pairs"):
        selected_degradations(cases, ["haze"])
    with pytest.raises(ConfigError, match="adds no noise"):
        check(clean_cases(images, ["noise25"], 0), PROTOCOLS["weatherbench"])
    with pytest.raises(ConfigError, match="only for PET, CT, MRI, not for 'pairs'"):
        check(cases, PROTOCOLS["amir"])
    with pytest.raises(ConfigError, match="no degradation is named"):
        clean_cases(images, [], 0)
    with pytest.raises(ConfigError, match="no degradation is called 'mist'"):
        clean_cases(images, ["mist"], 0)


@pytest.mark.parametrize("protocol", [name for name, each in PROTOCOLS.items() if each.noise])
@pytest.mark.parametrize("done", [1, 2, 4, 5])
def test_a_resumed_evaluation_has_the_same_noise(tmp_path: Path, protocol: str, done: int) -> None:
    images = open_images(clean_folder(tmp_path, count=2))
    cases = clean_cases(images, ["noise15", "rain", "noise50"], 0)
    at_once = list(
        evaluate(identity_restorer(), cases, PROTOCOLS[protocol], degradations=["noise15", "rain", "noise50"])
    )
    rest = list(evaluate(identity_restorer(), cases, PROTOCOLS[protocol], done=done))
    assert len(at_once) == 6
    assert rest == at_once[done:]


def test_done_counts_only_the_selected_degradations(folders: tuple[Path, Path], tmp_path: Path) -> None:
    images = open_images(clean_folder(tmp_path / "clean"))
    cases = clean_cases(images, ["noise15", "rain"], 0)
    some = list(evaluate(identity_restorer(), cases, PROMPTIR, degradations=["rain"]))
    assert list(evaluate(identity_restorer(), cases, PROMPTIR, degradations=["rain"], done=1)) == some[1:]


def test_the_digest_depends_on_contents_and_names(folders: tuple[Path, Path]) -> None:
    def digest(*degradations: str) -> str:
        return check(file_cases(paired_folders(*folders)), PROMPTIR, degradations)

    first = digest()
    assert first == digest()
    write_image(folders[0] / "b.png", 33, 40, seed=7)
    changed = digest()
    (folders[0] / "b.png").rename(folders[0] / "c.png")
    (folders[1] / "b.png").rename(folders[1] / "c.png")
    assert len({first, changed, digest()}) == 3
