"""Small copies of the benchmarks' folders: the pairs that are found, and the problems that are reported."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import pytest
from tests.workbench.data.images import write_images

from exda_primitives.errors import DataError
from exda_primitives.workbench.data import PairedFileSet
from exda_primitives.workbench.data.benchmarks import (
    REPEATS,
    PairedFiles,
    allweather_files,
    cdd11_files,
    moceir_files,
    promptir_files,
    weatherbench_files,
)
from exda_primitives.workbench.data.degradations import CDD11

HAZE = ("0001_0.8_0.2.jpg", "0001_0.95_0.1.jpg", "0003_1_0.04.jpg")
NOISE = ("noise15", "noise25", "noise50")

Pairs = dict[str, list[tuple[str | None, str]]]
"""Degradation -> pairs of paths (degraded, clean) relative to the root; None where noise is added later."""


def under(folder: str, *names: str) -> list[str]:
    return [f"{folder}/{name}" for name in names]


PROMPTIR_TEST = [
    *under("denoise/bsd68", "101085.png", "3096.jpg"),
    *under("derain/Rain100L/input", "rain-001.png", "rain-002.png"),
    *under("derain/Rain100L/target", "rain-001.png", "rain-002.png"),
    *under("dehaze/input", *HAZE),
    *under("dehaze/target", "0001.png", "0003.png"),
    *under("deblur/gopro/input", "GOPR0384_11_00-000001.png"),
    *under("deblur/gopro/target", "GOPR0384_11_00-000001.png"),
    *under("enhance/lol/input", "1.png"),
    *under("enhance/lol/target", "1.png"),
]
PROMPTIR_TRAIN = [
    *under("Denoise", "00001.bmp", "100075.jpg"),
    *under("Derain/rainy", "rain-1.png", "rain-10.png"),
    *under("Derain/gt", "norain-1.png", "norain-10.png"),
    *under("Dehaze/synthetic/part1", *HAZE),
    *under("Dehaze/synthetic/part4", "8961_1_0.2.jpg"),
    *under("Dehaze/original", "0001.jpg", "0003.jpg", "8961.jpg"),
    *under("Deblur/blur", "GOPR0372_07_00_000047.png"),
    *under("Deblur/sharp", "GOPR0372_07_00_000047.png"),
    *under("Enhance/low", "2.png"),
    *under("Enhance/gt", "2.png"),
]
MOCEIR_TEST = [
    *under("denoising/cBSD68/original_png", "0000.png", "0001.png"),
    *under("deraining/Rain100L/rainy", "rain-001.png", "rain-002.png"),
    *under("deraining/Rain100L/gt", "norain-001.png", "norain-002.png"),
    *under("dehazing/SOTS/outdoor/hazy", *HAZE),
    *under("dehazing/SOTS/outdoor/gt", "0001.png", "0003.png"),
    *under("deblurring/GoPro/test/input", "a.png"),
    *under("deblurring/GoPro/test/target", "a.png"),
    *under("llie/LOLv1/Test/input", "1.png"),
    *under("llie/LOLv1/Test/target", "1.png"),
]
MOCEIR_TRAIN = [
    *under("denoising/WaterlooED", "00001.bmp"),
    *under("denoising/BSD400", "100075.jpg"),
    *under("deraining/RainTrainL/rainy", "rain-1.png"),
    *under("deraining/RainTrainL/gt", "norain-1.png"),
    *under("dehazing/RESIDE/part1", *HAZE),
    *under("dehazing/RESIDE/part2", "3068_0.8_0.1.jpg"),
    *under("dehazing/RESIDE/clear", "0001.jpg", "0003.jpg", "3068.jpg"),
    *under("deblurring/GoPro/crop/train/input_crops", "a-s001.png"),
    *under("deblurring/GoPro/crop/train/target_crops", "a-s001.png"),
    *under("llie/LOLv1/Train/input", "2.png"),
    *under("llie/LOLv1/Train/target", "2.png"),
]
CDD11_TEST = [name for folder in ("clear", *CDD11) for name in under(f"test/{folder}", "000001.png", "000002.png")]
ALLWEATHER_TEST = [
    *under("test/Snow100K-L/synthetic", "beautiful_smile_00003.jpg"),
    *under("test/Snow100K-L/gt", "beautiful_smile_00003.jpg"),
    *under("test/Snow100K-S/synthetic", "winter_street_00021.jpg"),
    *under("test/Snow100K-S/gt", "winter_street_00021.jpg"),
    *under("test/Test1/input", "im_0601_s80_a04.png", "im_0601_s100_a06.png", "im_0602_s80_a04.png"),
    *under("test/Test1/gt", "im_0601.png", "im_0602.png"),
    *under("test/RainDrop/input", "0_rain.png"),
    *under("test/RainDrop/gt", "0_clean.png"),
]
ALLWEATHER_TRAIN = [
    *under("input", "city_read_00001.jpg", "im_0001_s80_a04.png", "0_rain.png"),
    *under("gt", "city_read_00001.jpg", "im_0001_s80_a04.png", "0_clean.png"),
]
WEATHERBENCH = [*under("some/input", "1.jpg", "2.jpg"), *under("some/target", "1.png", "2.jpg")]

Load = Callable[[Path], PairedFiles]


def weatherbench(root: Path) -> PairedFiles:
    return weatherbench_files(root / "some" / "input", root / "some" / "target", whole=False)


LAYOUTS: dict[str, tuple[list[str], Load, dict[str, int]]] = {
    "promptir test": (
        PROMPTIR_TEST,
        partial(promptir_files, setting=5, whole=False),
        dict.fromkeys(NOISE, 2) | {"rain": 2, "haze": 3, "blur": 1, "low": 1},
    ),
    "promptir train": (
        PROMPTIR_TRAIN,
        partial(promptir_files, split="train", setting=5, whole=False),
        dict.fromkeys(NOISE, 2) | {"rain": 2, "haze": 4, "blur": 1, "low": 1},
    ),
    "moceir test": (
        MOCEIR_TEST,
        partial(moceir_files, setting=5, whole=False),
        dict.fromkeys(NOISE, 2) | {"rain": 2, "haze": 3, "blur": 1, "low": 1},
    ),
    "moceir train": (
        MOCEIR_TRAIN,
        partial(moceir_files, split="train", setting=5, whole=False),
        dict.fromkeys(NOISE, 2) | {"rain": 1, "haze": 4, "blur": 1, "low": 1},
    ),
    "cdd11 test": (CDD11_TEST, partial(cdd11_files, whole=False), dict.fromkeys(CDD11, 2)),
    "allweather test": (
        ALLWEATHER_TEST,
        partial(allweather_files, whole=False),
        {"snow-large": 1, "snow-small": 1, "rain-haze": 3, "raindrop": 1},
    ),
    "allweather train": (ALLWEATHER_TRAIN, partial(allweather_files, split="train", whole=False), {"weather": 3}),
    "weatherbench": (WEATHERBENCH, weatherbench, {"weather": 2}),
}


@pytest.fixture(params=LAYOUTS)
def layout(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, list[str], Load, dict[str, int]]:
    names, load, counts = LAYOUTS[request.param]
    touch(tmp_path, names)
    return tmp_path, names, load, counts


def touch(root: Path, names: Iterable[str]) -> None:
    """Makes empty files: listing a benchmark reads none of them."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def relative(files: PairedFiles, root: Path) -> Pairs:
    found: Pairs = {}
    for clean, degraded, degradation in files.pairs:
        pair = (degraded and degraded.relative_to(root).as_posix(), clean.relative_to(root).as_posix())
        found.setdefault(degradation, []).append(pair)
    return found


