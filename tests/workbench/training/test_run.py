"""Whole runs of a few steps."""

import pytest
import torch
from safetensors.torch import load_file
from tests.workbench.data.images import write_image
from tests.workbench.training.runs import (
    STEPS,
    TINY,
    PowerError,
    checkpoint,
    config,
    files_in,
    final_state,
    images,
    run,
    same,
)

import exda_primitives as exda
from exda_primitives.errors import DataError, DivergedError
from exda_primitives.workbench.shared import results
from exda_primitives.workbench.training import prepare, train
from exda_primitives.workbench.training.build import build
from exda_primitives.workbench.training.data import open_data
from exda_primitives.workbench.training.order import Order, mixed
from exda_primitives.workbench.training.stages import stages_of


def batch(configuration, step):
    """Returns the degraded and the clean images of a step."""
    pairs = open_data(configuration, 3).training
    stages = stages_of(configuration, configuration.recipe.steps)
    for_step = next(iter(Order(len(pairs), configuration.recipe.seed, range(step, step + 1), stages=stages)))
    found = []
    for place in for_step:
        pairs.set_epoch(place.epoch)
        pairs.patch = place.patch
        found.append(pairs[place.item][:2])
    return (torch.stack(part) for part in zip(*found, strict=True))


def by_hand(configuration):
    """Does the same training in a plain loop; returns the last weights, their average and the losses."""
    recipe, net = configuration.recipe, build(configuration).net
    optimizer = torch.optim.AdamW(net.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    average, losses = None, []
    for step in range(recipe.steps):
        torch.manual_seed(mixed(recipe.seed, step, 0, 0))
        degraded, clean = batch(configuration, step)
        loss = (net(degraded) - clean).abs().mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), recipe.clip)
        optimizer.step()
        losses.append(loss.item())
        now = {name: each.detach().clone() for name, each in net.named_parameters()}
        if average is None:
            average = now
        average = {name: recipe.ema * average[name] + (1 - recipe.ema) * each for name, each in now.items()}
    return net.state_dict(), average, losses


PROGRESSIVE = {"batch": None, "progressive": [{"until": 2, "patch": 8, "batch": 3}, {"patch": 16, "batch": 1}]}


@pytest.mark.parametrize(("stages", "patch"), [({}, 16), (PROGRESSIVE, None)], ids=["one patch", "progressive"])
def test_training_equals_a_plain_loop(tmp_path, stages, patch):
    recipe = {"clip": 0.05, "ema": 0.75, "cosine_to": None} | stages
    configuration = config(tmp_path, recipe=recipe, data={"patch": patch})
    result = run(configuration, tmp_path / "out")
    weights, average, losses = by_hand(configuration)
    lines = result["runs"][0]["history"]
    assert [line["loss"] for line in lines] == pytest.approx(losses, rel=1e-6)
    assert all(line["gradient_norm"] > 0.05 for line in lines)
    saved = checkpoint(tmp_path / "out")
    torch.testing.assert_close({f"net.{name}": each for name, each in weights.items()}, saved["state_dict"])
    written = load_file(tmp_path / "out" / "weights.safetensors")
    torch.testing.assert_close({name: written[name] for name in average}, average)
    assert all(name.endswith("_extra_state") for name in written.keys() - average.keys())
    # The average differs from the last weights, so that the comparisons above tell them apart.
    assert not same(average, dict(weights))


def test_passes_are_averaged_into_steps(tmp_path):
    """Four pairs in one pass, and in two passes of two, which are summed in another order."""
    found = []
    for batch_size, accumulate in ((4, 1), (2, 2)):
        configuration = config(tmp_path, recipe={"batch": batch_size, "accumulate": accumulate, "steps": 2})
        run(configuration, tmp_path / str(accumulate))
        found.append(checkpoint(tmp_path / str(accumulate))["history"])
    for ours, theirs in zip(*found, strict=True):
        for name in ("loss", "gradient_norm", "learning_rate"):
            # Measured: 1e-6.
            assert ours[name] == pytest.approx(theirs[name], rel=1e-5)


