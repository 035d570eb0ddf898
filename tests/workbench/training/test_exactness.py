"""The reasons why a run cannot be resumed bit for bit."""

import warnings

import pytest
import torch
from tests.workbench.training.runs import config, images

from exda_primitives.workbench.training.data import open_data
from exda_primitives.workbench.training.exactness import circumstances, deterministic, fingerprint, resume_mismatches

CPU = torch.device("cpu")


@pytest.fixture
def pairs(tmp_path):
    return open_data(config(tmp_path), 3).training


def test_equal_circumstances_give_no_reason(pairs):
    assert resume_mismatches(circumstances(CPU, 1, pairs), circumstances(CPU, 1, pairs)) == []


def test_circumstances_are_plain_data(pairs, tmp_path):
    torch.save(circumstances(CPU, 1, pairs), tmp_path / "some.pt")
    assert torch.load(tmp_path / "some.pt", weights_only=True) == circumstances(CPU, 1, pairs)


@pytest.mark.parametrize("change", ["pictures", "number", "degradations", "seed"])
def test_other_data_have_another_fingerprint(tmp_path, pairs, change):
    before = fingerprint(pairs)
    pairs.set_epoch(7)
    assert fingerprint(pairs) == before
    changes = {"degradations": {"data": {"degradations": ["noise15", "haze"]}}, "seed": {"recipe": {"seed": 1}}}
    configuration = config(tmp_path, **changes.get(change, {}))
    if change == "pictures":
        images(tmp_path, seed=1)
    if change == "number":
        images(tmp_path, number=4)
    assert fingerprint(open_data(configuration, 3).training) != before


def test_operations_without_a_deterministic_form_are_noted():
    assert not torch.are_deterministic_algorithms_enabled()
    message_of_torch = "reflection_pad2d_backward_cuda does not have a deterministic implementation, but you set this"
    with warnings.catch_warnings(record=True) as others:
        warnings.simplefilter("always")
        with deterministic(torch.device("cuda")) as met:
            assert torch.are_deterministic_algorithms_enabled()
            assert torch.is_deterministic_algorithms_warn_only_enabled()
            for message in (message_of_torch, "something else", message_of_torch):
                warnings.warn(message, stacklevel=1)
    assert met == ["reflection_pad2d_backward_cuda has no deterministic form on CUDA"]
    assert [str(each.message) for each in others] == ["something else"]
    assert not torch.are_deterministic_algorithms_enabled()


def test_nothing_is_changed_for_the_cpu():
    with deterministic(CPU) as met:
        assert not torch.are_deterministic_algorithms_enabled()
    assert met == []
