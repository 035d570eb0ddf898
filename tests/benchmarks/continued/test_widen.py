"""The widened network computes the same as the host, and its new channels can be trained."""

import pytest
import torch
from benchmarks.continued.configs import Starts, configuration, rank
from benchmarks.continued.forms import ARMS, CONTINUED, FORMS
from benchmarks.continued.widen import widened
from benchmarks.quality.configs import counted, model_arguments
from benchmarks.quality.forms import COMPARED, PRIMITIVES, WIDENED, Job
from tests.benchmarks.continued.small import MODEL

import exda_primitives as exda
from exda_primitives.checkpoints.io import write_safetensors
from exda_primitives.workbench.training.build import build
from exda_primitives.workbench.training.plan import parameters


@pytest.mark.parametrize("factor", [2.0, 2.5, 3.3])
def test_the_widened_network_computes_the_same_as_the_host(factor):
    torch.manual_seed(1)
    host = exda.models.create("restormer", **MODEL).double()
    wide = widened(host.float(), MODEL, factor).double()
    host.double()
    image = torch.rand(1, 3, 24, 16, dtype=torch.float64)
    torch.testing.assert_close(wide(image), host(image))
    # The first half of the channels gates the second: new ones appended at the very end would gate old values.
    old, new = (net.encoder_level1[0].ffn.dwconv.weight for net in (host, wide))
    half, wider = len(old) // 2, len(new) // 2
    assert torch.equal(new[:half], old[:half])
    assert torch.equal(new[wider : wider + half], old[half:])


def test_the_new_channels_can_be_trained():
    torch.manual_seed(1)
    wide = widened(exda.models.create("restormer", **MODEL), MODEL, 3.0).double()
    before = wide.state_dict()
    before = {name: each.clone() for name, each in before.items()}
    optimizer = torch.optim.SGD(wide.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        wide(torch.rand(1, 3, 16, 16, dtype=torch.float64)).square().mean().backward()
        optimizer.step()
    ffn = "encoder_level1.0.ffn"
    hidden = 8 * MODEL["ffn_expansion_factor"]
    # The weights that read the new channels start at zero and move in the first step; those that make them get
    # a gradient, and move, from the second.
    for name, new in ((f"{ffn}.project_out.weight", lambda w: w[:, hidden:]), (f"{ffn}.project_in.weight", _new_rows)):
        assert (new(wide.state_dict()[name]) - new(before[name])).abs().amax(dim=(1, 2, 3)).min() > 0, name


def _new_rows(weight):
    wider, hidden = len(weight) // 2, 8 * MODEL["ffn_expansion_factor"]
    return torch.cat((weight[hidden:wider], weight[wider + hidden :]))


@pytest.fixture(scope="module")
def starts(tmp_path_factory):
    """Weights of an untrained host and of its widened network, both at the size of the benchmark's networks."""
    folder = tmp_path_factory.mktemp("starts")
    host = exda.models.create("restormer", **CONTINUED.model)
    wide = widened(host, CONTINUED.model, model_arguments(CONTINUED, WIDENED)["ffn_expansion_factor"])
    for name, net in (("host", host), ("widened", wide)):
        write_safetensors(net.state_dict(), {}, folder / f"{name}.safetensors")
    return Starts(folder / "host.safetensors", folder / "widened.safetensors")


@pytest.mark.parametrize("name", ARMS)
def test_arms_have_the_size_they_should(starts, name):
    arm, form = ARMS[name], FORMS["adaptation"]
    wanted = counted(form.model, PRIMITIVES[COMPARED])
    job = Job(form.studies[0].setting, name, 0, "steps")
    net = build(configuration(form, job, "crops.zip", starts, {"learning_rate": 1e-3})).net
    if arm.widened or arm.lora == "attention":
        assert abs(parameters(net) / wanted - 1) < 0.01
    if arm.lora == "attention":
        new = parameters(net) - counted(form.model)
        assert abs(new / (wanted - counted(form.model)) - 1) < 0.05
    assert parameters(net, trained=True) == parameters(net) or arm.train != "all"


def test_ranks_take_what_primitives_leave():
    whole, half = ARMS["frozen, LoRA"], ARMS["frozen, half both, half LoRA"]
    assert half.primitives is not None
    left = counted(CONTINUED.model, PRIMITIVES[COMPARED]) - counted(CONTINUED.model, half.primitives)
    # 37,498 are the parameters of both primitives, which the rank of the whole arm matches.
    assert rank(CONTINUED.model, half) == round(rank(CONTINUED.model, whole) * left / 37498)
