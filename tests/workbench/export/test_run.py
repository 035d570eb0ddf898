"""Exported networks: what they compute, their metadata, and when no file is written."""

import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
import torch
from tests.lifecycle.networks import ONE_BLOCK, SMALL, image, network, trained
from tests.patching.hosts import MDTA
from tests.patching.models import Net
from torch import Tensor, nn
from torch._inductor import cpp_builder

import exda_primitives as exda
from exda_primitives.errors import ConfigError, ExDAError
from exda_primitives.workbench.export import check, export, run
from exda_primitives.workbench.export.check import Difference, size_to_trace, sizes_for
from exda_primitives.workbench.export.darktable import check_packable, pack
from exda_primitives.workbench.export.onnx_file import OnnxNetwork, write_traced
from exda_primitives.workbench.export.program import METADATA
from exda_primitives.workbench.shared import onnx_session


def one_attention() -> nn.Module:
    """A patched network of one attention, with random values for all new parameters."""
    model = Net(MDTA()).eval()
    exda.patch(model)
    with torch.no_grad():
        for parameter in exda.new_parameters(model):
            parameter.add_(torch.randn_like(parameter), alpha=0.3)
    return model


@pytest.mark.parametrize("make", [network, trained], ids=["host", "patched"])
def test_an_exported_network_computes_the_same_at_other_sizes(make: Callable[[], nn.Module], tmp_path: Path) -> None:
    model = make()
    done = export(model, tmp_path / "model.onnx")
    assert done.difference.relative < 1e-6
    assert done.inexact is None
    loaded = OnnxNetwork(tmp_path / "model.onnx")
    for batch, height, width in ((1, 16, 24), (3, 64, 8)):
        x = image(1, height, width, batch)
        with torch.no_grad():
            # Measured: at most 4e-7.
            torch.testing.assert_close(loaded(x), model(x), rtol=0, atol=5e-6)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_the_metadata_of_a_file(tmp_path: Path) -> None:
    model = trained()
    done = export(model, tmp_path / "model.onnx", opset=18)
    loaded = onnx.load(tmp_path / "model.onnx")
    assert [(each.domain, each.version) for each in loaded.opset_import] == [("", 18)]
    said = {each.key: each.value for each in loaded.metadata_props}
    assert said == done.metadata
    (patched,) = json.loads(said.pop("patched")).items()
    assert patched[0] == str(exda.config_of(model))
    assert "latent.0.attn" in patched[1]
    assert said == {
        "version": exda.__version__,
        "network": "restormer",
        "multiple": "8",
        "least_side": "16",
        "input_channels": "3",
        "output_channels": "3",
        "sorts": "no",
        "precision": "float32",
    }
    shapes = [[d.dim_param or d.dim_value for d in each.type.tensor_type.shape.dim] for each in loaded.graph.input]
    assert shapes == [["batch", 3, "height", "width"]]


def kilobytes(file: Path) -> float:
    """The size of a file's weights in KiB."""
    return sum(len(each.raw_data) for each in onnx.load(file).graph.initializer) / 2**10


def test_an_export_in_float16(tmp_path: Path) -> None:
    model = one_attention()
    whole, half = (export(model, tmp_path / f"{half}.onnx", half=half) for half in (False, True))
    assert whole.difference.relative < half.difference.relative < 1e-2
    assert kilobytes(half.path) < 0.6 * kilobytes(whole.path)
    x = image(1, 40, 56)
    found = OnnxNetwork(half.path)(x)
    assert found.dtype == torch.float32
    with torch.no_grad():
        # Measured: 4e-4.
        torch.testing.assert_close(found, model(x), rtol=0, atol=4e-3)


def test_an_export_as_a_program_of_pytorch(tmp_path: Path) -> None:
    model = one_attention()
    done = export(model, tmp_path / "model.pt2", format="pt2")
    assert done.difference.relative < 1e-6
    files = {METADATA: ""}
    program = torch.export.load(tmp_path / "model.pt2", extra_files=files)
    assert json.loads(files[METADATA]) == done.metadata
    x = image(1, 32, 8, batch=3)
    with torch.no_grad():
        torch.testing.assert_close(program.module()(x), model(x), rtol=0, atol=5e-6)


