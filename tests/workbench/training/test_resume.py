"""A run that is interrupted and resumed gives the same bits as one that was not interrupted."""

import json
import shutil

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from tests.workbench.data.images import write_image
from tests.workbench.training.runs import STEPS, TINY, PowerError, checkpoint, config, final_state, images, run, same

import exda_primitives as exda
from exda_primitives.workbench.training import prepare, train

RECIPES = {
    "all of it": {"clip": 0.1, "ema": 0.9, "warm_up": 0.5, "accumulate": 2, "fft": 0.1, "weight_decay": 0.1},
    "bf16": {"precision": "bf16-mixed", "clip": 0.1, "ema": 0.9, "warm_up": 0.5},
    "new alone": {"train": "new", "ema": 0.9},
}
STAGES = [{"until": 2, "patch": 8, "batch": 3}, {"until": 0.8, "patch": 16, "batch": 1}, {"patch": 8, "batch": 2}]


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_a_resumed_run_is_the_same_bit_for_bit(tmp_path, recipe, capsys):
    # The line of the history that ends at the last step spans the interruption.
    configuration = config(tmp_path, recipe=recipe | {"log_every": 3})
    run(configuration, tmp_path / "whole")
    with pytest.raises(PowerError):
        run(configuration, tmp_path / "halved", stop=3)
    assert checkpoint(tmp_path / "halved")["step"] == 2
    torch.manual_seed(1)
    result = run(configuration, tmp_path / "halved")
    assert same(final_state(tmp_path / "halved"), final_state(tmp_path / "whole"))
    weights = [load_file(tmp_path / name / "weights.safetensors") for name in ("halved", "whole")]
    assert same(*weights)
    assert [leg["after_step"] for leg in result["runs"][0]["legs"]] == [0, 2]
    assert "goes on after step 2, bit for bit" in capsys.readouterr().out


def config_of_stages(folder, workers=0):
    recipe = {"save_every": 1, "batch": None, "accumulate": 2, "progressive": STAGES}
    return config(folder, recipe=recipe, data={"patch": None, "workers": workers})


def test_interrupted_in_every_stage(tmp_path, capsys):
    """Patches and batches change at steps 2 and 4; some of the runs have a process that prepares pairs."""
    result = run(config_of_stages(tmp_path), tmp_path / "whole")
    assert [line["step"] for line in result["runs"][0]["history"]] == [1, 2, 3, 4, 5]
    for step in range(1, STEPS):
        with pytest.raises(PowerError):
            run(config_of_stages(tmp_path, workers=step % 2), tmp_path / "often", stop=step)
    run(config_of_stages(tmp_path), tmp_path / "often")
    assert same(final_state(tmp_path / "often"), final_state(tmp_path / "whole"))
    said = capsys.readouterr().out.splitlines()
    assert "step 2: patches of 16, batches of 1, to step 4" in said
    other = [STAGES[0], STAGES[1] | {"batch": 2}, STAGES[2]]
    changed = config(tmp_path, recipe={"batch": None, "progressive": other}, data={"patch": None})
    with pytest.raises(exda.ConfigError, match=r"recipe\.accumulate was 2, is 1 \(and 1 more\)"):
        run(changed, tmp_path / "often")


def test_interrupted_at_every_step(tmp_path):
    configuration = config(tmp_path, recipe={"save_every": 1, "ema": 0.5})
    run(configuration, tmp_path / "whole")
    for step in range(1, STEPS):
        with pytest.raises(PowerError):
            run(configuration, tmp_path / "often", stop=step)
    run(configuration, tmp_path / "often")
    assert same(final_state(tmp_path / "often"), final_state(tmp_path / "whole"))


def test_a_network_that_draws_random_numbers(tmp_path):
    model = {"name": "moceir", "arguments": {"dim": 8, "num_blocks": [1, 1, 1, 1], "num_dec_blocks": [1, 1, 1]}}
    configuration = config(tmp_path, model=model, primitives=None, recipe={"steps": 3})
    run(configuration, tmp_path / "whole")
    with pytest.raises(PowerError):
        run(configuration, tmp_path / "halved", stop=2)
    run(configuration, tmp_path / "halved")
    assert same(final_state(tmp_path / "halved"), final_state(tmp_path / "whole"))


def test_the_scale_of_the_loss_is_resumed(tmp_path):
    """float16's scale is part of the state."""
    from lightning_fabric import Fabric

    from exda_primitives.workbench.training.folder import Folder
    from exda_primitives.workbench.training.run import Run

    configuration = config(tmp_path, recipe={"precision": "16-mixed", "save_every": 1})

    def finish(name, stop=None):
        def on_step(state):
            if state.step == 1:
                # As after an overflow.
                state.scaler.update(1024.0)
            if state.step == stop:
                raise PowerError

        (tmp_path / name).mkdir(exist_ok=True)
        Run(Fabric(accelerator="cpu", devices=1), configuration, Folder(tmp_path / name)).finish("", on_step)

    finish("whole")
    with pytest.raises(PowerError):
        finish("halved", stop=3)
    finish("halved")
    assert same(final_state(tmp_path / "halved"), final_state(tmp_path / "whole"))
    assert checkpoint(tmp_path / "whole")["scaler"]["scale"] == 1024


