"""restore: images of any size, whole or in tiles, in half precision; the model is left as it was."""

import copy
from importlib import resources

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import exda_primitives as exda
from exda_primitives.errors import ImageError
from exda_primitives.workbench.demo.model import tiny_restormer
from exda_primitives.workbench.demo.photograph import photograph
from exda_primitives.workbench.restoration import Restorer, restore
from exda_primitives.workbench.restoration.tiled import SEAM_LIMIT


@pytest.fixture(scope="module")
def model() -> nn.Module:
    network = tiny_restormer()
    network.load_state_dict(load_file(str(resources.files("exda_primitives.workbench.demo") / "data/host.safetensors")))
    return network.eval()


@pytest.fixture(scope="module")
def crop() -> Tensor:
    return photograph()[0, :, 150:310, 150:342]


def local(channels: int = 3) -> nn.Module:
    """A network whose output depends only on pixels at most one pixel away."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        conv = nn.Conv2d(channels, channels, 3, padding=1)
    with torch.no_grad():
        conv.weight.abs_().div_(conv.weight.sum((1, 2, 3), keepdim=True))
        conv.bias.zero_()  # type: ignore[union-attr]
    return conv


class Shifted(nn.Module):
    """Adds the mean of its input, which differs from tile to tile. Its convolution only gives the channel count."""

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)
        self.strength = strength

    def forward(self, x: Tensor) -> Tensor:
        assert self.conv.in_channels == x.shape[1]
        return x + self.strength * x.mean()


def test_an_image_that_fits_gives_the_models_own_output(model: nn.Module) -> None:
    image = torch.rand(1, 3, 32, 48)
    with torch.no_grad():
        expected = model(image).clamp(0, 1)
    restored = restore(model, image)
    torch.testing.assert_close(restored.image, expected, rtol=0, atol=1e-6)
    assert restored.tile is restored.overlap is restored.seam is None


@pytest.mark.parametrize("size", [(1, 1), (1, 37), (41, 1), (7, 8), (17, 23), (64, 3)])
@pytest.mark.parametrize("name", ["tiny", "amir"])
def test_images_of_any_size_are_restored(size: tuple[int, int], name: str, model: nn.Module) -> None:
    network = model
    if name == "amir":
        network = exda.models.AMIR(1, 1, dim=8, num_blocks=[1, 1, 1, 1], num_refinement_blocks=1)
    channels = 1 if name == "amir" else 3
    restored = restore(network, torch.rand(channels, *size))
    assert restored.image.shape == (channels, *size)
    assert bool(((restored.image >= 0) & (restored.image <= 1)).all())


@pytest.mark.parametrize("size", [(97, 131), (64, 200), (129, 64), (61, 67)])
def test_tiles_of_a_local_model_equal_the_whole(size: tuple[int, int]) -> None:
    image = torch.rand(3, *size, generator=torch.Generator().manual_seed(3))
    whole, tiled = restore(local(), image), restore(local(), image, tile=64, overlap=16)
    assert tiled.tile == 64
    torch.testing.assert_close(tiled.image, whole.image, rtol=0, atol=1e-6)


def test_tiles_of_the_demo_model(model: nn.Module, crop: Tensor) -> None:
    restored = restore(model, crop, tile=128, overlap=64)
    assert (restored.tile, restored.overlap) == (128, 64)
    assert restored.seam is not None
    assert 0 < restored.seam.percentile <= restored.seam.largest
    assert restored.seam.disagreement > 0
    whole = restore(model, crop).image
    # Each tile has statistics of its own: the results are near, not equal.
    assert 0 < float((restored.image - whole).abs().mean()) < 0.1


class Overwriting(nn.Module):
    """Subtracts the mean grey from its own input, in place or not."""

    def __init__(self, in_place: bool) -> None:
        super().__init__()
        self.conv, self.in_place = local(), in_place

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.sub_(0.5) if self.in_place else x - 0.5) + 0.5


@pytest.mark.parametrize("options", [{}, {"tile": 64, "overlap": 16}], ids=["whole", "tiles"])
def test_a_network_may_overwrite_its_input(options: dict[str, int]) -> None:
    image = torch.rand(3, 128, 128)
    before = image.clone()
    found = restore(Overwriting(True), image, **options).image  # type: ignore[arg-type]
    assert torch.equal(image, before)
    assert torch.equal(found, restore(Overwriting(False), image, **options).image)  # type: ignore[arg-type]


def test_an_output_of_another_size_is_refused() -> None:
    # It takes multiples of 16 alone, and rounds down: a padded image of 88 x 72 becomes one of 80 x 64.
    model = nn.Sequential(nn.Conv2d(3, 768, 16, stride=16), nn.PixelShuffle(16))
    with pytest.raises(ImageError, match=r"makes \(3, 80, 64\) of an image \(3, 88, 72\).*multiples of more than 8"):
        restore(model, torch.rand(3, 84, 70))
    assert restore(model, torch.rand(3, 84, 70), multiple=16).image.shape == (3, 84, 70)


def test_results_are_deterministic(model: nn.Module, crop: Tensor) -> None:
    first, second = (restore(model, crop, tile=96, overlap=32) for _ in range(2))
    assert torch.equal(first.image, second.image)
    assert first.seam == second.seam


def test_tile_and_overlap_are_rounded_up_to_the_multiple(model: nn.Module) -> None:
    restored = restore(model, torch.rand(3, 100, 40), tile=45, overlap=9)
    assert (restored.tile, restored.overlap) == (48, 16)


def test_the_default_overlap_grows_until_the_seam_is_small() -> None:
    # Brighter to the right, so that the tiles have different means.
    image = torch.linspace(0, 0.5, 1200).expand(3, 16, 1200)
    fixed = restore(Shifted(1.2), image, tile=600, overlap=152)
    assert fixed.seam is not None
    assert fixed.seam.largest > SEAM_LIMIT
    grown = restore(Shifted(1.2), image, tile=600)
    assert grown.overlap == 300 // 8 * 8
    assert grown.seam is not None
    assert grown.seam.largest < SEAM_LIMIT
    enough = restore(Shifted(0.3), image, tile=600)
    assert enough.overlap == 152


def test_the_default_overlap_ends_at_half_a_tile() -> None:
    restored = restore(Shifted(20.0), torch.rand(3, 16, 200) / 40 + torch.linspace(0, 0.02, 200), tile=48)
    assert restored.overlap == 24
    assert restored.seam is not None
    assert restored.seam.largest > SEAM_LIMIT


def test_progress_counts_the_tiles(model: nn.Module) -> None:
    seen: list[tuple[int, int]] = []
    Restorer(model, tile=64, overlap=16)(torch.rand(3, 100, 64), lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]


def test_memory_decides_on_the_tile(crop: Tensor, model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    from exda_primitives.workbench.restoration import network

    need = Restorer(model).need
    monkeypatch.setattr(network, "available_bytes", lambda device, budget: need.of(136, 136, 136) + 10**6)
    restored = restore(model, crop)
    assert restored.tile == 128
    monkeypatch.setattr(network, "available_bytes", lambda device, budget: 10**6)
    with pytest.raises(ImageError, match="not enough memory"):
        restore(model, crop)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(model: nn.Module, crop: Tensor, dtype: torch.dtype) -> None:
    full, half = restore(model, crop).image, restore(model, crop, dtype=dtype).image
    assert half.dtype == torch.float32
    assert not torch.equal(full, half)
    # Measured: mean 0.6/255 with bfloat16, 0.1/255 with float16.
    assert float((full - half).abs().mean()) < 2 / 255
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_model_in_half_precision(model: nn.Module, crop: Tensor) -> None:
    half = copy.deepcopy(model).bfloat16()
    restored = restore(half, crop)
    assert restored.image.dtype == torch.float32
    assert float((restored.image - restore(model, crop).image).abs().mean()) < 3 / 255


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_shape_and_dtype_of_the_image_are_kept(model: nn.Module, dtype: torch.dtype) -> None:
    restored = restore(model, torch.rand(1, 3, 20, 20).to(dtype))
    assert restored.image.shape == (1, 3, 20, 20)
    assert restored.image.dtype == dtype


class Overflowing(nn.Conv2d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * (1.0 if x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu") else 1e30)


@pytest.mark.parametrize(
    ("dtype", "weight", "advice"), [(torch.float16, 1.0, "full precision"), (None, float("nan"), "weights damaged")]
)
def test_nan_is_an_error(dtype: torch.dtype | None, weight: float, advice: str) -> None:
    model = Overflowing(3, 3, 1)
    nn.init.constant_(model.weight, weight)
    with pytest.raises(ImageError, match=advice):
        restore(model, torch.rand(3, 20, 20), dtype=dtype)


def test_the_model_is_left_as_it_was(crop: Tensor) -> None:
    model = nn.Sequential(nn.Conv2d(3, 3, 1), nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5)))
    model.train()
    model[1][0].eval()
    state = copy.deepcopy(model.state_dict())
    modes = [module.training for module in model.modules()]
    first, second = restore(model, crop).image, restore(model, crop).image
    assert torch.equal(first, second)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(ImageError):
        restore(model, crop[:2])
    assert [module.training for module in model.modules()] == modes


def test_the_image_is_left_as_it_was(model: nn.Module, crop: Tensor) -> None:
    before = crop.clone()
    restore(model, crop, tile=96, overlap=32)
    assert torch.equal(crop, before)
    # The model returns its input, which must not be clipped in place.
    beyond = torch.full((3, 64, 64), 2.0)
    assert float(restore(nn.Identity(), beyond).image.max()) == 1
    assert float(beyond.min()) == 2


def test_a_patched_model_restores_the_same(model: nn.Module, crop: Tensor) -> None:
    patched = copy.deepcopy(model)
    exda.patch(patched)
    restored, expected = restore(patched, crop, tile=96, overlap=32), restore(model, crop, tile=96, overlap=32)
    torch.testing.assert_close(restored.image, expected.image, rtol=0, atol=1e-5)


def test_a_compiled_model_restores_the_same(model: nn.Module) -> None:
    image = torch.rand(3, 20, 20)
    compiled = torch.compile(model, backend="eager")
    torch.testing.assert_close(restore(compiled, image).image, restore(model, image).image, rtol=0, atol=1e-6)


def test_grey_through_a_colour_model(model: nn.Module, crop: Tensor) -> None:
    grey = crop.mean(0, keepdim=True)
    restored = restore(model, grey).image
    assert restored.shape == grey.shape
    expected = restore(model, grey.expand(3, -1, -1)).image.mean(0, keepdim=True)
    torch.testing.assert_close(restored, expected, rtol=0, atol=1e-6)


def test_the_multiple_of_a_known_backbone_and_of_another(model: nn.Module) -> None:
    assert Restorer(model).multiple == 8
    assert Restorer(nn.Sequential(model)).multiple == 8
    assert Restorer(local()).multiple == 8
    assert Restorer(local(), multiple=24).multiple == 24


class Halving(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


@pytest.mark.parametrize(
    ("build", "image", "message"),
    [
        (lambda: local(1), torch.rand(3, 20, 20), "takes grey images, this one has 3 channels"),
        (local, torch.rand(4, 20, 20), "takes colour images, this one has 4 channels"),
        (local, torch.rand(2, 3, 20, 20), "once for each image"),
        (local, torch.rand(20, 20), "expected a float image"),
        (local, torch.randint(0, 255, (3, 20, 20), dtype=torch.uint8), "torch.uint8"),
        (local, torch.rand(3, 0, 20), "with pixels"),
        (lambda: local(6), torch.rand(3, 20, 20), "6 channels, as networks for dual-pixel"),
        (Halving, torch.rand(3, 20, 20), r"makes \(1, 3, 32, 32\)"),
        (
            lambda: nn.Sequential(nn.Identity(), nn.Conv2d(3, 3, 9, dilation=20)),
            torch.rand(3, 20, 20),
            "neither colour",
        ),
    ],
    ids=["colour", "alpha", "batch", "2-D", "bytes", "empty", "dual-pixel", "other size", "fails"],
)
def test_images_and_models_that_do_not_fit_are_refused(build: type[nn.Module], image: Tensor, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        restore(build(), image)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 0}, "tile must be"),
        ({"tile": 64, "overlap": 40}, "at most half a tile"),
        ({"overlap": 0}, "overlap must be"),
        ({"dtype": torch.int8}, "dtype must be"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(exda.ConfigError, match=message):
        restore(local(), torch.rand(3, 20, 20), **options)  # type: ignore[arg-type]
