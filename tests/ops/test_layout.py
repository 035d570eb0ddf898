"""Results depend neither on strides and memory formats nor on the other images of a batch."""

import pytest
import torch


@pytest.fixture
def prepare(make_attention, make_maps):
    def prepare(family, **options):
        return make_attention(family, 6, 2, tokens=2, **options), make_maps(family, 3, 6, 8, 5)

    return prepare


def as_channels_last(x):
    return x.contiguous(memory_format=torch.channels_last)


def as_transposed(x):
    return x.transpose(2, 3).contiguous().transpose(2, 3)


def as_view_of_more(x):
    return torch.cat([x, x], dim=1)[:, : x.shape[1]]


def as_expanded(x):
    return x[:1].expand_as(x)


@pytest.mark.parametrize("backend", ["reference", "torch"])
@pytest.mark.parametrize(
    "arrange", [as_channels_last, as_transposed, as_view_of_more], ids=lambda arrange: arrange.__name__
)
def test_strides_do_not_matter(family, backend, arrange, prepare, differentiate, relative_errors):
    module, maps = prepare(family)
    arranged = tuple(arrange(x) for x in maps)
    assert not any(x.is_contiguous() for x in arranged)
    errors = relative_errors(differentiate(module, arranged, backend), differentiate(module, maps, backend))
    assert max(errors.values()) < 1e-12, errors


def test_channels_last_weights_do_not_matter(family, prepare, differentiate, relative_errors):
    module, maps = prepare(family)
    expected = differentiate(module, maps, "torch")
    module = module.to(memory_format=torch.channels_last)
    errors = relative_errors(differentiate(module, tuple(map(as_channels_last, maps)), "torch"), expected)
    assert max(errors.values()) < 1e-12, errors


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_images_of_a_batch_are_independent(family, backend, prepare, differentiate):
    module, maps = prepare(family)
    together = differentiate(module, maps, backend)["output"]
    alone = [differentiate(module, tuple(x[i : i + 1] for x in maps), backend)["output"] for i in range(3)]
    torch.testing.assert_close(together, torch.cat(alone), rtol=0, atol=1e-12)


def test_expanded_input_gives_equal_outputs(family, prepare):
    module, maps = prepare(family)
    output = module(*map(as_expanded, maps))
    torch.testing.assert_close(output, module(*(x[:1] for x in maps)).expand_as(output), rtol=0, atol=1e-12)


@pytest.mark.parametrize("backend", ["reference", "torch"])
def test_input_is_not_changed(family, backend, prepare, differentiate):
    module, maps = prepare(family)
    before = [x.clone() for x in maps]
    differentiate(module, maps, backend)
    assert all(torch.equal(x, kept) for x, kept in zip(maps, before, strict=True))