def test_processes_that_prepare_pairs_do_not_change_the_result(tmp_path):
    run(config(tmp_path), tmp_path / "here")
    with pytest.raises(PowerError):
        run(config(tmp_path), tmp_path / "there", stop=3)
    run(config(tmp_path, data={"workers": 2}), tmp_path / "there")
    assert same(final_state(tmp_path / "there")["state_dict"], final_state(tmp_path / "here")["state_dict"])


@pytest.mark.parametrize(
    ("name", "sections"),
    [
        ("auto", {"primitives": None}),
        ("restormer", {"primitives": {"init": "paper", "include": "encoder"}}),
        ("auto", {"lora": {"rank": 2}, "recipe": {"train": "new", "ema": 0.9}}),
    ],
)
def test_resuming_does_not_need_the_file_that_the_run_started_from(tmp_path, name, sections):
    host, path = exda.models.Restormer(**TINY), tmp_path / "host.pth"
    torch.save({"params": host.state_dict()}, path)
    configuration = config(tmp_path, model={"name": name, "checkpoint": str(path)}, **sections)
    run(configuration, tmp_path / "whole")
    with pytest.raises(PowerError):
        run(configuration, tmp_path / "halved", stop=3)
    path.unlink()
    run(configuration, tmp_path / "halved")
    assert same(final_state(tmp_path / "halved"), final_state(tmp_path / "whole"))
    with pytest.raises(exda.CheckpointError, match=r"host\.pth: does not exist"):
        prepare(configuration, tmp_path / "new", accelerator="cpu")


def test_another_file_to_start_from_is_refused(tmp_path):
    """A copy under another name is accepted; other weights or a missing file are refused."""

    def configuration(path):
        return config(tmp_path, model={"name": "restormer", "checkpoint": str(path)}, recipe={"ema": 0.9})

    host, paths = exda.models.Restormer(**TINY), [tmp_path / name for name in ("one.pth", "same.pth", "other.pth")]
    torch.save({"params": host.state_dict()}, paths[0])
    shutil.copy(paths[0], paths[1])
    torch.nn.init.zeros_(host.output.weight)
    torch.save({"params": host.state_dict()}, paths[2])
    with pytest.raises(PowerError):
        run(configuration(paths[0]), tmp_path / "out", stop=3)
    for path in (paths[2], tmp_path / "none.pth"):
        with pytest.raises(exda.ConfigError, match=rf"model\.checkpoint was '.*one\.pth', is '{path}'\. Give another"):
            run(configuration(path), tmp_path / "out")
    assert run(configuration(paths[1]), tmp_path / "out")["runs"][0]["legs"][1]["not_bit_for_bit"] == []


def test_the_network_is_that_of_the_checkpoint(tmp_path):
    """The options are ones that no shape of a weight shows."""
    configuration = config(
        tmp_path, primitives={"value_position": "after", "stride": 4, "scale": "mean", "init": "paper"}
    )
    run(configuration, tmp_path / "out")
    ours, theirs = (
        exda.models.create(checkpoint=tmp_path / "out" / name) for name in ("last.ckpt", "weights.safetensors")
    )
    assert exda.config_of(ours) == exda.config_of(theirs) == configuration.primitives.options
    assert same(dict(ours.state_dict()), dict(theirs.state_dict()))


HARMLESS = {
    "recipe": {"save_every": 1, "log_every": 2, "validate_every": 3},
    "data": {"workers": 1},
}


def test_changes_that_affect_no_weight_are_accepted(tmp_path, capsys):
    configuration = config(tmp_path)
    run(configuration, tmp_path / "whole")
    with pytest.raises(PowerError):
        run(configuration, tmp_path / "halved", stop=3)
    changes = {**HARMLESS, "data": {**HARMLESS["data"], "validation": images(tmp_path, "valid.npz", 1)}}
    changed = config(tmp_path, **changes)
    plan = prepare(changed, tmp_path / "halved", accelerator="cpu")
    plan.print(Console(width=300))
    said = capsys.readouterr().out
    for line in ("recipe.save_every was 2, is 1", "data.validation was None, is '", "data.workers was 0, is 1"):
        assert line in said
    result = train(plan)
    assert "goes on after step 2, bit for bit" in capsys.readouterr().out
    weights = [load_file(tmp_path / name / "weights.safetensors") for name in ("halved", "whole")]
    assert same(*weights)
    kept = [checkpoint(tmp_path / name) for name in ("halved", "whole")]
    assert all(same(*(saved[part] for saved in kept)) for part in ("state_dict", "optimizer", "step"))
    assert [line["step"] for line in result["runs"][0]["history"]] == [1, 2, 3, 4, 5]
    assert [line["psnr"] is None for line in result["runs"][0]["history"]] == [True, True, False, True, False]
    assert result["config"] == kept[0]["config"] == changed.as_dict()