def test_every_file_is_found(layout: tuple[Path, list[str], Load, dict[str, int]]) -> None:
    root, names, load, counts = layout
    files = load(root)
    found = relative(files, root)
    assert {degradation: len(pairs) for degradation, pairs in found.items()} == counts
    assert {name for pairs in found.values() for pair in pairs for name in pair if name} == set(names)
    assert len(files) == sum(counts.values())
    assert files.degradations == tuple(counts)


def test_every_missing_file_is_named(layout: tuple[Path, list[str], Load, dict[str, int]]) -> None:
    root, _, load, counts = layout
    pairs = [pair for pairs in relative(load(root), root).values() for pair in pairs if pair[0] is not None]
    for name in dict.fromkeys(one for pair in pairs for one in pair):
        (root / name).unlink()
        orphans = [degraded for degraded, clean in pairs if clean == name]
        left = [clean for degraded, clean in pairs if degraded == name]
        siblings = [degraded for degraded, clean in pairs if clean in left and degraded != name]
        if orphans or not any(Path(sibling).parent == Path(name).parent for sibling in siblings):
            with pytest.raises(DataError, match="is not whole") as raised:
                load(root)
            assert (orphans or left)[0].removeprefix("some/") in str(raised.value)
        else:
            # One of several degraded images of a scene: only the published number shows that it is missing.
            assert len(load(root)) == sum(counts.values()) - 1
        (root / name).touch()


