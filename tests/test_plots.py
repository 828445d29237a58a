"""The figure of loss and accuracy, as matplotlib has it: scales, ticks, lines and bands."""

import numpy as np
import pytest

import q2_mlp


@pytest.fixture
def draw(figures, tmp_path):
    """Return a function that draws a record with these accuracies in the test, a row per seed."""

    def draw(*seeds):
        epochs = []
        for seed, accuracies in enumerate(seeds):
            for epoch, accuracy in enumerate(accuracies, start=1):
                metrics = {"seed": seed, "epoch": epoch, "train_loss": 2, "train_accuracy": 0.8}
                metrics |= {"test_loss": 1.05 - accuracy, "test_accuracy": accuracy}
                epochs.append(metrics)
        record = {"seeds": list(range(len(seeds))), "epochs": epochs}
        curves = {"train": (record, "train"), "test": (record, "test")}
        q2_mlp.plot(tmp_path / "a.png", "A title", curves)
        figures["a.png"].draw_without_rendering()
        return figures["a.png"]

    return draw


def ticks(axis):
    """Return the labels of the ticks in view, and where these are."""
    low, high = sorted(axis.get_view_interval())
    pairs = zip(axis.get_majorticklabels(), axis.get_majorticklocs(), strict=True)
    return {label.get_text(): place for label, place in pairs if low <= place <= high}


def test_accuracy_is_on_a_logit_axis_in_percent_even_if_all_are_right(draw):
    loss_ax, ax = draw([0.89, 0.9, 0.99, 1.0]).axes
    assert (loss_ax.get_yscale(), ax.get_yscale()) == ("log", "logit")
    assert np.isfinite(ax.lines[1].get_ydata()).all()
    assert ax.lines[1].get_ydata()[:3] == pytest.approx([0.89, 0.9, 0.99])
    shown = ticks(ax.yaxis)
    assert {"80", "90", "97", "99", "99.7", "99.9"} <= shown.keys()
    assert all(float(text) == pytest.approx(100 * place) for text, place in shown.items())


@pytest.mark.parametrize("epochs", [1, 2, 17])
def test_ticks_are_whole_epochs_and_a_single_one_is_visible(draw, epochs):
    for ax in draw(np.linspace(0.9, 0.99, epochs)).axes:
        places = ticks(ax.xaxis).values()
        assert len(places) >= 1
        assert all(place == int(place) for place in places)
        assert all(line.get_marker() == "." for line in ax.lines)
        assert list(ax.lines[1].get_xdata()) == list(range(1, epochs + 1))


def test_several_seeds_are_median_and_quartiles_also_if_the_last_was_interrupted(draw):
    figure = draw([0.5, 0.7], [0.6, 0.8], [0.8, 0.9], [0.9, 0.95], [0.95])
    expected = np.array([[0.6, 0.8, 0.9], [0.775, 0.85, 0.9125]])
    for ax, values in zip(figure.axes, (1.05 - expected[:, ::-1], expected), strict=True):
        assert ax.lines[1].get_ydata() == pytest.approx(values[:, 1])
        corners = ax.collections[1].get_paths()[0].vertices
        for epoch, (lower, _, upper) in enumerate(values, start=1):
            edges = corners[corners[:, 0] == epoch, 1]
            assert (edges.min(), edges.max()) == pytest.approx((lower, upper))