def test_a_compiled_package(tmp_path: Path) -> None:
    # The smallest network there is: compiling a patched attention takes half a minute.
    model = nn.Conv2d(3, 3, 3, padding=1)
    done = export(model, tmp_path / "model.pt2", format="pt2", compiled=True)
    assert done.difference.relative < 1e-6
    loaded = torch._inductor.aoti_load_package(str(done.path))
    assert loaded.get_metadata().items() >= done.metadata.items()
    x = image(1, 32, 8, batch=3)
    with torch.no_grad():
        torch.testing.assert_close(loaded(x), model(x), rtol=0, atol=5e-6)


def test_without_a_compiler(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # PyTorch reads CXX when it is imported, and tries these.
    monkeypatch.setattr("torch._inductor.config.cpp.cxx", ("no-such-compiler",))
    cpp_builder.cpp_compiler_search.cache_clear()
    try:
        with pytest.raises(ExDAError, match=r"needs a C\+\+ compiler, .* install g\+\+ or clang"):
            export(one_attention(), tmp_path / "model.pt2", format="pt2", compiled=True)
    finally:
        cpp_builder.cpp_compiler_search.cache_clear()
    assert list(tmp_path.iterdir()) == []


def test_the_network_is_left_as_it_is(tmp_path: Path) -> None:
    model = one_attention().train().double()
    before = {name: each.clone() for name, each in model.state_dict().items()}
    export(model, tmp_path / "model.onnx")
    assert all(module.training for module in model.modules())
    assert all(parameter.requires_grad for parameter in model.parameters())
    after = model.state_dict()
    assert all(each.dtype == after[name].dtype and torch.equal(each, after[name]) for name, each in before.items())


def test_a_network_of_six_input_channels(tmp_path: Path) -> None:
    model = exda.models.Restormer(6, 3, **SMALL | ONE_BLOCK, dual_pixel_task=True)
    done = export(model, tmp_path / "model.onnx")
    assert (done.metadata["input_channels"], done.metadata["output_channels"]) == ("6", "3")


class Baked(nn.Module):
    """A network whose trace keeps the branch that it takes while it is traced."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        restored: Tensor = self.conv(x) * (2 if torch.jit.is_tracing() else 1)
        return restored


def test_a_network_that_a_trace_gets_wrong_is_captured(tmp_path: Path) -> None:
    model = Baked()
    write_traced(model, image(batch=2), tmp_path / "traced.onnx", 17)
    x = image(0, 16, 48)
    with torch.no_grad():
        assert not torch.allclose(OnnxNetwork(tmp_path / "traced.onnx")(x), model(x))
        export(model, tmp_path / "model.onnx", opset=18)
        torch.testing.assert_close(OnnxNetwork(tmp_path / "model.onnx")(x), model(x))


def test_a_file_that_computes_something_else_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = tmp_path / "model.onnx"
    there.write_bytes(b"mine")
    whole = OnnxNetwork.forward
    monkeypatch.setattr(OnnxNetwork, "forward", lambda self, x: whole(self, x) * 1.001)
    with pytest.raises(ExDAError, match=r"model.onnx: not written: traced: its output differs by 1.0e-03 .* allowed"):
        export(network(**ONE_BLOCK), there)
    assert there.read_bytes() == b"mine"
    assert list(tmp_path.iterdir()) == [there]


@pytest.mark.parametrize("wrong", [float("nan"), float("inf")])
def test_nan_is_no_agreement(wrong: float) -> None:
    model = network(**ONE_BLOCK)
    found = check.difference_of(lambda x: model(x) * wrong, model, 3, 8, torch.float32)
    assert not found.is_allowed


def test_a_file_with_another_output_shape_is_not_written(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    whole = OnnxNetwork.forward
    monkeypatch.setattr(OnnxNetwork, "forward", lambda self, x: whole(self, x)[:1])
    with pytest.raises(ExDAError, match=r"ValueError: an output of \(1, 3, 56, 24\) instead of \(2, 3, 56, 24\)"):
        export(network(**ONE_BLOCK), tmp_path / "model.onnx")


def test_rounding_that_the_network_itself_magnifies_is_allowed() -> None:
    class Sign(nn.Module):
        """A network whose output changes its sign wherever x * 3 / 3 is rounded to another number than x."""

        def forward(self, x: Tensor) -> Tensor:
            return torch.where(x * 3 / 3 == x, 1.0, -1.0).to(x.dtype)

    model = Sign()
    found = check.difference_of(lambda x: model(x.double()).float(), model, 3, 8, torch.float32)
    assert found.relative > 0.1
    assert found.own is not None
    assert found.is_allowed


def test_a_network_that_sorts_says_why_it_is_inexact(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = network("histogram", **ONE_BLOCK)
    nothing = Difference(((1, 8, 8),), 0.0, 0.0, 1e-5)
    monkeypatch.setattr(run, "difference_of", lambda *_: nothing)
    done = export(model, tmp_path / "model.onnx")
    assert "sorts pixels by their values" in (done.inexact or "")
    monkeypatch.setattr(run, "difference_of", lambda *_: Difference(((1, 8, 8),), 1.0, 1.0, 1e-5))
    monkeypatch.setattr(run, "write_captured", lambda *_, **__: None)
    with pytest.raises(ExDAError, match="no file can be exact, for it sorts pixels"):
        export(model, tmp_path / "other.onnx")


def test_a_network_with_bands_says_why_it_is_inexact() -> None:
    assert "bands" in (run._inexact(network("cross", **ONE_BLOCK)) or "")
    assert run._inexact(network()) is None


def test_experts_that_rounding_chooses() -> None:
    model = exda.models.AMIR(1, 1, **SMALL | ONE_BLOCK)
    assert "experts with the largest logits" in (run._inexact(model) or "")


def test_a_trained_amir_is_traced_at_the_lowest_opset(tmp_path: Path) -> None:
    model = exda.models.AMIR(1, 1, **SMALL | ONE_BLOCK)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            # Untrained, these are zeros, and all experts are equal: any two may be chosen.
            if name.endswith("w_gate"):
                parameter.normal_()
    done = export(model, tmp_path / "model.onnx", opset=17)
    assert done.difference.relative < 1e-6


@pytest.mark.parametrize("format", ["onnx", "pt2"])
def test_a_network_that_draws_random_numbers_is_refused(format: str, tmp_path: Path) -> None:
    model = exda.models.MoCEIR(dim=8, num_blocks=(1, 1, 1, 1))
    state = torch.get_rng_state()
    with pytest.raises(ExDAError, match=r"MoCEIR draws random numbers even in evaluation: two calls .* differ by"):
        export(model, tmp_path / "model", format=format)
    assert torch.equal(torch.get_rng_state(), state)
    assert list(tmp_path.iterdir()) == []


def test_random_numbers_without_an_effect_are_no_reason(tmp_path: Path) -> None:
    class Draws(nn.Conv2d):
        def forward(self, x: Tensor) -> Tensor:
            torch.rand(2)
            return super().forward(x)

    assert export(Draws(3, 3, 3, padding=1), tmp_path / "model.onnx").difference.is_allowed


class Two(nn.Module):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return x, x


class Prompted(nn.Module):
    def forward(self, x: Tensor, prompt: Tensor) -> Tensor:
        return x * prompt


class Unknown(nn.Module):
    """A network with an operation that no file format has."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.from_numpy(x.numpy() * 2) if not torch.jit.is_tracing() else torch.special.airy_ai(x)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (Two(), "Two makes a tuple of an image"),
        (nn.Flatten(), r"Flatten makes a tensor of \(1, \d+\) of an image"),
        (
            Prompted(),
            "Prompted cannot be called with an image as its only argument: with 3 channels TypeError: .*prompt",
        ),
        (Unknown(), "not written: traced: .*; by torch.export: "),
    ],
    ids=lambda given: type(given).__name__,
)
def test_networks_that_cannot_be_exported_are_refused_with_the_reason(
    model: nn.Module, message: str, tmp_path: Path
) -> None:
    with pytest.raises(ExDAError, match=message):
        export(model, tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"format": "tflite"}, "format must be one of onnx, pt2, dtmodel, got 'tflite'"),
        ({"opset": 9}, "opset must be from 17 to 20"),
        ({"compiled": True}, "only the format 'pt2' can be compiled, got 'onnx'"),
    ],
)
def test_unknown_options_are_refused(options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        export(one_attention(), tmp_path / "model.onnx", **options)  # type: ignore[arg-type]


def test_missing_packages_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ExDAError, match='run: pip install "onnx>='):
        export(one_attention(), tmp_path / "model.onnx")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("multiple", [1, 2, 8, 16, 64])
