"""The reference of histogram attention against its description, written independently in NumPy with plain indices."""

import numpy as np
import pytest

import exda_primitives as exda


def pixelwise(x, weight):
    return np.einsum("oi,ihw->ohw", weight[:, :, 0, 0], x)


def depthwise(x, weight):
    _, height, width = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    windows = ((i, j, padded[:, i : i + height, j : j + width]) for i in range(3) for j in range(3))
    return sum(weight[:, 0, i, j, None, None] * window for i, j, window in windows)


def unit(rows):
    return rows / np.maximum(np.sqrt((rows**2).sum(-1, keepdims=True)), 1e-12)


def bins(length, factor, boxes):
    """Positions in a sorted sequence that each run holds, (factor, run's length); -1 pads the sequence at its end."""
    places = np.append(np.arange(length), np.full(-length % factor, -1))
    return places.reshape(factor, -1) if boxes else places.reshape(-1, factor).T


def branch(q, k, v, tokens, boxes, temperature, factor):
    """One branch of one head: (c, N) and tokens (K, N), all sorted -> (c + K, N), sorted."""
    runs = bins(v.shape[1], factor, boxes)

    def cut(rows):
        # A column of zeros is appended for the index -1 to read; the same column takes its outputs below.
        return np.append(rows, np.zeros((len(rows), 1)), axis=1)[:, runs].reshape(len(rows) * factor, -1)

    q, k, v = (np.concatenate([cut(rows), cut(tokens)]) for rows in (q, k, v))
    weights = np.exp(temperature * unit(q) @ unit(k).T)
    rows = weights / (1 + weights.sum(1, keepdims=True)) @ v
    sequences = np.zeros((len(rows) // factor, runs.max() + 2))
    sequences[:, runs] = rows.reshape(-1, *runs.shape)
    return sequences[:, :-1]


def attention(w, x):
    channels, height, width = x.shape
    half, heads = channels // 2, len(w["temperature"])
    # The first half of the channels is sorted down the columns, then along the rows.
    down = np.argsort(x[:half], axis=1, kind="stable")
    columns_sorted = np.take_along_axis(x[:half], down, 1)
    across = np.argsort(columns_sorted, axis=2, kind="stable")
    x_sorted = np.concatenate([np.take_along_axis(columns_sorted, across, 2), x[half:]])

    maps = depthwise(pixelwise(x_sorted, w["qkv.weight"]), w["qkv_dwconv.weight"]).reshape(5 * channels, -1)
    logits = pixelwise(x, w["token.phi.weight"]).reshape(-1, height * width)
    g = np.exp(logits - logits.max(1, keepdims=True))
    g /= g.sum(1, keepdims=True)

    c, tokens_per_head = channels // heads, len(g) // heads
    product = np.ones((channels, height * width))
    for head in range(heads):
        own = slice(head * c, (head + 1) * c)
        q1, k1, q2, k2, v = (maps[i * channels : (i + 1) * channels][own] for i in range(5))
        order = np.argsort(v, axis=1, kind="stable")
        q1, k1, q2, k2, v = (np.take_along_axis(m, order, 1) for m in (q1, k1, q2, k2, v))
        tokens = g[head * tokens_per_head : (head + 1) * tokens_per_head]
        token_order = np.argsort(tokens, axis=1, kind="stable")
        tokens = np.take_along_axis(tokens, token_order, 1)
        for q, k, boxes in ((q1, k1, True), (q2, k2, False)):
            rows = branch(q, k, v, tokens, boxes, w["temperature"][head, 0, 0], heads)
            local, own_rows = np.empty_like(v), np.empty_like(tokens)
            np.put_along_axis(local, order, rows[:c], 1)
            np.put_along_axis(own_rows, token_order, rows[c:], 1)
            product[own] *= local + w["alpha"][head, 0, 0] * own_rows.mean(0)

    out = pixelwise(product.reshape(x.shape), w["project_out.weight"])
    unsorted = np.empty_like(out[:half])
    np.put_along_axis(unsorted, across, out[:half], 2)
    restored = np.empty_like(unsorted)
    np.put_along_axis(restored, down, unsorted, 1)
    return np.concatenate([restored, out[half:]])


@pytest.mark.parametrize("size", [(8, 6), (7, 5), (1, 9), (1, 1)], ids=lambda size: "H{}-W{}".format(*size))
@pytest.mark.parametrize("heads_and_tokens", [(1, 1), (2, 1), (2, 3), (4, 2)], ids=lambda both: "h{}-K{}".format(*both))
def test_reference_computes_the_described_attention(size, heads_and_tokens, make_attention, make_maps):
    heads, tokens = heads_and_tokens
    # Stride 1: no two pixels of a token are equal, so rounding cannot change the order of its sort.
    module = make_attention("histogram", 8, heads, tokens=tokens, stride=1, value="none")
    module.token_gate.data.fill_(1)
    (x,) = make_maps("histogram", 2, 8, *size)
    w = {name: tensor.numpy() for name, tensor in module.state_dict().items()}
    with exda.backend("reference"):
        found = module(x).detach().numpy()
    assert np.abs(found - np.stack([attention(w, image) for image in x.numpy()])).max() < 1e-12