def test_the_files_of_a_finished_run(tmp_path):
    out = tmp_path / "deep" / "out"
    configuration = config(
        tmp_path, data={"validation": images(tmp_path, "valid.npz", 1, seed=1)}, recipe={"validate_every": 3}
    )
    result = run(configuration, out)
    assert files_in(out) == ["last.ckpt", "result.json", "validation.png", "weights.safetensors"]
    assert results.read(out / "result.json", "train") == result
    done = result["runs"][0]
    assert (done["steps"], done["processes"], result["seeds"]) == (STEPS, 1, [0])
    assert [line["psnr"] is not None for line in done["history"]] == [False, False, True, False, True]
    assert result["config"] == configuration.as_dict()
    net = exda.models.create(checkpoint=out / "weights.safetensors")
    assert exda.is_patched(net)
    assert sum(parameter.numel() for parameter in net.parameters()) == done["parameters"]
    # PSNR by hand, with the final network: two pairs of an image of 20 x 27, padded to 24 x 32.
    scores = []
    for degraded, clean, *_ in map(open_data(configuration, 3).validation.__getitem__, range(2)):
        with torch.no_grad():
            padded = torch.nn.functional.pad(degraded[None], (0, 5, 0, 4), mode="reflect")
            restored = net(padded)[0, :, :20, :27].clamp(0, 1)
        scores.append(-10 * (restored - clean).square().mean().log10().item())
    assert done["psnr"] == pytest.approx(sum(scores) / 2, rel=1e-6)


def test_a_checkpoint_can_be_read_like_lightnings(tmp_path):
    run(config(tmp_path, primitives=None), tmp_path / "out")
    net = exda.models.Restormer(**TINY)
    exda.load_checkpoint(tmp_path / "out" / "last.ckpt", into=net)
    assert same(dict(net.state_dict()), load_file(tmp_path / "out" / "weights.safetensors"))


def test_the_host_stays_as_it_is_when_only_new_parameters_train(tmp_path):
    configuration = config(tmp_path, recipe={"train": "new", "ema": 0.5, "weight_decay": 0.5})
    result = run(configuration, tmp_path / "out")
    before, after = build(configuration).net, load_file(tmp_path / "out" / "weights.safetensors")
    ours = {id(parameter) for parameter in exda.new_parameters(before)}
    moved = {name for name, each in before.named_parameters() if not torch.equal(each, after[name])}
    assert moved == {name for name, each in before.named_parameters() if id(each) in ours}
    assert result["runs"][0]["trained_parameters"] == sum(each.numel() for each in exda.new_parameters(before))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_disappears_while_training_is_named(tmp_path, workers):
    """The checkpoint is kept."""
    for seed in range(3):
        write_image(tmp_path / "clean" / f"{seed}.png", 20, 27, seed=seed)
    configuration = config(
        tmp_path, data={"source": str(tmp_path / "clean"), "workers": workers}, recipe={"save_every": 1}
    )
    plan = prepare(configuration, tmp_path / "out", accelerator="cpu")

    def on_step(state):
        (tmp_path / "clean" / "1.png").unlink(missing_ok=True)

    with pytest.raises(exda.ImageError, match=r"1\.png cannot be read: No such file") as caught:
        train(plan, on_step=on_step)
    assert "Traceback" not in str(caught.value)
    assert checkpoint(tmp_path / "out")["step"] > 0


def test_two_runs_are_equal_and_another_seed_is_not(tmp_path):
    configuration = config(tmp_path)
    for name in ("one", "other"):
        run(configuration, tmp_path / name)
    assert same(final_state(tmp_path / "one"), final_state(tmp_path / "other"))
    run(config(tmp_path, recipe={"seed": 1}), tmp_path / "seed")
    losses = [[line["loss"] for line in checkpoint(tmp_path / name)["history"]] for name in ("one", "seed")]
    assert set(losses[0]).isdisjoint(losses[1])


def test_bfloat16_leaves_the_images_alone(tmp_path, monkeypatch):
    """A network that adds nothing to its input has the loss of that input, not of one rounded to bfloat16."""

    def passing_on(configuration, begun):
        network = build(configuration, begun)
        torch.nn.init.zeros_(network.net.output.weight)
        return network

    monkeypatch.setattr("exda_primitives.workbench.training.run.build", passing_on)
    configuration = config(tmp_path, recipe={"steps": 1, "precision": "bf16-mixed"})
    result = run(configuration, tmp_path / "out")
    degraded, clean = batch(configuration, 0)
    assert result["runs"][0]["history"][0]["loss"] == (degraded - clean).abs().mean().item()


def test_a_grey_network(tmp_path):
    model = {"name": "restormer", "arguments": TINY | {"inp_channels": 1, "out_channels": 1}}
    assert run(config(tmp_path, model=model, recipe={"steps": 1}), tmp_path / "out")["runs"][0]["steps"] == 1


