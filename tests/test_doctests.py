"""The examples in the docstrings of every module of the package run, and give what they say."""

import doctest
from importlib import import_module
from pkgutil import walk_packages

import pytest
import torch

import exda_primitives
from exda_primitives import adapters

# An editable install finds the adapters in a folder of their own, which a walk over the package does not enter.
ROOTS = (exda_primitives, adapters)
NAMES = sorted(
    {root.__name__ for root in ROOTS}
    | {found.name for root in ROOTS for found in walk_packages(root.__path__, f"{root.__name__}.")}
)


@pytest.mark.parametrize("name", NAMES)
def test_examples(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert doctest.testmod(import_module(name)).failed == 0


@pytest.mark.parametrize("name", ["exda_primitives.adapters.families.mdta", "exda_primitives.ops.torch.channel"])
def test_every_level_is_walked(name):
    assert name in NAMES


def test_examples_are_found():
    assert sum(len(test.examples) for test in doctest.DocTestFinder().find(exda_primitives.GST)) > 3
