"""Figures in README and docs are those that the benchmarks wrote; code and commands in them run as printed."""

import json
import re
import shlex
import sys
from importlib.metadata import metadata, requires
from pathlib import Path
from types import ModuleType

import click
import pytest
import torch
import typer
import yaml
from PIL import Image
from tests.registries import forget_afterwards

import exda_primitives
from exda_primitives import models
from exda_primitives.cli import app
from exda_primitives.models.registry import known_architectures
from exda_primitives.patching.registry import known_backbones, known_families
from exda_primitives.workbench.export import export
from exda_primitives.workbench.export.onnx_file import OnnxNetwork
from exda_primitives.workbench.restoration import restore

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
# Written by programs; other tests compare these pages with the programs' output.
_GENERATED = {"evidence.md", "recognised.md", "repositories.md"}
PAGES = {
    path.name: path.read_text()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
    if path.name not in _GENERATED
}
TEXT = "\n".join(PAGES.values())


@pytest.mark.parametrize("name", ["demo_weights", "cpu_forward", "restore_seam"])
def test_tables_equal_the_results(name: str) -> None:
    rows = [
        line for line in (ROOT / "benchmarks" / "results" / f"{name}.md").read_text().splitlines() if line[:1] == "|"
    ]
    assert rows
    assert [row for row in rows if row not in TEXT] == []


def block_table(folder: str) -> list[str]:
    """Rows of the table of whole blocks in a benchmark's results."""
    _, table, *_ = (ROOT / "benchmarks" / "results" / folder / "results.md").read_text().split("\n## ")
    return [line for line in table.splitlines() if line[:1] == "|"]


@pytest.mark.parametrize("folder", ["cpu", "cpu_bf16"])
def test_tables_of_fused_blocks_equal_the_results(folder: str) -> None:
    rows = block_table(folder)
    assert len(rows) > 2
    assert [row for row in rows if row not in TEXT] == []


def test_figures_on_fused_blocks_equal_the_tables() -> None:
    # The last row, 256 x 256: times in ms with their ratio to the original (patched, then fused), then memory.
    single, half = (
        [[float(number) for number in re.findall(r"[\d.]+", cell)] for cell in block_table(folder)[-1].split("|")[4:-1]]
        for folder in ("cpu", "cpu_bf16")
    )
    time, patched, memory = single[3][1], single[2][1], single[7][0] / single[4][0]
    said = f"takes {time:.2f} of its time at 256 x 256, patched {patched:.2f}, and {memory:.2f} of its memory"
    assert said in README.replace("\n", " ")
    time, patched = (half[column][0] / single[0][0] for column in (3, 2))
    assert f"takes {time:.2f} of the time at 256 x 256, patched {patched:.2f}" in TEXT


def test_figures_on_bfloat16_equal_the_evaluation() -> None:
    full, half = (
        [float(each["psnr"]) for each in json.loads(path.read_text())["pictures"]]
        for path in ((ROOT / "benchmarks" / "results" / "half" / of / "evaluate.json") for of in ("float32", "half"))
    )
    lost = [before - after for before, after in zip(full, half, strict=True)]
    said = f"{sum(lost) / len(lost):.2f} dB on average and {max(lost):.2f} dB for the worst of {len(lost)} images"
    assert said in TEXT


def test_figures_beside_other_programs_equal_the_results() -> None:
    lines = (ROOT / "benchmarks" / "results" / "cpu_runtimes" / "results.jsonl").read_text().splitlines()
    ratios = {
        (row["height"], row["variant"], row["mode"]): f"{row['ratio_to_eager']:.2f}"
        for row in map(json.loads, lines)
        if row["status"] == "timed"
    }
    others = ("compiled", "onnxruntime", "openvino")
    for side in (64, 128, 256):
        ours = ratios[side, "fused-original", "eager"], ratios[side, "fused", "eager"]
        theirs = [ratios[side, "original", mode] for mode in others]
        assert f"| {side}x{side} | {' | '.join([*ours, *theirs])} |" in PAGES["speed.md"]
        behind = [mode for mode, ratio in zip(others, theirs, strict=True) if float(ratio) < float(ours[0])]
        assert behind == (["compiled"] if side == 64 else [])


