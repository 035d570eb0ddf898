"""Configuration files: what they may contain, and how errors in them are reported."""

import importlib
import json
import re
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

import exda_primitives as exda
from exda_primitives.models import list_models as networks
from exda_primitives.workbench.data.benchmarks import REPEATS
from exda_primitives.workbench.training import ABLATIONS, RECIPES, TrainConfig, prepare, read_config
from exda_primitives.workbench.training.objective import learning_rate
from exda_primitives.workbench.training.stages import stages_of

EXAMPLES = Path(__file__).parents[3] / "examples" / "train"
LEAST = """
model: {name: restormer}
data: {source: photographs, degradations: [rain]}
recipe: {steps: 100}
"""


@pytest.fixture
def read(tmp_path):
    def from_text(text=LEAST, *changes):
        (tmp_path / "run.yaml").write_text(text)
        return read_config(tmp_path / "run.yaml", changes)

    return from_text


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_example_can_be_read(path):
    configuration = read_config(path)
    assert configuration.model.name in networks()
    assert TrainConfig.decoded(configuration.as_dict()) == configuration


def test_there_are_examples():
    assert {path.stem for path in EXAMPLES.iterdir()} >= {"promptir", "budget", "ablation"}


def test_the_promptir_example_has_its_authors_recipe():
    configuration = read_config(EXAMPLES / "promptir.yaml")
    recipe = configuration.recipe
    assert (configuration.data.patch, recipe.batch, recipe.epochs, recipe.steps) == (128, 8, 120, None)
    assert (recipe.learning_rate, recipe.warm_up * 120, recipe.cosine_to * 120) == (2e-4, 15, 150)
    assert (recipe.l1, recipe.fft) == (1, 0)


def test_the_restormer_example_has_its_authors_schedule():
    configuration = read_config(EXAMPLES / "restormer.yaml")
    stages, recipe = stages_of(configuration, configuration.recipe.steps), configuration.recipe
    assert [stage.patch for stage in stages] == [128, 160, 192, 256, 320, 384]
    assert [stage.batch for stage in stages] == [8, 5, 4, 2, 1, 1]
    assert [stage.end - stage.begin for stage in stages] == [92_000, 64_000, 48_000, 36_000, 36_000, 24_000]
    assert (recipe.steps, recipe.weight_decay, recipe.clip, recipe.l1, recipe.fft) == (300_000, 1e-4, 0.01, 1, 0)
    rates = {step: learning_rate(step, 300_000, recipe) for step in (0, 92_000, 196_000, 299_999)}
    # The authors' cosine ends at 1e-6 rather than at 0.
    theirs = {0: 3e-4, 92_000: 3e-4, 196_000: (3e-4 + 1e-6) / 2, 299_999: 1e-6}
    assert all(abs(rates[step] - rate) <= 1e-6 for step, rate in theirs.items())


@pytest.mark.parametrize(("setting", "epochs"), [(3, 130), (5, 150)])
def test_the_exda_example_has_the_nearest_published_recipe(setting, epochs):
    path = EXAMPLES / "exda.yaml"
    # The changes for five degradations are in the file's own comment.
    of_five = re.search(r"--out runs/exda-5(.*?)\n#\n", path.read_text(), re.DOTALL)[1]
    configuration = read_config(path, re.findall(r"--set (\S+)", of_five) if setting == 5 else [])
    recipe, data = configuration.recipe, configuration.data
    assert (data.patch, recipe.batch, recipe.epochs, recipe.learning_rate) == (128, 32, epochs, 2e-4)
    assert (recipe.l1, recipe.fft, recipe.weight_decay) == (1, 0.1, 0.01)
    # Warm-up over 15 epochs, and a cosine that would reach 0 at 150.
    rates = [learning_rate(step, 100 * epochs, recipe) for step in (1499, 1500, 8250)]
    assert rates == pytest.approx([2e-4, 2e-4, 1e-4])
    assert (data.benchmark, {"haze": 1, **data.repeats}) == (f"promptir-{setting}", REPEATS[setting])


def test_the_files_own_values_win(read):
    configuration = read("base: budget" + LEAST)
    assert (configuration.recipe.steps, configuration.recipe.batch) == (100, RECIPES["budget"]["recipe"]["batch"])
    configuration = read("base: promptir" + LEAST)
    assert (configuration.recipe.steps, configuration.recipe.epochs) == (100, None)


