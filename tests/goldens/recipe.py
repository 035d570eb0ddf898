"""Regenerates weights and inputs of the golden data from names and shapes, so that nothing large is stored.

NumPy's ``RandomState`` is its frozen legacy generator: a seed gives the same numbers in every version.
"""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

FOLDER = Path(__file__).parent

CONSTANTS = ("complexity", "mean", "std")
"""Last parts of the names of constant buffers, whose values are in the JSON file."""

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Case:
    """Inputs and the official code's outputs for them.

    Attributes:
        inputs: the forward's arguments, float32; for a whole network one image batch (B, C, H, W).
        output: official float32 output, only every ``stride``-th row and column.
        stride: distance in pixels of the rows and columns in ``output``.
        output64: official output for the same weights and inputs in float64, only every ``stride64``-th row and column.
        stride64: distance in pixels of the rows and columns in ``output64``.
        info: the case's entry in the JSON file.
    """

    inputs: tuple[Array, ...]
    output: Array
    stride: int
    output64: Array
    stride64: int
    info: dict[str, Any]


def draw(name: str, shape: tuple[int, ...], seed: int) -> Array:
    """Returns standard normal float64 numbers, determined by name, shape and seed."""
    generator = np.random.RandomState((zlib.crc32(name.encode()) ^ seed) & 0xFFFFFFFF)
    return generator.standard_normal(shape)


def fill(key: str, shape: tuple[int, ...], seed: int) -> Array:
    """Returns a state dict's float32 tensor: scales near 1, convolutions divided by sqrt(fan-in), small biases."""
    w = draw(key, shape, seed)
    last = key.rpartition(".")[2]
    if last in {"prompt_param", "para1", "para2"}:
        w = 0.5 + 0.1 * w
    elif last == "temperature":
        w = 1.0 + 0.1 * w
    elif len(shape) >= 2:
        w = w / np.sqrt(float(np.prod(shape[1:])))
        # The network's last convolution: a tenth, so that outputs stay within about one grey range of the input.
        if key == "output.weight":
            w = 0.1 * w
    elif last == "weight":
        w = 1.0 + 0.1 * w
    else:
        w = 0.1 * w
    return w.astype(np.float32)


def fill_state(spec: dict[str, Any]) -> dict[str, Array]:
    """Returns the state dict of a parsed JSON file, in the official order, constants included.

    Raises:
        ValueError: if its SHA-256 differs from the recorded one.
    """
    state = {
        key: np.asarray(spec["constants"][key], dtype=np.float32).reshape(shape)
        if key.rpartition(".")[2] in CONSTANTS
        else fill(key, tuple(shape), spec["seed"])
        for key, shape in spec["state_dict"].items()
    }
    if sha256(*state.values()) != spec["weights_sha256"]:
        raise ValueError(f"the regenerated weights of {spec['name']} differ from those that were recorded")
    return state


def sha256(*arrays: Array) -> str:
    """Returns the SHA-256 of the arrays' little-endian float32 bytes, one array after the other."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array, dtype="<f4").tobytes())
    return digest.hexdigest()


def photo_input(pixels: Array, repeat: int) -> Array:
    """Returns a network's input: pixels in [0, 1], enlarged by nearest neighbour, plus noise of 25 / 255; not clipped.

    Args:
        pixels: uint8 (B, H, W, C).
        repeat: factor of the enlargement.

    Returns:
        float32 (B, C, H * repeat, W * repeat).
    """
    x = pixels.transpose(0, 3, 1, 2).astype(np.float64) / 255.0
    x = x.repeat(repeat, axis=2).repeat(repeat, axis=3)
    noise = np.random.RandomState(0).standard_normal(x.shape)
    return (x + 25.0 / 255.0 * noise).astype(np.float32)


def load_spec(name: str) -> dict[str, Any]:
    """Returns the parsed ``<name>.json``."""
    spec: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text())
    return spec


def load_case(name: str, index: int) -> Case:
    """Returns case number ``index`` of a whole network, or of a single module (``attention-*``, ``module-*``).

    Raises:
        ValueError: if the regenerated inputs differ from those that the official code was given.
    """
    spec = load_spec(name)
    info = spec["cases"][index]
    with np.load(FOLDER / f"{name}.npz") as arrays:
        if "inputs" in info:
            inputs = tuple(
                (a["offset"] + a["scale"] * draw(f"input{index}.{j}", tuple(a["shape"]), spec["seed"])).astype(
                    np.float32
                )
                for j, a in enumerate(info["inputs"])
            )
            recorded = info["input_sha256"]
        else:
            inputs = (photo_input(arrays[f"input_{index}_u8"], info["repeat"]),)
            recorded = [info["input_sha256"]]
        if [sha256(x) for x in inputs] != recorded:
            raise ValueError(f"the regenerated inputs of {name}, case {index}, differ from those that were recorded")
        output, output64 = arrays[f"output_{index}"], arrays[f"output64_{index}"]
    return Case(inputs, output, info["stride"], output64, info["stride64"], info)