def test_an_epoch_has_all_pairs(tmp_path):
    configuration = config(tmp_path, recipe={"steps": None, "epochs": 2, "batch": 5, "save_every": 100})
    plan = prepare(configuration, tmp_path / "out", accelerator="cpu")
    # Two epochs of six pairs in batches of five.
    assert plan.steps == 3
    assert prepare(configuration, tmp_path / "out", devices=2, accelerator="cpu").steps == 2
    repeated = config(tmp_path, data={"repeats": {"haze": 3}}, recipe={"steps": None, "epochs": 1, "batch": 1})
    assert prepare(repeated, tmp_path / "out", accelerator="cpu").steps == 3 + 3 * 3
    assert not (tmp_path / "out").exists()


def test_divergence_names_the_step_and_keeps_the_checkpoint(tmp_path):
    out = tmp_path / "out"
    configuration = config(tmp_path, recipe={"learning_rate": 1e18, "cosine_to": None, "save_every": 1, "steps": 50})
    with pytest.raises(DivergedError, match=r"step \d+: the .* is (nan|inf), with learning rate 1e\+18") as caught:
        run(configuration, out)
    saved = checkpoint(out)
    step = saved["step"]
    last = saved["history"][-1]["loss"]
    assert f"step {step}: " in str(caught.value)
    assert f"the last finite loss was {last:.4g}, of step {step - 1}" in str(caught.value)
    assert "Lower recipe.learning_rate or set recipe.clip" in str(caught.value)
    assert f"{out} holds the checkpoint of step {step}." in str(caught.value)
    assert all(each.isfinite().all() for each in saved["state_dict"].values())
    assert not (out / "result.json").exists()


def test_a_network_that_starts_with_nan_is_refused(tmp_path, monkeypatch):
    def broken(configuration, begun):
        network = build(configuration, begun)
        torch.nn.init.constant_(network.net.output.weight, torch.nan)
        return network

    monkeypatch.setattr("exda_primitives.workbench.training.run.build", broken)
    with pytest.raises(DivergedError, match=r"step 0: the loss is nan.*no loss before it is known.*no checkpoint yet"):
        run(config(tmp_path), tmp_path / "out")
    assert files_in(tmp_path / "out") == []


def test_a_psnr_of_nan_stops_the_run(tmp_path, monkeypatch):
    configuration = config(tmp_path, data={"validation": images(tmp_path, "valid.npz", 1)}, recipe={"save_every": 4})

    def poisoned(here, net, pairs, recipe):
        torch.nn.init.constant_(net.output.weight, torch.nan)
        return validate(here, net, pairs, recipe)

    from exda_primitives.workbench.training.validate import validate

    monkeypatch.setattr("exda_primitives.workbench.training.run.validate", poisoned)
    with pytest.raises(DivergedError, match=r"of 2 restored images 2 hold NaN or infinity; there is no PSNR.*step 4"):
        run(configuration, tmp_path / "out")
    assert not (tmp_path / "out" / "result.json").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"accelerator": "tpu"}, "accelerator: found 'tpu', expected one of auto, cpu, gpu"),
        ({"accelerator": "gpu", "devices": 99}, "devices: asked for 99 GPUs, PyTorch finds"),
        ({"devices": 0}, "devices: found 0"),
    ],
)
def test_missing_devices_are_refused(tmp_path, options, message):
    with pytest.raises(exda.ConfigError, match=message):
        prepare(config(tmp_path), tmp_path / "out", **options)


@pytest.mark.parametrize(
    ("data", "error", "message"),
    [
        ({"source": "nowhere"}, exda.ImageError, "nowhere does not exist"),
        ({"degradations": ["fog"]}, exda.ConfigError, "no degradation is called 'fog'"),
        ({"repeats": {"rain": 2}}, exda.ConfigError, "rain"),
        ({"source": ".", "degradations": [], "benchmark": "cdd11"}, DataError, "CDD-?11"),
    ],
)
def test_missing_data_are_refused(tmp_path, data, error, message):
    with pytest.raises(error, match=message):
        prepare(config(tmp_path, data=data), tmp_path / "out", accelerator="cpu")


def test_float16_is_for_gpus(tmp_path):
    with pytest.raises(exda.ConfigError, match="'16-mixed' is for GPUs"):
        prepare(config(tmp_path, recipe={"precision": "16-mixed"}), tmp_path / "out", accelerator="cpu")


def test_torchrun_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    with pytest.raises(exda.ConfigError, match="without torchrun, with --devices"):
        prepare(config(tmp_path), tmp_path / "out", accelerator="cpu")


def test_an_interruption_before_the_first_checkpoint_begins_anew(tmp_path):
    configuration, out = config(tmp_path), tmp_path / "out"
    with pytest.raises(PowerError):
        run(configuration, out, stop=1)
    assert files_in(out) == []
    assert [leg["after_step"] for leg in run(configuration, out)["runs"][0]["legs"]] == [0]
