"""torch.func: the network as a function of its parameters."""

import pytest
import torch
from torch.func import functional_call, grad, stack_module_state, vmap

import exda_primitives as exda

from .networks import CLASSES, image, loss, network, trained

# vmap has no batching rule for this operation: PyTorch loops over the batch and warns.
pytestmark = pytest.mark.filterwarnings("ignore:.*batching rule for aten..baddbmm_:UserWarning")


@pytest.fixture(params=CLASSES)
def family(request):
    return request.param


def parameters_of(model):
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


@torch.no_grad()
def test_functional_call_uses_the_given_parameters(family):
    model, other = trained(family), trained(family, seed=5)
    before = model(image())
    assert torch.equal(functional_call(model, parameters_of(other), image()), other(image()))
    assert torch.equal(model(image()), before)


def test_gradients_are_those_of_autograd(family):
    model = trained(family).double()
    x = image(dtype=torch.float64)

    def objective(parameters):
        return loss(lambda x: functional_call(model, parameters, x), x)

    found = grad(objective)(parameters_of(model))
    loss(model, x).backward()
    for name, parameter in model.named_parameters():
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        torch.testing.assert_close(found[name], expected, rtol=1e-9, atol=1e-12)


def test_vmapped_gradients_are_those_of_each_image():
    model = trained().double()
    images = image(batch=3, dtype=torch.float64)

    def objective(parameters, x):
        return loss(lambda x: functional_call(model, parameters, x), x[None])

    found = vmap(grad(objective), in_dims=(None, 0))(parameters_of(model), images)
    for i, x in enumerate(images):
        model.zero_grad()
        loss(model, x[None]).backward()
        for name, parameter in model.named_parameters():
            torch.testing.assert_close(found[name][i], parameter.grad, rtol=1e-9, atol=1e-12)


@torch.no_grad()
def test_vmapped_ensemble_equals_its_networks():
    models = [trained(seed=seed).double() for seed in (0, 5)]
    parameters, buffers = stack_module_state(models)
    x = image(dtype=torch.float64)
    with torch.device("meta"):
        skeleton = network()
    exda.patch(skeleton)
    found = vmap(lambda p, b: functional_call(skeleton, (p, b), x))(parameters, buffers)
    torch.testing.assert_close(found, torch.stack([model(x) for model in models]), rtol=0, atol=1e-12)