def test_every_folder_that_is_missing_is_named(layout: tuple[Path, list[str], Load, dict[str, int]]) -> None:
    root, names, load, _ = layout
    for folder in sorted({str(Path(name).parent) for name in names}):
        (root / folder).rename(root / "elsewhere")
        shown = folder.removeprefix("some/")
        expected = r"no degraded image of it|missing" if "part" in folder else f"{shown}.*: missing or no folder"
        with pytest.raises(DataError, match=expected):
            load(root)
        (root / "elsewhere").rename(root / folder)


def test_every_unexpected_file_is_named(layout: tuple[Path, list[str], Load, dict[str, int]]) -> None:
    root, names, load, counts = layout
    for folder in sorted({str(Path(name).parent) for name in names}):
        touch(root, [f"{folder}/.DS_Store"])
        assert len(load(root)) == sum(counts.values())
        touch(root, [f"{folder}/notes.txt"])
        with pytest.raises(DataError, match=r"notes\.txt: not expected"):
            load(root)
        (root / folder / "notes.txt").unlink()
        # Any image may be a clean image for noise ("Denoise", "denoising").
        if "enois" in folder:
            continue
        touch(root, [f"{folder}/7777.png"])
        with pytest.raises(DataError, match=r"7777"):
            load(root)
        (root / folder / "7777.png").unlink()


@pytest.mark.parametrize(
    ("load", "expected"),
    [
        (
            promptir_files,
            {
                "rain": [
                    ("derain/Rain100L/input/rain-001.png", "derain/Rain100L/target/rain-001.png"),
                    ("derain/Rain100L/input/rain-002.png", "derain/Rain100L/target/rain-002.png"),
                ],
                "haze": [
                    (f"dehaze/input/{HAZE[0]}", "dehaze/target/0001.png"),
                    (f"dehaze/input/{HAZE[1]}", "dehaze/target/0001.png"),
                    (f"dehaze/input/{HAZE[2]}", "dehaze/target/0003.png"),
                ],
            },
        ),
        (
            moceir_files,
            {
                "rain": [
                    ("deraining/Rain100L/rainy/rain-001.png", "deraining/Rain100L/gt/norain-001.png"),
                    ("deraining/Rain100L/rainy/rain-002.png", "deraining/Rain100L/gt/norain-002.png"),
                ],
            },
        ),
        (
            allweather_files,
            {
                "rain-haze": [
                    ("test/Test1/input/im_0601_s100_a06.png", "test/Test1/gt/im_0601.png"),
                    ("test/Test1/input/im_0601_s80_a04.png", "test/Test1/gt/im_0601.png"),
                    ("test/Test1/input/im_0602_s80_a04.png", "test/Test1/gt/im_0602.png"),
                ],
                "raindrop": [("test/RainDrop/input/0_rain.png", "test/RainDrop/gt/0_clean.png")],
            },
        ),
    ],
)
def test_degraded_images_are_paired_with_their_clean_ones(
    tmp_path: Path, load: Callable[..., PairedFiles], expected: Pairs
) -> None:
    touch(tmp_path, PROMPTIR_TEST + MOCEIR_TEST + ALLWEATHER_TEST)
    found = relative(load(tmp_path, whole=False), tmp_path)
    assert {name: found[name] for name in expected} == expected


@pytest.mark.parametrize("load", [promptir_files, moceir_files])
def test_three_degradations_need_no_others(tmp_path: Path, load: Callable[..., PairedFiles]) -> None:
    touch(tmp_path, [name for name in PROMPTIR_TEST + MOCEIR_TEST if not name.startswith(("debl", "enh", "llie"))])
    files = load(tmp_path, whole=False)
    assert files.degradations == (*NOISE, "rain", "haze")
    assert all(pair.degraded is None for pair in files.of("noise25").pairs)
    with pytest.raises(DataError, match="has no 'blur', only noise15, noise25, noise50, rain, haze"):
        files.of("blur")