def test_figures_on_sizes_equal_the_results() -> None:
    rows = json.loads((ROOT / "benchmarks" / "results" / "exda_sizes.json").read_text())["rows"]
    of = {(row["network"], *row["size"]): row for row in rows}
    for name in dict.fromkeys(row["network"] for row in rows):
        small, large = of[name, 256, 256], of[name, 1080, 1920]
        said = f"| `{name}` | {small['macs'] / 1e9:.0f} G | {small['seconds']:.1f} s | {large['seconds']:.1f} s |"
        assert f"{said} {large['peak_gib']:.1f} GiB |" in PAGES["networks.md"]
    assert [row["network"] for row in rows if row["size"] == [2160, 3840] and row["seconds"]] == ["exda-tiny"]


def test_figures_on_tiles_equal_the_results() -> None:
    rows = json.loads((ROOT / "benchmarks" / "results" / "tile_sides.json").read_text())["rows"]

    def gain(photographs: str, network: str, side: int) -> float:
        tiles, whole = (
            [row["psnr"] for row in rows if (row["set"], row["network"], row["tile"]) == (photographs, network, tile)]
            for tile in (side, None)
        )
        return sum(tiles) / len(tiles) - sum(whole) / len(whole)

    large = min(gain("test_whole", network, side) for network in ("host", "exda") for side in (128, 192, 256))
    small = min(gain("test_512", network, 128) for network in ("host", "exda"))
    text = PAGES["restore.md"].replace("\n", " ")
    assert f"come out {large:.1f} dB better in tiles of 128 to 256 pixels than whole" in text
    assert f"pixels {small:.1f} dB better in tiles of 128" in text
    table = (ROOT / "benchmarks" / "results" / "tile_sides.md").read_text().partition("## test_whole")[2]
    assert [line for line in table.splitlines() if line[:1] == "|" and line not in PAGES["restore.md"]] == []
    page = (ROOT / "benchmarks" / "results" / "tile_sides_long.md").read_text()
    for column, degradation in enumerate(("low", "haze", "rain", "snow"), 1):
        found = page.partition(f"## test_512, {degradation}:")[2].partition("##")[0]
        for side in (64, 128, 256, 384):
            cell = re.search(rf"^\| {side} \|.*\| (.*) \|$", found, re.MULTILINE)
            row = re.search(
                rf"^\| {side} \| [-+]\d.*$", PAGES["restore.md"].partition("A network that knows")[2], re.MULTILINE
            )
            assert cell is not None
            assert row is not None
            assert row[0].split(" | ")[column].removesuffix(" |") == cell[1]


def test_figures_on_adaptation_equal_the_results() -> None:
    for method in ("lora", "exda", "both"):
        path = ROOT / "benchmarks" / "results" / "adapt" / f"{method}.json"
        result = json.loads(path.read_text())
        row = next(line for line in path.with_suffix(".md").read_text().splitlines() if line.startswith("| low |"))
        _, _, _, degraded, before, after, gain, _ = (cell.strip() for cell in row.split("|"))
        steps, after = result["config"]["chosen"]["steps"], after.partition(" ")[0]
        said = f"| `{method}` | {result['trained_parameters']:,} | {steps:,} | {after} | {gain} |"
        assert said in PAGES["adapt.md"]
        text = PAGES["adapt.md"].replace("\n", " ")
        assert (
            f"{degraded.partition(' ')[0]} dB in low light and {before.partition(' ')[0]} dB after the network" in text
        )


def test_figures_on_ways_to_adapt_equal_the_results() -> None:
    runs = json.loads((ROOT / "benchmarks" / "results" / "adaptation.json").read_text())["runs"]
    scores: dict[str, list[float]] = {}
    for run in runs:
        if run["setting"] == "low":
            psnr = run["scores"]["low"]["psnr"]
            scores.setdefault(run["arm"], []).append(sum(psnr) / len(psnr))
    assert {len(each) for each in scores.values()} == {3}
    mean = {arm: sum(each) / len(each) for arm, each in scores.items()}
    everywhere, lora, exda = (mean[f"frozen, {arm}"] for arm in ("LoRA everywhere", "LoRA", "both"))
    half = mean["frozen, half both, half LoRA"]
    assert everywhere == max(value for arm, value in mean.items() if arm.startswith("frozen"))
    text = PAGES["adapt.md"].replace("\n ", "")
    assert f"restored low light best: {everywhere:.1f} dB, with as many parameters" in text
    said = f"They reached {exda:.1f} dB there, LoRA in the attentions alone {lora:.1f} dB, half of each {half:.1f} dB"
    assert said in text
    assert f"learns low light {lora - exda:.1f} dB better by LoRA of equal size" in README.replace("\n", " ")


