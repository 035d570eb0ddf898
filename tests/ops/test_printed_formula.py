"""The reference against the paper's formula of channel attention, written independently in NumPy, image by image."""

import numpy as np
import pytest
from scipy.special import erf

import exda_primitives as exda
from exda_primitives.ops.reference.channel import gated_rows


def pointwise(x, conv):
    weight, bias = (conv[name] for name in ("weight", "bias"))
    return np.einsum("oi,ihw->ohw", weight[:, :, 0, 0], x) + bias[:, None, None]


def depthwise(x, conv):
    _, height, width = x.shape
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1)))
    windows = ((i, j, padded[:, i : i + height, j : j + width]) for i in range(3) for j in range(3))
    return conv["bias"][:, None, None] + sum(conv["weight"][:, 0, i, j, None, None] * w for i, j, w in windows)


def softmax(logits):
    weights = np.exp(logits - logits.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def unit(rows):
    return rows / np.sqrt((rows**2).sum(-1, keepdims=True))


def pooled(x, stride):
    channels, height, width = x.shape
    cells = [
        [x[:, i : i + stride, j : j + stride].reshape(channels, -1).mean(1) for j in range(0, width, stride)]
        for i in range(0, height, stride)
    ]
    return np.array(cells).transpose(2, 0, 1)


def interpolation(compact, full):
    """Bilinear weights along one axis, (full, compact): cell centres on cell centres, flat beyond the outer ones."""
    position = np.clip((np.arange(full) + 0.5) * compact / full - 0.5, 0, compact - 1)
    return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(compact)))


def token_maps(x, phi, stride):
    compact = np.einsum("oi,ihw->ohw", phi[:, :, 0, 0], pooled(x, stride))
    maps = softmax(compact.reshape(len(compact), -1)).reshape(compact.shape)
    rows, columns = (interpolation(a, b) for a, b in zip(compact.shape[1:], x.shape[1:], strict=True))
    return np.einsum("ah,mhw,bw->mab", rows, maps, columns)


def nonlinear(v, value):
    u = depthwise(pointwise(v, value["conv_in"]), value["dwconv"])
    return v + pointwise(u * (1 + erf(u / np.sqrt(2))) / 2, value["conv_out"])


def exda_attention(q, k, v, x, w, stride):
    """``O[:c] + alpha * O[c:]`` before the projection, with one token per head: one image, (C, H, W) -> (C, H, W)."""
    channels, height, width = v.shape
    v = nonlinear(v, w["value"])
    g = token_maps(x, w["token"]["phi"]["weight"], stride)
    heads = len(w["temperature"])
    c = channels // heads
    outputs = []
    for head in range(heads):
        own = slice(head * c, (head + 1) * c)
        token = g[head].reshape(1, -1)
        q_star, k_star, v_star = (np.concatenate([m[own].reshape(c, -1), token]) for m in (q, k, v))
        rows = softmax(w["temperature"][head, 0, 0] * unit(q_star) @ unit(k_star).T) @ v_star
        outputs.append(rows[:c] + w["alpha"][head, 0, 0] * rows[c:])
    return np.concatenate(outputs).reshape(channels, height, width)


def weights_of(module):
    """The state dict as numpy, ``qkv.weight`` as ``["qkv"]["weight"]``."""
    tree = {}
    for key, tensor in module.state_dict().items():
        *path, name = key.split(".")
        node = tree
        for part in path:
            node = node.setdefault(part, {})
        node[name] = tensor.numpy()
    return tree


def mdta(w, x, stride):
    q, k, v = np.split(depthwise(pointwise(x, w["qkv"]), w["qkv_dwconv"]), 3)
    return pointwise(exda_attention(q, k, v, x, w, stride), w["project_out"])


def cross(w, x, y, stride):
    q = depthwise(pointwise(x, w["q"]), w["q_dwconv"])
    k, v = np.split(depthwise(pointwise(y, w["kv"]), w["kv_dwconv"]), 2)
    return pointwise(exda_attention(q, k, v, y, w, stride), w["project_out"])


def linear(x, layer):
    return np.einsum("oi,ihw->ohw", layer["weight"], x) + layer["bias"][:, None, None]


def xca(w, x, stride):
    q, k, v = np.split(linear(x, w["qkv"]), 3)
    return linear(exda_attention(q, k, v, x, w, stride), w["proj"])


@pytest.mark.parametrize("size", [(8, 6), (7, 5), (1, 9), (1, 1)], ids=lambda size: "H{}-W{}".format(*size))
@pytest.mark.parametrize("stride", [1, 2, 4], ids="s{}".format)
@pytest.mark.parametrize("init", ["random", "paper"])
def test_reference_computes_the_printed_formula(channel_family, size, stride, init, make_attention, make_maps):
    module = make_attention(channel_family, 6, 2, True, stride=stride, **({"init": init} if init == "paper" else {}))
    # The printed formula has no gate, which a gate of 1 gives. That is what paper init sets, and alpha to 0.1.
    module.token_gate.data.fill_(1)
    if init == "paper":
        assert module.alpha.flatten().tolist() == pytest.approx([0.1, 0.1])
    maps = make_maps(channel_family, 2, 6, *size)
    oracle = {"mdta": mdta, "cross": cross, "xca": xca}[channel_family]
    w = weights_of(module)
    expected = np.stack([oracle(w, *images, stride) for images in zip(*(x.numpy() for x in maps), strict=True)])
    with exda.backend("reference"):
        found = module(*maps).detach().numpy()
    assert np.abs(found - expected).max() < 1e-12


@pytest.mark.parametrize("tokens", [1, 3], ids="K{}".format)
@pytest.mark.parametrize("gate", [1.0, 0.0, 0.4])
def test_gate_scales_the_softmax_mass_of_tokens(gate, tokens, make_attention, make_maps):
    module = make_attention("mdta", 8, 2, tokens=tokens)
    module.token_gate.data.fill_(gate)
    (logits,) = make_maps("mdta", 3, 2, 4, 4 + tokens)
    rows = gated_rows(logits, 4, module.token_terms()).detach().numpy()
    whole, host = softmax(logits.numpy()), softmax(logits.numpy()[..., :4])
    mass = whole[..., 4:].sum(-1, keepdims=True)
    np.testing.assert_allclose(rows[..., :4], (1 - gate * mass) * host, rtol=0, atol=1e-14)
    np.testing.assert_allclose(rows[..., 4:], gate * whole[..., 4:], rtol=0, atol=1e-14)
    np.testing.assert_allclose(rows.sum(-1), 1, rtol=0, atol=1e-14)
    if gate == 1:
        np.testing.assert_allclose(rows, whole, rtol=0, atol=1e-14)
