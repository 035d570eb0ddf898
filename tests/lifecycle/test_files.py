"""torch.save and torch.load of patched networks, also in a process that has not imported the library."""

import sys

import pytest
import torch
from tests.adapters.process import run

import exda_primitives as exda

from .networks import CLASSES, image, network, trained

READ = """
import sys, torch
model, x, expected = torch.load(sys.argv[1], weights_only=False)
torch.set_num_threads(1)
assert "exda_primitives.patching" in sys.modules
with torch.no_grad():
    found = model(x)
import exda_primitives as exda
print(torch.equal(found, expected), exda.is_patched(model), len(exda.unpatch(model)), exda.is_patched(model))
"""


@pytest.fixture(params=CLASSES)
def family(request):
    return request.param


@torch.no_grad()
def test_pickled_network_loads_in_another_process(family, tmp_path):
    model, x = trained(family), image()
    threads = torch.get_num_threads()
    # One thread, as in the other process, so that sums are equal: Histoformer's sorts depend on the last bit.
    torch.set_num_threads(1)
    torch.save((model, x, model(x)), tmp_path / "model.pt")
    torch.set_num_threads(threads)
    attentions = len(exda.unpatch(model))
    assert run(sys.executable, "-c", READ, str(tmp_path / "model.pt")).split() == [
        "True",
        "True",
        str(attentions),
        "False",
    ]


@torch.no_grad()
def test_state_dict_loads_with_weights_only(family, tmp_path):
    model, x = trained(family), image()
    torch.save(model.state_dict(), tmp_path / "state.pth")
    other = network(family, seed=5)
    exda.patch(other)
    other.load_state_dict(torch.load(tmp_path / "state.pth", weights_only=True))
    assert torch.equal(other(x), model(x))


def test_optimizer_of_the_new_parameters_resumes(tmp_path):
    def train(model, optimizer):
        optimizer.zero_grad()
        model(image()).square().mean().backward()
        optimizer.step()

    model = trained()
    optimizer = torch.optim.AdamW(exda.new_parameters(model), lr=1e-2)
    train(model, optimizer)
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, tmp_path / "run.pth")
    held = torch.load(tmp_path / "run.pth", weights_only=True)
    other = trained(seed=5)
    other.load_state_dict(held["model"])
    again = torch.optim.AdamW(exda.new_parameters(other), lr=1e-2)
    again.load_state_dict(held["optimizer"])
    train(model, optimizer)
    train(other, again)
    for ours, theirs in zip(exda.new_parameters(model), exda.new_parameters(other), strict=True):
        assert torch.equal(ours, theirs)
