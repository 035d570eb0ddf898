"""What the plots of an inspection show."""

from pathlib import Path

import pytest
import torch

from exda_primitives.workbench.inspection.plots import agreements, scatter, sheet, spectra_figure
from exda_primitives.workbench.inspection.spectra import BINS


def test_a_scatter_plot_draws_each_labels_points() -> None:
    labels = ["rain", "haze", "rain"]
    points = torch.tensor([[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]])
    made = scatter({"outputs": points, "tokens": points}, labels, "t-SNE")
    drawn = {each.get_label(): each.get_offsets().tolist() for each in made.axes[1].collections}
    assert drawn == {"rain": [[0, 1], [4, 5]], "haze": [[2, 3]]}


def test_no_two_labels_look_alike() -> None:
    made = scatter({"outputs": torch.rand(12, 2)}, [str(i) for i in range(12)], "")
    looks = {
        (tuple(each.get_facecolor()[0]), each.get_paths()[0].vertices.tobytes()) for each in made.axes[0].collections
    }
    assert len(looks) == 12
    # Marker shapes tell labels apart without colours, too.
    assert len({shape for _, shape in looks}) == 7


def test_agreements_are_drawn_by_their_means() -> None:
    made = agreements({"outputs": {"all": [(0.5, 0.2), (0.7, 0.4)], "latent": [(0.1, 0.0), (0.1, 0.0)]}}, "")
    (axes,) = made.axes
    dots = [float(line.get_xdata()[0]) for line in axes.lines if len(line.get_xdata()) == 1]
    assert dots == pytest.approx([0.6, 0.1, 0.3, 0.0])
    assert [label.get_text() for label in axes.get_yticklabels()] == ["all", "latent"]


def test_an_agreement_below_0_is_inside_the_axes() -> None:
    made = agreements({"outputs": {"all": [(0.5, -0.3)]}, "tokens": {"all": [(0.5, 0.2)]}}, "")
    assert [axes.get_xlim()[0] for axes in made.axes] == pytest.approx([-0.35, -0.35])


def test_a_spectrum_without_power_says_so(tmp_path: Path) -> None:
    nothing = torch.full((BINS,), torch.nan, dtype=torch.float64)
    nothing[-1] = 0
    made = spectra_figure({"a": {"input": torch.ones(BINS)}, "b": {"input": nothing}}, "")
    made.savefig(tmp_path / "spectra.png")
    assert [text.get_text() for text in made.axes[1].texts] == ["no power at any frequency"]


def test_spectra_are_drawn_on_logarithmic_axes() -> None:
    power = torch.ones(BINS, dtype=torch.float64)
    power[:4] = torch.nan
    found = {"a": {"input": power, "output": power}, "b": {"input": power}, "c": {"input": power}}
    made = spectra_figure(found, "")
    assert [axes.get_title() for axes in made.axes] == ["a", "b", "c"]
    assert {(axes.get_xscale(), axes.get_yscale()) for axes in made.axes} == {("log", "log")}
    (line,) = made.axes[1].lines
    assert len(line.get_xdata()) == BINS - 4


def test_a_sheet_shows_the_maps_over_each_image() -> None:
    half = torch.zeros(4, 6)
    half[:, :3] = 1 / 12
    images = {"rain": torch.rand(1, 3, 16, 24), "haze": torch.rand(1, 1, 16, 24)}
    made = sheet(images, {"first": [half, half], "second": [torch.full((4, 6), 1 / 24)] * 2}, "")
    titles = [axes.get_title() for axes in made.axes]
    assert titles == ["rain", "first\n50%", "second\n100%", "haze", "50%", "100%"]
    over = made.axes[1].images[0].get_array()
    assert over.shape == (16, 24, 3)
    assert over[:, :6].mean() > over[:, -6:].mean()