def test_changes_win_over_the_file(read):
    configuration = read("base: budget" + LEAST, "recipe.epochs=3", "recipe.learning_rate=1e-3", "primitives.tokens=2")
    assert (configuration.recipe.steps, configuration.recipe.epochs, configuration.recipe.learning_rate) == (
        None,
        3,
        1e-3,
    )
    assert configuration.primitives.tokens == 2
    assert read(LEAST, "base=budget").recipe.batch == 4
    assert read(LEAST, "data.degradations=[rain, haze]").data.degradations == ("rain", "haze")


def test_a_base_is_not_changed_by_a_file_that_uses_it(read):
    before = {name: {key: dict(section) for key, section in each.items()} for name, each in RECIPES.items()}
    read("base: promptir" + LEAST, "recipe.batch=1")
    assert before == RECIPES


def test_a_configuration_in_json_can_be_read(read):
    configuration = read(
        '{"model": {"name": "promptir"}, "data": {"source": "x", "benchmark": "cdd11"}, "recipe": {"epochs": 1}}'
    )
    assert configuration.data.benchmark == "cdd11"


@pytest.mark.parametrize("letter", ABLATIONS)
def test_every_ablation_sets_its_primitives(read, letter):
    configuration = read(LEAST, f"primitives.ablation={letter}", "primitives.include=decoder").primitives
    assert configuration.init == "paper"
    assert configuration.include == ("decoder",)
    assert configuration.adds is (letter != "a")


def test_ablations_differ_and_can_be_changed(read):
    configuration = [read(LEAST, f"primitives.ablation={letter}").primitives.options for letter in ABLATIONS]
    assert len(set(configuration)) == 7
    assert configuration[-1] == exda.ExDAConfig(init="paper")
    changed = read(LEAST, "primitives.ablation=g", "primitives.value=gelu", "primitives.stride=4").primitives.options
    assert changed == exda.ExDAConfig(value="gelu", stride=4, init="paper")


def test_a_configuration_without_primitives(read):
    assert read().primitives is None
    assert read(LEAST, "primitives=none").primitives is None
    assert read(LEAST, "primitives=null").primitives is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("recipe.lr=1e-3", r"recipe\.lr: is not known\. Known are steps, epochs, batch"),
        ("recipe.learning_rat=1", r"recipe\.learning_rat: is not known\. Did you mean learning_rate\?"),
        ("trainer.gpus=1", r"trainer: is not known\. Known are model, data, recipe, primitives"),
        ("recipe.batch=2.5", r"recipe\.batch: found 2\.5 \(float\), expected a whole number"),
        ("recipe.batch=true", r"recipe\.batch: found True \(bool\), expected a whole number"),
        ("recipe.batch=0", r"recipe\.batch: found 0, expected a number of at least 1"),
        ("recipe.learning_rate=fast", r"recipe\.learning_rate: found 'fast' \(str\), expected a number"),
        ("recipe.learning_rate=.nan", r"recipe\.learning_rate: found nan, expected a number above 0"),
        ("recipe.learning_rate=-1", r"recipe\.learning_rate: found -1\.0, expected a number above 0"),
        ("recipe.precision=16", r"recipe\.precision: found 16 \(int\), expected one of '32-true'"),
        ("recipe.train=[all]", r"recipe\.train: found \['all'\] \(list\), expected one of 'all', 'new'"),
        ("recipe.ema=1", r"recipe\.ema: found 1\.0, expected a number between 0 and 1"),
        ("recipe.clip=0", r"recipe\.clip: found 0\.0, expected a number above 0"),
        ("recipe.warm_up=15", r"recipe\.warm_up: found 15\.0, expected a number from 0 to 1"),
        ("recipe.cosine_to=0.5", r"recipe\.cosine_to: found 0\.5, expected a number of at least 1"),
        (
            "recipe={steps: 9, warm_up: 0.5, cosine_from: 0.1}",
            r"recipe\.cosine_from: found 0\.1, expected a number from recipe\.warm_up \(0\.5\) to 1",
        ),
        ("recipe={steps: 9, cosine_from: 0.5, cosine_to: null}", r"recipe\.cosine_from: needs cosine_to"),
        ("recipe.l1=0", "weights l1 and fft are both 0"),
        ("recipe.steps=null", "found steps None and epochs None"),
        ("recipe.validate_every=10", r"recipe\.validate_every: needs images, data\.validation"),
        ("recipe=5", r"recipe: found 5 \(int\), expected names with values"),
        ("data.patch=4", r"data\.patch: found 4, expected a number of at least 8"),
        ("data.repeats={rain: lots}", r"data\.repeats\.rain: found 'lots' \(str\), expected a whole number"),
        ("data.repeats=[rain]", r"data\.repeats: found \['rain'\] \(list\), expected names with values"),
        ("data.degradations=[]", "expected one of three: degradations of clean images, a benchmark, or a source of"),
        ("data.degradations=[1]", r"data\.degradations\[0\]: found 1 \(int\), expected a text"),
        ("data.benchmark=cdd11", "expected one of three"),
        ("data.source={degraded: a, clean: b}", "expected one of three"),
        ("data.source={degraded: a}", r"data\.source\.clean: is missing"),
        ("data.source={noisy: a, clean: b}", r"data\.source\.noisy: is not known\. .*Known are degraded, clean"),
        ("data.source=null", r"data\.source: found None \(NoneType\), expected a text"),
        ("data.source=[a, b]", r"data\.source: found \['a', 'b'\] \(list\), expected a text"),
        ("data.benchmark=imagenet", r"data\.benchmark: found 'imagenet' \(str\), expected one of 'promptir-3'"),
        ("model.arguments=48", r"model\.arguments: found 48 \(int\), expected names with values"),
        ("model.name=auto", r"model\.name: 'auto' needs model\.checkpoint"),
        ("primitives.value=swish", r"primitives: ExDAConfig\(value='swish'\)"),
        ("primitives.stride=0", r"primitives: ExDAConfig\(stride=0\)"),
        ("primitives.ablation=z", r"primitives\.ablation: found 'z', expected one of a, b"),
        ("base=fast", r"base: found 'fast', expected one of promptir, budget"),
        ("base=[1]", r"base: found \[1\]"),
        ("recipe.steps", r"'recipe\.steps': expected section\.key=value"),
        ("recipe..steps=1", r"expected section\.key=value"),
        ("recipe.clip={", r"is no YAML \(while parsing a flow .*\)\.$"),
        ("primitives.include=[*.0.attn]", r"is no YAML .* A pattern that begins with \* goes in quotes\."),
    ],
)
def test_errors_name_the_key(read, change, message):
    with pytest.raises(exda.ConfigError, match=message):
        read(LEAST, change)


