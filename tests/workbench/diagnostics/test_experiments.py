"""Data, targets and networks of the three experiments."""

import math

import numpy as np
import pytest
import torch

from exda_primitives import ConfigError
from exda_primitives.workbench.diagnostics import digits, function, position
from exda_primitives.workbench.diagnostics.data import Digits
from exda_primitives.workbench.diagnostics.digits import DigitsExperiment, degrade, psnr
from exda_primitives.workbench.diagnostics.experiment import Experiment
from exda_primitives.workbench.diagnostics.function import FunctionExperiment, WindowNetwork
from exda_primitives.workbench.diagnostics.position import FIXED, TASKS, PositionExperiment
from exda_primitives.workbench.diagnostics.variants import LINEAR, RESIDUAL, VARIANTS, WIDENED, channel_network
from exda_primitives.workbench.diagnostics.variants import parameters as counted
from exda_primitives.workbench.diagnostics.windows import WindowsExperiment, windows


@pytest.fixture
def some_digits() -> Digits:
    generator = torch.Generator().manual_seed(0)
    return Digits(torch.rand(20, 1, 8, 8, generator=generator), "random", "0")


def experiments(some_digits: Digits) -> list[Experiment]:
    larger = Digits(some_digits.images.repeat(1, 1, 2, 2)[..., :14, :14], "random", "0")
    return [
        DigitsExperiment(some_digits, [1, 2]),
        WindowsExperiment(larger, [1, 2]),
        FunctionExperiment(),
        PositionExperiment(),
    ]


def test_held_out_digits_are_not_trained_on(some_digits: Digits) -> None:
    experiment = DigitsExperiment(some_digits)
    together = torch.cat((experiment.clean, experiment.held_out_clean))
    assert len(experiment.clean) == 16
    assert {image.numpy().tobytes() for image in together} == {image.numpy().tobytes() for image in some_digits.images}
    assert len(DigitsExperiment(some_digits, used=10).clean) == 8


def test_the_batches_of_a_seed_are_the_same_for_all(some_digits: Digits) -> None:
    for experiment in experiments(some_digits):
        condition = experiment.conditions[0]
        first, again, other = (experiment.batches(condition, seed) for seed in (3, 3, 4))
        for _ in range(2):
            pair = first()
            assert all(torch.equal(a, b) for a, b in zip(pair, again(), strict=True))
            assert not torch.equal(pair[0], other()[0])
        assert pair[0].shape[0] == experiment.batch


def test_every_network_takes_its_batches(some_digits: Digits) -> None:
    for experiment in experiments(some_digits):
        for condition in experiment.conditions:
            inputs, targets = experiment.batches(condition, 0)()
            for variant in VARIANTS:
                if experiment.has(condition, variant):
                    assert experiment.network(condition, variant)(inputs).shape == targets.shape


def test_degradation_of_a_uniform_image() -> None:
    """Away from the border the blur changes nothing, the ramp runs from 0.6 to 1 (mean 0.8), and the noise is 0.15."""
    grey = torch.full((400, 1, 28, 28), 0.5)
    degraded = degrade(grey, torch.Generator().manual_seed(0))[..., 2:-2, 2:-2]
    assert degraded.mean().item() == pytest.approx(0.4, abs=0.003)
    by_pixel = degraded.mean(0).std().item()
    assert by_pixel < 0.02
    # Means of 6 x 6 pixels bring the noise down to 0.025; at the corners of the steepest ramp the image is 0.3 or 0.5.
    patches = torch.nn.functional.avg_pool2d(degraded, 6, 6).flatten(1)
    assert patches.min(1).values.mean().item() == pytest.approx(0.31, abs=0.02)
    assert patches.max(1).values.mean().item() == pytest.approx(0.49, abs=0.02)
    local = (degraded[..., 1:] - degraded[..., :-1]).std().item() / math.sqrt(2)
    assert local == pytest.approx(0.15, abs=0.005)
    assert torch.equal(
        degrade(grey[:2], torch.Generator().manual_seed(1)), degrade(grey[:2], torch.Generator().manual_seed(1))
    )