def test_figures_on_strength_equal_the_results() -> None:
    rows = json.loads((ROOT / "benchmarks" / "results" / "strength.json").read_text())["rows"]
    told: dict[tuple[str, str], list[float]] = {}
    for row in rows:
        told.setdefault((row["degradation"], row["features"]), []).append(row["r2"])
    means = {key: round(100 * sum(each) / len(each)) for key, each in told.items()}
    maps, attention, given = (means["noise", of] for of in ("tokens' maps", "tokens' rows", "input"))
    text = PAGES["tools.md"].replace("\n ", "")
    said = f"{maps} % of the variance of the noise's strength from the tokens' maps and {attention} % from their"
    assert f"{said} attention, {given} % from the input" in text
    assert f"of rain at most {max(each for (name, _), each in means.items() if name == 'rain')} % from anything" in text
    assert max(each for (name, _), each in means.items() if name in ("haze", "low light", "motion blur")) <= 10


def test_the_paper_is_cited_alike_everywhere() -> None:
    (cited,) = blocks("bibtex", README)
    assert blocks("bibtex", PAGES["faq.md"]) == [cited]
    title, authors = (
        re.sub(r"\s+", " ", each) for each in re.findall(r"\n  (?:title|author) += {(.*?)},(?=\n)", cited, re.DOTALL)
    )
    names = authors.split(" and ")
    (reference,) = yaml.safe_load((ROOT / "CITATION.cff").read_text())["references"]
    assert [f"{each['given-names']} {each['family-names']}" for each in reference["authors"]] == names
    assert reference["title"] == re.sub(r"[{}]", "", title)
    assert f"{', '.join(names[:-1])} and {names[-1]}" in (ROOT / "docs" / "evidence.md").read_text()


@pytest.mark.parametrize("name", PAGES)
def test_linked_and_named_files_exist(name: str) -> None:
    folder = ROOT if name in ("README.md", "CONTRIBUTING.md") else ROOT / "docs"
    links = re.findall(r"\]\((?!http|#)([^)#]+)[^)]*\)", PAGES[name])
    paths = re.findall(r"`((?:src|benchmarks|adapters|examples|docs)/[\w./-]*)`", PAGES[name])
    assert [path for path in links if not (folder / path).exists()] == []
    assert [path for path in paths if not (ROOT / path).exists()] == []


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text()
    assert [path.name for path in (ROOT / "docs").glob("*.md") if f": {path.name}\n" not in navigation] == []


def test_figures_on_evidence_equal_the_evidence_page() -> None:
    rows = (ROOT / "docs" / "evidence.md").read_text().splitlines()
    digits = next(row for row in rows if row.startswith("| Non-linear values restore degraded digits"))
    low, high = (f"{float(each):.1f}" for each in re.findall(r"\+(\d\.\d+) \(", digits))
    assert f"degraded digits {low} to {high} dB better" in README.replace("\n", " ")
    windows = next(row for row in rows if row.startswith("| Non-linear values restore degraded digits better within"))
    said = f"{re.findall(r'gain .dB.: (.*) .', windows)[0].partition(')')[0].replace(' (', ' dB (')}, three seeds;"
    patch = (ROOT / "docs" / "patch.md").read_text().replace("\n", " ")
    assert said in patch
    assert f"gains +{re.findall(r'[+](.*?) ', digits)[0]} dB across channels" in patch
    equal = next(row for row in rows if row.startswith("| The primitives restore better in equal"))
    assert "of 8 conditions: 5 inconclusive, 3 refuted" in equal
    assert "behind in three conditions of eight" in README.replace("\n", " ")