@pytest.mark.parametrize("images", [0, 67, 68, 69])
def test_the_number_of_images_is_that_of_the_benchmark(tmp_path: Path, images: int) -> None:
    touch(tmp_path, under("denoise/bsd68", *(f"{number}.png" for number in range(images))))
    touch(tmp_path, [f"derain/Rain100L/{side}/{number}.png" for side in ("input", "target") for number in range(100)])
    touch(tmp_path, [f"dehaze/input/{number:04d}_0.8_0.2.jpg" for number in range(492)])
    touch(tmp_path, [f"dehaze/target/{number:04d}.png" for number in range(492)])
    if images == 68:
        files = promptir_files(tmp_path)
        assert [len(files.of(name)) for name in files.degradations] == [68, 68, 68, 100, 492]
        touch(tmp_path, ["dehaze/input/0491_0.9_0.2.jpg"])
        with pytest.raises(DataError, match="1 problem:\n  haze: 493 pairs, the published set has 500 or 492"):
            promptir_files(tmp_path)
    else:
        with pytest.raises(DataError, match=f"noise25: {images} pairs, the published set has 68"):
            promptir_files(tmp_path)


@pytest.mark.parametrize(
    ("load", "message"),
    [
        (partial(promptir_files, split="train", setting=5), "haze: 4 pairs, the published set has 72135"),
        (partial(moceir_files, split="train", setting=5), "low: 1 pairs, the published set has 485"),
        (cdd11_files, "low_rain: 2 pairs, the published set has 200"),
        (partial(cdd11_files, split="train"), "low: 2 pairs, the published set has 1183"),
        (allweather_files, "snow-large: 1 pairs, the published set has 16801"),
        (partial(allweather_files, split="train"), "weather: 3 pairs, the published set has 18069"),
    ],
)
def test_numbers_other_than_the_published_are_refused(tmp_path: Path, load: Load, message: str) -> None:
    touch(tmp_path, PROMPTIR_TRAIN + MOCEIR_TRAIN + CDD11_TEST + ALLWEATHER_TEST + ALLWEATHER_TRAIN)
    touch(tmp_path, [name.replace("test", "train", 1) for name in CDD11_TEST])
    with pytest.raises(DataError) as raised:
        load(tmp_path)
    assert message in str(raised.value)


def test_a_message_lists_ten_and_counts_the_rest(tmp_path: Path) -> None:
    touch(tmp_path, WEATHERBENCH)
    touch(tmp_path, [f"some/input/new{number:02d}.jpg" for number in range(25)])
    with pytest.raises(DataError) as raised:
        weatherbench_files(tmp_path / "some/input", tmp_path / "some/target")
    lines = str(raised.value).splitlines()
    assert lines[0].endswith("is not whole, 26 problems:")
    assert lines[1] == "  target/new00.*: missing, the clean image of input/new00.jpg"
    assert len(lines) == 12
    assert lines[-1] == "  ... and 16 more"


def test_two_targets_of_one_name_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, [*WEATHERBENCH, "some/target/1.jpg"])
    with pytest.raises(DataError, match=r"target/1\.png: 1\.jpg has the same name"):
        weatherbench(tmp_path)


def test_a_clean_image_of_many_is_named_once(tmp_path: Path) -> None:
    touch(tmp_path, CDD11_TEST)
    (tmp_path / "test/clear/000002.png").unlink()
    (tmp_path / "test/haze_rain/000001.png").unlink()
    with pytest.raises(DataError) as raised:
        cdd11_files(tmp_path, whole=False)
    assert str(raised.value).splitlines()[1:] == [
        "  test/clear/000002.*: missing, the clean image of test/low/000002.png and 10 more",
        "  test/clear/000001.png: no degraded image of it in test/haze_rain",
    ]


@pytest.mark.parametrize("prefix", ["", "CDD-11_"])
def test_cdd11_folders(tmp_path: Path, prefix: str) -> None:
    touch(tmp_path, [prefix + name for name in CDD11_TEST])
    files = cdd11_files(tmp_path, whole=False)
    assert files.degradations == CDD11
    touch(tmp_path, [f"{prefix}test/low_fog/000001.png"])
    with pytest.raises(DataError, match=f"{prefix}test/low_fog: not expected"):
        cdd11_files(tmp_path, whole=False)


def test_a_missing_root_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="absent is not a folder"):
        cdd11_files(tmp_path / "absent")


def test_the_pairs_of_a_benchmark_can_be_trained_on(tmp_path: Path) -> None:
    write_images(tmp_path, PROMPTIR_TRAIN)
    files = promptir_files(tmp_path, "train", 5, whole=False)
    pairs = PairedFileSet(files, patch=4, repeats=REPEATS[5])
    # Images times repeats: three noises, rain, haze, blur, low light.
    assert len(pairs) == 3 * 3 * 2 + 120 * 2 + 4 + 5 + 20
    for index in range(0, len(pairs), 7):
        pair = pairs[index]
        assert pair.degraded.shape == pair.clean.shape == (3, 4, 4)
    assert set(REPEATS[3]) == {*NOISE, "rain", "haze"}
