"""``exda.backend``: which implementation runs, and until when."""

import pytest
import torch

import exda_primitives as exda


@pytest.fixture
def used(make_attention, make_maps, monkeypatch):
    """Names the implementation that an attention calls just now."""
    module, maps = make_attention("mdta"), make_maps("mdta", 1, 6, 3, 2)
    calls = []
    for name in ("reference", "torch", "kernels"):
        monkeypatch.setattr(f"exda_primitives.ops.{name}.mdta", lambda x, _, name=name: calls.append(name) or x)

    def used():
        module(*maps)
        return calls[-1]

    return used


@pytest.mark.parametrize(
    ("name", "expected"), [("reference", "reference"), ("torch", "torch"), ("auto", "torch"), ("triton", "kernels")]
)
def test_selects(used, name, expected):
    with exda.backend(name):
        assert used() == expected


def test_default_is_concat_free(used):
    assert used() == "torch"


def test_nests(used):
    with exda.backend("reference"):
        with exda.backend("torch"):
            assert used() == "torch"
        assert used() == "reference"
    assert used() == "torch"


def test_restores_after_an_exception(used):
    with pytest.raises(KeyError), exda.backend("reference"), exda.backend("reference"):
        raise KeyError
    assert used() == "torch"


@pytest.mark.parametrize("name", ["Reference", "cuda", "", None])
def test_unknown_name(used, name):
    with pytest.raises(ValueError, match=r"unknown backend; known are 'auto', 'reference', 'torch', 'triton'") as error:
        exda.backend(name).__enter__()
    assert repr(name) in str(error.value)
    assert used() == "torch"


def test_unknown_name_inside_keeps_the_outer_one(used):
    with exda.backend("reference"):
        with pytest.raises(ValueError, match="'cuda'"), exda.backend("cuda"):
            pass
        assert used() == "reference"


def test_also_decorates(make_attention, make_maps):
    module, maps = make_attention("cross"), make_maps("cross", 1, 6, 3, 2)

    @exda.backend("reference")
    def oracle():
        return module(*maps)

    with exda.backend("reference"):
        assert torch.equal(oracle(), module(*maps))
