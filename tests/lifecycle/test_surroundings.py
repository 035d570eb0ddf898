"""Every public function gives the same result under any global setting and beside another thread."""

import threading
from contextlib import contextmanager, nullcontext
from functools import lru_cache

import pytest
import torch
from tests.fusion.blocks import Block, Net
from tests.patching.models import train_new_parameters
from tests.patching.tokens import MapBlock
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

import exda_primitives as exda


def model():
    """An attention on maps and one on tokens, in blocks."""
    torch.manual_seed(0)
    return Net(Block(), MapBlock()).eval()


def patched():
    found = model()
    exda.patch(found)
    torch.manual_seed(1)
    train_new_parameters(found)
    return found


def restormer():
    torch.manual_seed(0)
    return exda.models.Restormer(dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with the new parameters of ``patched`` and the original checkpoint of ``restormer``."""
    folder = tmp_path_factory.mktemp("files")
    exda.save(patched(), folder / "new.safetensors")
    torch.save({"params": restormer().state_dict()}, folder / "host.pth")
    return folder


def weights(found):
    return {name: parameter.detach().clone() for name, parameter in found.named_parameters()}


def plan(files, made):
    return exda.plan(made).as_dict()


def patch(files, made):
    torch.manual_seed(2)
    return exda.patch(made).as_dict(), weights(made)


def patched_context(files, made):
    with exda.patched(made) as report:
        found = report.as_dict(), exda.is_patched(made)
    return *found, exda.is_patched(made), weights(made)


def unpatch(files, made):
    return exda.unpatch(made), weights(made)


def from_host(files, made):
    torch.manual_seed(2)
    return weights(exda.from_host(made.blocks[0].attn))


def queries(files, made):
    return exda.is_patched(made), exda.config_of(made).as_dict(), len(exda.new_parameters(made))


def save(files, made):
    exda.save(made, files / f"{threading.get_ident()}.safetensors", whole=True)
    other = model().float()
    exda.load(other, files / f"{threading.get_ident()}.safetensors")
    return weights(other)


def load(files, made):
    exda.load(made, files / "new.safetensors")
    return weights(made)


def load_checkpoint(files, made):
    exda.load_checkpoint(files / "host.pth", into=made)
    return weights(made)


def create(files, made):
    return weights(exda.models.create("auto", checkpoint=files / "host.pth").float())


def fuse(files, made):
    return exda.fuse(made).as_dict(), exda.unfuse(made), weights(made)


def backend_report(files, made):
    return exda.backend_report(made).as_dict()


FUNCTIONS = [
    (plan, model),
    (patch, model),
    (patched_context, model),
    (unpatch, patched),
    (from_host, model),
    (queries, patched),
    (save, patched),
    (load, model),
    (load, patched),
    (load_checkpoint, restormer),
    (create, nullcontext),
    (fuse, model),
    (fuse, patched),
    (backend_report, patched),
]


@contextmanager
def default_device():
    torch.set_default_device("meta")
    try:
        yield
    finally:
        torch.set_default_device(None)


@contextmanager
def default_dtype():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


@contextmanager
def deterministic():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


@contextmanager
def global_hook():
    def refuse(module, *_):
        raise AssertionError(f"{type(module).__name__} was called")

    handle = register_module_forward_hook(refuse)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def busy_thread():
    done, layer = threading.Event(), nn.Conv2d(3, 3, 3)

    def compute():
        while not done.is_set():
            layer(torch.rand(1, 3, 8, 8)).sum().backward()

    thread = threading.Thread(target=compute)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(10)


SURROUNDINGS = {
    "default device": default_device,
    "default dtype": default_dtype,
    "inference": torch.inference_mode,
    "no gradients": torch.no_grad,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
    "hook on all modules": global_hook,
    "anomalies": torch.autograd.detect_anomaly,
    "deterministic": deterministic,
    "meta modules": lambda: torch.device("meta"),
}


def same(found, expected):
    if isinstance(expected, dict):
        assert found.keys() == expected.keys()
        return all(same(found[key], expected[key]) for key in expected)
    if isinstance(expected, torch.Tensor):
        return found.dtype is expected.dtype and found.device == expected.device and torch.equal(found, expected)
    if isinstance(expected, list | tuple):
        return len(found) == len(expected) and all(map(same, found, expected))
    return found == expected


@pytest.fixture(scope="module")
def result_by_default():
    """Computes a function's result under default settings, once for each function and model."""
    return lru_cache(lambda function, make, files: function(files, make()))


@pytest.mark.filterwarnings("ignore:Anomaly Detection")
@pytest.mark.parametrize("surroundings", SURROUNDINGS.values(), ids=SURROUNDINGS)
@pytest.mark.parametrize(("function", "make"), FUNCTIONS, ids=lambda case: case.__name__)
def test_result_does_not_depend_on_global_settings(function, make, surroundings, files, result_by_default):
    expected = result_by_default(function, make, files)
    made = make()
    with surroundings():
        found = function(files, made)
    assert same(found, expected)


@pytest.mark.parametrize(("function", "make"), FUNCTIONS, ids=lambda case: case.__name__)
def test_result_is_the_same_in_a_thread_beside_another(function, make, files, result_by_default):
    expected = result_by_default(function, make, files)
    made, found = make(), []
    # These initialise at random, from the generator that a busy thread would draw from too.
    quiet = function in (patch, from_host)
    with nullcontext() if quiet else busy_thread():
        thread = threading.Thread(target=lambda: found.append(function(files, made)))
        thread.start()
        thread.join(60)
    assert same(*found, expected)