def write_images(folder: Path, number: int) -> None:
    folder.mkdir(exist_ok=True)
    for index in range(number):
        Image.new("RGB", (80, 72), (20 * index, 90, 160)).save(folder / f"{index}.png")


def blocks(language: str, text: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Replaces Restormer by a small network, and forgets what is registered when the test ends."""
    sizes = {"dim": 8, "num_blocks": [1, 1, 1, 1], "num_refinement_blocks": 1}
    whole = models.Restormer

    def made(*arguments: object, **options: object) -> torch.nn.Module:
        return whole(*arguments, **(options or sizes))

    monkeypatch.setattr(models, "Restormer", made)
    forget_afterwards(monkeypatch)


@pytest.mark.parametrize("name", [name for name, text in PAGES.items() if "```python" in text])
def test_every_python_block_runs_as_printed(
    name: str, small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    network = models.PromptIR(num_blocks=[1, 1, 1, 1], num_refinement_blocks=1)
    torch.save({"state_dict": {f"net.{name}": each for name, each in network.state_dict().items()}}, "model.ckpt")
    torch.save(models.Restormer().state_dict(), "deraining.pth")
    write_images(Path("photographs"), 3)
    if name == "export.md":
        export(models.Restormer().eval(), Path("demo.onnx"))
    # Blocks run in order in one namespace: later ones use what earlier ones imported and made.
    page = ModuleType("page")
    # Unpickling looks the page's classes up in sys.modules.
    monkeypatch.setitem(sys.modules, "page", page)
    namespace = vars(page)
    for block in blocks("python", PAGES[name]):
        exec(compile(block, name, "exec"), namespace)
    if name == "export.md":
        picture = torch.randint(256, (21, 30, 3), dtype=torch.uint8)
        expected = restore(OnnxNetwork(Path("demo.onnx")), picture.movedim(-1, 0) / 255).image.movedim(0, -1) * 255
        assert (torch.from_numpy(namespace["restore"](picture.numpy())) - expected).abs().max() < 0.51
        assert "torch" not in "".join(blocks("python", PAGES[name]))
    if name == "add-an-attention.md":
        assert {"my-smsa"} <= known_families().keys()
    if name == "adapters.md":
        assert {"mynet"} <= known_backbones().keys()
        assert {"myattention"} <= known_families().keys()
        assert {"net"} <= known_architectures().keys()


def test_the_newest_dated_section_of_the_changelog_is_the_version() -> None:
    sections = re.findall(
        r"^## \[(\d+\.\d+\.\d+)\] - \d{4}-\d\d-\d\d$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )
    assert sections[0] == exda_primitives.__version__


def test_pip_commands_name_existing_extras() -> None:
    lines = re.findall(r"pip install ([^`&\n]*)", TEXT)
    assert len(lines) > 4
    extras = metadata("exda_primitives").get_all("Provides-Extra")
    needed = {re.split(r"[<>=~!; ]", each)[0] for each in requires("exda_primitives") or ()}
    for line in lines:
        *options, what = shlex.split(line)
        if not what.startswith("."):
            # Packages that the library itself needs.
            assert {*options, what} <= needed, line
            continue
        assert set(options) <= {"-e", "--no-deps"}
        # From the checkout: the package is on no index.
        found = re.fullmatch(r"\.(?:\[([\w,]+)\])?", what)
        assert found, line
        assert set(filter(None, (found[1] or "").split(","))) <= set(extras)


def command_of(words: list[str], command: click.Command) -> tuple[click.Command, list[str]]:
    """Returns the command that the words name, and the words after its name."""
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    return command, words


def test_every_command_in_the_text_has_the_options_that_are_named() -> None:
    lines = re.findall(r"`exda ([^`]*)`", TEXT)
    assert len(lines) > 8
    for line in lines:
        command, words = command_of(shlex.split(line), typer.main.get_command(app))
        known = {name for parameter in command.params for name in parameter.opts}
        assert {word.partition("=")[0] for word in words if word.startswith("--")} <= known, line


def test_paths_in_printed_commands_exist() -> None:
    paths = re.findall(r"(?<![\w/.])(?:tests|benchmarks|examples)/[\w./-]+", "\n".join(blocks("bash", TEXT)))
    assert len(paths) > 4
    assert [path for path in paths if not (ROOT / path).exists()] == []
