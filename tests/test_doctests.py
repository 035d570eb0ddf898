"""The examples in every module's docstrings run and give the printed output."""

import doctest
from importlib import import_module
from pkgutil import walk_packages

import pytest
import torch

import exda_primitives

NAMES = ["exda_primitives", *(found.name for found in walk_packages(exda_primitives.__path__, "exda_primitives."))]


@pytest.mark.parametrize("name", NAMES)
def test_examples_give_the_printed_output(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        assert doctest.testmod(import_module(name)).failed == 0


@pytest.mark.parametrize("name", ["exda_primitives.adapters.families.mdta", "exda_primitives.ops.torch.channel"])
def test_modules_of_every_depth_are_found(name):
    assert name in NAMES


def test_examples_are_found():
    assert sum(len(test.examples) for test in doctest.DocTestFinder().find(exda_primitives.GST)) > 3