def test_sizes_are_odd_multiples_and_not_those_of_the_trace(multiple: int) -> None:
    _, *traced = size_to_trace(multiple)
    for _, *sides in sizes_for(multiple):
        assert all(side % (2 * multiple) == multiple and side >= 16 for side in sides)
        assert not set(sides) & set(traced)


def test_a_package_for_darktable(tmp_path: Path) -> None:
    model = one_attention()
    done = export(model, tmp_path / "My net.dtmodel", format="dtmodel")
    with zipfile.ZipFile(done.path) as package:
        # As in darktable-ai's packages: one folder, which has the id as its name.
        assert package.namelist() == ["denoise-exda-my-net/config.json", "denoise-exda-my-net/model.onnx"]
        config = json.loads(package.read("denoise-exda-my-net/config.json"))
        (tmp_path / "model.onnx").write_bytes(package.read("denoise-exda-my-net/model.onnx"))
    assert list(config) == ["id", "name", "description", "task", "arch", "backend", "version", "tiling", "attributes"]
    assert (config["id"], config["name"], config["task"]) == ("denoise-exda-my-net", "My net", "denoise")
    assert config["backend"] == "onnx"
    # darktable calls the network with tiles of this side alone, and does not load a package that has none.
    assert config["attributes"] == {"input_sizes": [512]}
    inside = OnnxNetwork(tmp_path / "model.onnx")
    assert inside.metadata == done.metadata
    opened = onnx_session.session(tmp_path / "model.onnx")
    (given,), (made,) = opened.get_inputs(), opened.get_outputs()
    assert (given.name, made.name) == ("input", "output")
    x = image(1, 256, 256)
    with torch.no_grad():
        torch.testing.assert_close(inside(x), model(x), rtol=0, atol=5e-6)


@pytest.mark.parametrize(("multiple", "least", "side"), [(8, 16, 512), (48, 48, 528), (64, 1000, 1024)])
def test_the_side_of_darktables_tiles_is_one_that_the_network_takes(
    multiple: int, least: int, side: int, tmp_path: Path
) -> None:
    metadata = {"multiple": str(multiple), "least_side": str(least), "network": "a", "version": "1", "patched": "{}"}
    (tmp_path / "net").write_bytes(b"onnx")
    pack(tmp_path / "net", "net", metadata)
    with zipfile.ZipFile(tmp_path / "net") as package:
        config = json.loads(package.read("denoise-exda-net/config.json"))
    assert config["attributes"]["input_sizes"] == [side]


def test_networks_that_darktable_cannot_call_are_refused() -> None:
    check_packable({"input_channels": "3", "output_channels": "3"})
    with pytest.raises(ExDAError, match="from 3 channels to 3, this one has 1 to 1"):
        check_packable({"input_channels": "1", "output_channels": "1"})