STAGES = "[{until: 30, patch: 16, batch: 4}, {until: 0.5, patch: 24, batch: 2}, {patch: 32, batch: 1}]"


def test_stages_end_at_steps_or_fractions(read):
    configuration = read(LEAST, f"recipe.progressive={STAGES}")
    assert stages_of(configuration, 100) == [(0, 30, 16, 4), (30, 50, 24, 2), (50, 100, 32, 1)]
    assert (configuration.data.patch, configuration.recipe.batch) == (None, None)
    assert TrainConfig.decoded(json.loads(json.dumps(configuration.as_dict()))) == configuration


def test_stages_replace_the_patch_and_batch_below_them(read):
    given = LEAST.replace("degradations", "patch: 64, degradations").replace("steps", "batch: 3, steps")
    for base in ("", "base: budget"):
        configuration = read(base + given, f"recipe.progressive={STAGES}")
        assert (configuration.data.patch, configuration.recipe.batch, len(configuration.recipe.progressive)) == (
            None,
            None,
            3,
        )
    assert stages_of(read("base: budget" + given), 100) == [(0, 100, 64, 3)]
    assert stages_of(read(), 100) == [(0, 100, 128, 8)]
    assert stages_of(read(LEAST, "recipe.progressive=null"), 100) == [(0, 100, 128, 8)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("=[]", r": found no stage, expected a list of stages, each with patch, batch and until"),
        ("=[{patch: 16}]", r"\[0\]\.batch: is missing"),
        ("=[{patch: 16, batch: 1, steps: 5}]", r"\[0\]\.steps: is not known"),
        ("=[{patch: 4, batch: 1}]", r"\[0\]\.patch: found 4, expected a number of at least 8"),
        ("=[{patch: 8, batch: 0}]", r"\[0\]\.batch: found 0, expected a number of at least 1"),
        ("=[{patch: 8, batch: 1, until: 100}]", r"\[0\]\.until: found 100, but the last stage lasts to the end"),
        ("=[{patch: 8, batch: 1}, {patch: 8, batch: 1}]", r"\[0\]\.until: is missing; only the last stage"),
        *(
            (f"=[{{patch: 8, batch: 1, until: {until}}}, {{patch: 8, batch: 1}}]", rf"\[0\]\.until: {message}")
            for until, message in {
                "0": r"found 0\.0, expected a number of steps, or a fraction between 0 and 1",
                "2.5": r"found 2\.5, expected a number of steps",
                ".nan": "found nan, expected",
                ".inf": "found inf, expected",
                "100": "the stage would last from step 0 to step 100 of 100; each stage must end after the one before",
                "0.999": "the stage would last from step 0 to step 100 of 100",
                "0.001": "the stage would last from step 0 to step 0 of 100",
            }.items()
        ),
        (
            "=[{until: 50, patch: 8, batch: 1}, {until: 0.3, patch: 8, batch: 1}, {patch: 8, batch: 1}]",
            r"\[1\]\.until: the stage would last from step 50 to step 30 of 100",
        ),
    ],
)
def test_bad_stages_are_refused(read, change, message):
    with pytest.raises(exda.ConfigError, match=r"recipe\.progressive" + message):
        read(LEAST, f"recipe.progressive{change}")