def test_the_blur_has_its_width() -> None:
    point = torch.zeros(2000, 1, 11, 11)
    point[..., 5, 5] = 1
    # Noise and light average out; what is below 0 is clipped: the mean has an offset, the same everywhere far away.
    spread = degrade(point, torch.Generator().manual_seed(0)).mean(0)[0]
    spread = (spread - spread[0].mean())[5]
    taps = np.exp(-(np.arange(-2, 3) ** 2) / (2 * 0.7**2))
    # A small positive mean under clipped noise is damped: compare the two largest, where nothing is clipped.
    assert (spread[5] / spread[4]).item() == pytest.approx(taps[2] / taps[1], rel=0.35)
    assert spread[5] > spread[4] > spread[3]


def test_psnr_is_averaged_over_images() -> None:
    clean = torch.zeros(2, 1, 4, 4)
    restored = clean + torch.tensor([0.1, 0.01]).view(2, 1, 1, 1)
    assert psnr(restored, clean) == pytest.approx(30)


@pytest.mark.parametrize(
    ("images", "depths", "message"), [(4, [1], "at least 5"), (20, [1, 0], "at least 1 attention")]
)
def test_too_few_digits_or_attentions_are_refused(
    some_digits: Digits, images: int, depths: list[int], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        DigitsExperiment(Digits(some_digits.images[:images], "few", "0"), depths)


def test_a_linear_value_cannot_do_more_than_least_squares() -> None:
    """Channel attention with a linear value mixes features with weights that are the same for all points."""
    torch.manual_seed(0)
    network = channel_network(function.Layout(5, 1, 1, 6, 1), "linear").double()
    with torch.no_grad():
        dwconv = network.attentions[0].qkv_dwconv
        dwconv.weight[..., [0, 0, 0, 1, 1, 2, 2, 2], [0, 1, 2, 0, 2, 0, 1, 2]] = 0
    x = function.points(function.CHANNELS, 1, torch.Generator().manual_seed(0)).double()
    features = function.features(x, 2)
    given = network(features).flatten()
    basis = torch.cat((features.flatten(2)[0].T, torch.ones(256, 1, dtype=torch.float64)), dim=1)
    fitted = basis @ torch.linalg.lstsq(basis, given.unsqueeze(1)).solution
    assert torch.allclose(fitted.flatten(), given, atol=1e-9)


def test_windows_of_a_map_see_themselves_alone() -> None:
    """A pixel's gradient reaches its own window; shifted windows lie otherwise, and none reaches round the border."""
    torch.manual_seed(0)
    for index, own in ((0, slice(0, 7)), (1, slice(3, 10))):
        # g's convolution does not know the mask: within the windows that reach round the border, it sees all pixels.
        layer = windows(index, 4, 2, VARIANTS[LINEAR], False)
        x = torch.randn(1, 4, 14, 14, requires_grad=True)
        layer(x)[0, :, 5, 5].sum().backward()
        assert x.grad is not None
        reached = x.grad[0].abs().sum(0) > 0
        expected = torch.zeros(14, 14, dtype=torch.bool)
        expected[own, own] = True
        assert torch.equal(reached, expected)
        x.grad = None
        # The last pixel of the map: shifted, its window ends at the border.
        layer(x)[0, :, 13, 13].sum().backward()
        reached = x.grad[0].abs().sum(0) > 1e-30
        expected.zero_()
        expected[(7 if index == 0 else 10) :, (7 if index == 0 else 10) :] = True
        assert torch.equal(reached, expected)


def test_window_networks_have_controls_of_equal_size() -> None:
    experiment = WindowsExperiment(Digits(torch.rand(20, 1, 14, 14), "random", "0"))
    sizes = {name: counted(experiment.network("depth 2", name)) for name in (LINEAR, RESIDUAL, WIDENED, "branch")}
    assert sizes["branch"] == sizes[RESIDUAL] > sizes[LINEAR]
    assert sizes[WIDENED] == pytest.approx(sizes[RESIDUAL], rel=0.02)
    with pytest.raises(ConfigError, match=r"images of \(8, 8\); windows need sides that are multiples of 7"):
        WindowsExperiment(Digits(torch.rand(20, 1, 8, 8), "random", "0"))


def test_a_window_sees_its_nine_positions() -> None:
    torch.manual_seed(0)
    layout = function.Layout(3, 1, 1, 4, 1)
    network = WindowNetwork(layout, VARIANTS["linear"], 4, False).double()
    x = torch.randn(1, 3, 1, 30, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(network(x)[0, 0, 0, 12], x)
    seen = gradient.abs().sum((0, 1, 2)).nonzero().flatten().tolist()
    assert seen == list(range(8, 17))
    with pytest.raises(ConfigError, match="rows of channel attention"):
        WindowNetwork(layout, VARIANTS["token"], 4, False)


def test_features_are_those_of_the_given_order() -> None:
    x = torch.tensor([[[[2.2, 0.0, -1.1]]]])
    order0, order2 = function.features(x, 0), function.features(x, 2)
    assert order0.flatten().tolist() == pytest.approx([1, 0, -0.5])
    assert order2.shape == (1, 5, 1, 3)
    assert order2[0, :, 0, 2].tolist() == pytest.approx([-0.5, -1, 0, 0, -1], abs=1e-6)


@pytest.mark.parametrize("name", ["linear", "gelu", "token"])
def test_the_target_mixture_is_that_of_the_untrained_network(name: str) -> None:
    """Before training, a linear value gives A x; so does the target where its ReLUs change nothing."""
    experiment = PositionExperiment()
    x = position.images(3, torch.Generator().manual_seed(0)).abs()
    network = experiment.network(TASKS[0], name)
    found = network(x)
    # On positive inputs all ReLUs are the identity.
    wanted = position.target(TASKS[0], x)
    assert torch.allclose(position.target(TASKS[1], x), wanted)
    assert torch.allclose(found, wanted, atol=1e-5) == (name == "linear")


def test_the_tasks_differ_by_the_place_of_the_relu() -> None:
    x = position.images(5, torch.Generator().manual_seed(0))
    for own in (True, False):
        first, then = (position.target(task, x) for task in TASKS if task.startswith(FIXED) != own)
        # Jensen's inequality: the mean of a convex function's values is at least the function's value of the mean.
        assert (first - then).min() >= -1e-6
        assert (first - then).mean() > 0.05


def test_a_fixed_mixture_is_the_same_for_all_images() -> None:
    x = position.images(2, torch.Generator().manual_seed(0)).abs()
    swapped = position.target(TASKS[2], torch.cat((x[:1], x[1:] * 2)))
    assert torch.allclose(swapped[1], 2 * position.target(TASKS[2], x)[1])
    own = position.images(2, torch.Generator().manual_seed(0)).abs()
    own[:, :, :4] = torch.randn(own[:, :, :4].shape, generator=torch.Generator().manual_seed(1))
    assert torch.equal(position.target(TASKS[2], own), position.target(TASKS[2], x))
    assert not torch.allclose(position.target(TASKS[0], own), position.target(TASKS[0], x))


def test_the_quick_options_exist(some_digits: Digits) -> None:
    for quick, kind in ((digits, DigitsExperiment), (function, FunctionExperiment), (position, PositionExperiment)):
        first = (some_digits,) if kind is DigitsExperiment else ()
        experiment = kind(*first, **quick.quick_options())
        assert experiment.steps < kind(*first).steps
        assert set(experiment.variants) >= {"linear", "widened", "residual", "after"}