def test_the_same_images_in_another_folder_are_accepted(tmp_path, capsys):
    for seed in range(4):
        write_image(tmp_path / "here" / f"{seed}.png", 20, 27, seed=seed)
    configuration = config(tmp_path, data={"source": str(tmp_path / "here")})
    run(configuration, tmp_path / "whole")
    with pytest.raises(PowerError):
        run(configuration, tmp_path / "halved", stop=3)
    (tmp_path / "here").rename(tmp_path / "there")
    run(config(tmp_path, data={"source": str(tmp_path / "there")}), tmp_path / "halved")
    assert "goes on after step 2, bit for bit" in capsys.readouterr().out
    assert same(*(checkpoint(tmp_path / name)["state_dict"] for name in ("halved", "whole")))


def test_other_images_in_another_folder_are_refused(tmp_path):
    """Only one of the images differs, which a sample of them could miss."""
    for seed in range(8):
        for name in ("here", "there"):
            write_image(tmp_path / name / f"{seed}.png", 20, 27, seed=99 if (name, seed) == ("there", 5) else seed)
    with pytest.raises(PowerError):
        run(config(tmp_path, data={"source": str(tmp_path / "here")}), tmp_path / "out", stop=3)
    with pytest.raises(exda.ConfigError, match=r"data\.source was '.*here', is '.*there'\. Give another folder"):
        run(config(tmp_path, data={"source": str(tmp_path / "there")}), tmp_path / "out")
    write_image(tmp_path / "here" / "5.png", 20, 27, seed=99)
    result = run(config(tmp_path, data={"source": str(tmp_path / "here")}), tmp_path / "out")
    assert result["runs"][0]["legs"][1]["not_bit_for_bit"] == [
        "the images, or what is done to them, are not what they were"
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipe": {"learning_rate": 2e-3}}, r"recipe\.learning_rate was 0\.001, is 0\.002\. Give another folder"),
        ({"recipe": {"steps": 50}}, r"recipe\.steps was 5, is 50"),
        ({"primitives": {"init": "paper", "stride": 4, "tokens": 2}}, r"primitives\.stride was 2, is 4 \(and 1 more\)"),
        ({"primitives": None}, r"primitives was .*, is None"),
        ({"data": {"patch": 8}, "recipe": {"save_every": 1}}, r"data\.patch was 16, is 8\. Give"),
    ],
)
def test_another_configuration_is_refused(tmp_path, changes, message):
    out = tmp_path / "out"
    with pytest.raises(PowerError):
        run(config(tmp_path), out, stop=2)
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    with pytest.raises(exda.ConfigError, match=message):
        run(config(tmp_path, **changes), out)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_a_finished_run_is_not_repeated(tmp_path):
    configuration, out = config(tmp_path), tmp_path / "out"
    result = run(configuration, out)
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.iterdir()}
    assert run(configuration, out) == result == json.loads((out / "result.json").read_text())
    assert {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in out.iterdir()} == before


def test_the_reasons_against_bit_for_bit_are_named(tmp_path, capsys):
    out = tmp_path / "out"
    with pytest.raises(PowerError):
        run(config(tmp_path), out, stop=2)
    saved = checkpoint(out)
    saved["legs"][-1]["machine"] |= {"torch": "2.6.0", "threads": 64}
    saved["legs"][-1] |= {"processes": 4, "indeterminate": ["some_backward_cuda has no deterministic form on CUDA"]}
    torch.save(saved, out / "last.ckpt")
    configuration = config(tmp_path)
    images(tmp_path, seed=1)
    result = run(configuration, out)
    reasons = result["runs"][0]["legs"][1]["not_bit_for_bit"]
    assert reasons == [
        f"torch was '2.6.0', is {torch.__version__!r}",
        f"threads was 64, is {torch.get_num_threads()}",
        "4 processes were together, now 1: other batches, and as many epochs in other steps",
        "the images, or what is done to them, are not what they were",
        "some_backward_cuda has no deterministic form on CUDA",
    ]
    assert "goes on after step 2, but not bit for bit: torch was '2.6.0'" in capsys.readouterr().out


@pytest.mark.parametrize("damage", ["cut", "third-party", "newer"])
def test_a_checkpoint_that_cannot_be_read_is_kept(tmp_path, damage):
    out = tmp_path / "out"
    with pytest.raises(PowerError):
        run(config(tmp_path), out, stop=2)
    path = out / "last.ckpt"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:-1000])
    else:
        torch.save({"state_dict": {}} if damage == "third-party" else checkpoint(out) | {"version": 99}, path)
    before = path.read_bytes()
    message = {"cut": "not a whole checkpoint", "third-party": "no checkpoint of exda train", "newer": "version 99"}[
        damage
    ]
    with pytest.raises(exda.CheckpointError, match=message):
        run(config(tmp_path), out)
    assert path.read_bytes() == before


def test_files_without_a_checkpoint_are_not_overwritten(tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "result.json").write_text("mine")
    with pytest.raises(exda.ConfigError, match=r"holds result\.json but no last\.ckpt"):
        prepare(config(tmp_path), out, accelerator="cpu")
    assert (out / "result.json").read_text() == "mine"
    with pytest.raises(exda.ConfigError, match="is a file"):
        prepare(config(tmp_path), out / "result.json", accelerator="cpu")