def test_stages_exclude_batch_patch_and_epochs(read):
    both = LEAST.replace("steps: 100", f"steps: 100, progressive: {STAGES}")
    with pytest.raises(exda.ConfigError, match=r"recipe\.batch: found 2, but each stage of recipe\.progressive has"):
        read(both, "recipe.batch=2")
    with pytest.raises(exda.ConfigError, match=r"data\.patch: found 64, but each stage of recipe"):
        read(both, "data.patch=64")
    with pytest.raises(exda.ConfigError, match=r"progressive: needs the length in recipe\.steps, found epochs 3"):
        read(both, "recipe.epochs=3")


def test_a_pattern_may_begin_with_a_star(read):
    assert read(LEAST, "primitives.include=*.0.attn").primitives.include == ("*.0.attn",)
    assert read(LEAST, "primitives.include=['*.0.attn', latent]").primitives.include == ("*.0.attn", "latent")


def test_pairs_come_from_two_folders(read):
    folders = {"degraded": "rainy", "clean": "dry"}
    configuration = read(
        LEAST, "data.degradations=[]", f"data.source={folders}", "data.validation={degraded: x, clean: y}"
    )
    assert (
        configuration.data.source.degraded,
        configuration.data.source.clean,
        configuration.data.validation.clean,
    ) == ("rainy", "dry", "y")
    assert TrainConfig.decoded(configuration.as_dict()) == configuration
    with pytest.raises(exda.ConfigError, match=r"data\.validation: found 'some', expected two folders"):
        read(LEAST, "data.degradations=[]", f"data.source={folders}", "data.validation=some")


def test_both_steps_and_epochs_are_refused(read):
    with pytest.raises(exda.ConfigError, match="found steps 100 and epochs 3, expected one of the two"):
        read(LEAST.replace("steps: 100", "steps: 100, epochs: 3"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "found NoneType, expected sections"),
        ("- a\n- b", "found list, expected sections: model, primitives, data, recipe, lora, base"),
        ("a: [", "is no YAML"),
        ("a: !!python/object/apply:os.getcwd []", "is no YAML"),
        ("model: {name: restormer}\nrecipe: {steps: 1}", "data: is missing"),
        ("model: {}\nrecipe: {steps: 1}\ndata: {source: x, degradations: rain}", r"model\.name: is missing"),
        ("1: 2", "1: is not known"),
    ],
)
def test_files_that_are_no_configuration_are_refused(read, text, message):
    with pytest.raises(exda.ConfigError, match=message):
        read(text)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(exda.ConfigError, match=r"none\.yaml: cannot be read"):
        read_config(tmp_path / "none.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(exda.ConfigError, match=r"bytes\.yaml: cannot be read"):
        read_config(tmp_path / "bytes.yaml")


@pytest.mark.parametrize("package", ["yaml", "lightning_fabric", "matplotlib.figure"])
def test_a_missing_package_says_what_to_install(monkeypatch, package, tmp_path):
    # lightning_fabric imports Matplotlib if it is installed, and so has to come before Matplotlib is hidden.
    importlib.import_module("lightning_fabric")
    configuration = read_config(EXAMPLES / "budget.yaml")
    monkeypatch.setitem(sys.modules, package, None)
    use = (
        partial(read_config, EXAMPLES / "budget.yaml")
        if package == "yaml"
        else partial(prepare, configuration, tmp_path)
    )
    with pytest.raises(
        exda.ExDAError,
        match=rf'{package} cannot be imported .*pip install "lightning-fabric>=2\.4" "matplotlib>=3\.8" "pyyaml>=5\.4"',
    ):
        use()


def test_importing_training_needs_no_extra():
    extras = {"lightning", "lightning_fabric", "yaml", "matplotlib", "torchmetrics"}
    loaded = f"{extras} & {{name.split('.')[0] for name in sys.modules}}"
    script = f"import sys, exda_primitives.workbench.training, exda_primitives.cli; print({loaded})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
