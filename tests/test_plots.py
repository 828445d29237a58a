"""The figures, as matplotlib has them: scales, ticks, lines, and the digits that are wrong."""

import numpy as np
import pytest
import torch
from torch import nn

import q2_mlp
import q3_cnn


def make_record(*seeds, split="test", interrupted=False):
    """Return a record of runs with these test accuracies per epoch; the losses are the errors."""
    runs = []
    for seed, accuracies in enumerate(seeds):
        epochs = [
            {
                "epoch": number,
                "train_loss": 1.1 - accuracy,
                "train_accuracy": accuracy,
                f"{split}_loss": 1.01 - accuracy,
                f"{split}_accuracy": accuracy - 0.01,
            }
            for number, accuracy in enumerate(accuracies, 1)
        ]
        runs.append({"seed": seed, "epochs": epochs})
    return {"split": split, "interrupted": interrupted, "runs": runs}


def draw(record):
    """Return figure, axis of the loss, axis of the accuracy, all drawn."""
    figure = q2_mlp.plot_run("A title", record)
    figure.draw_without_rendering()
    return figure, *figure.axes


def test_accuracy_is_spaced_by_the_error_and_loss_by_its_logarithm():
    _, loss_ax, ax = draw(make_record([0.8, 0.9, 0.99, 1.0]))
    places = ax.transData.transform([(1, y) for y in (0, 90, 99, 99.9, 100)])[:, 1]
    assert np.isfinite(places).all()
    assert (np.diff(places) > 0).all()
    assert places[2] - places[1] == pytest.approx(places[3] - places[2], rel=0.1)
    shown = {label.get_text() for label in ax.get_yticklabels()}
    assert shown >= {"90", "95", "98", "99", "99.5", "99.9"}
    assert loss_ax.get_yscale() == "log"


def test_ticks_are_whole_epochs_and_a_single_one_is_visible(recwarn):
    for epochs in 1, 2, 17:
        _, *axes = draw(make_record(np.linspace(0.9, 0.99, epochs)))
        for ax in axes:
            low, high = ax.get_xlim()
            ticks = [tick for tick in ax.get_xticks() if low <= tick <= high]
            assert ticks
            assert all(tick == int(tick) for tick in ticks)
            assert all(line.get_marker() == "." for line in ax.lines)
    assert not recwarn.list


def test_train_and_test_differ_by_line_and_colour_and_have_the_values():
    figure, *axes = draw(make_record([0.9, 0.95, 0.97]))
    for ax, train, test in zip(
        axes, ([0.2, 0.15, 0.13], [90, 95, 97]), ([0.11, 0.06, 0.04], [89, 94, 96]), strict=True
    ):
        one, other = ax.lines
        assert one.get_ydata() == pytest.approx(train)
        assert other.get_ydata() == pytest.approx(test)
        assert list(one.get_xdata()) == list(other.get_xdata()) == [1, 2, 3]
        assert one.get_linestyle() != other.get_linestyle()
        assert one.get_color() != other.get_color()
    (legend,) = figure.legends
    labels = [text.get_text() for text in legend.get_texts()]
    assert labels == ["train (running average)", "test"]
    assert figure.get_suptitle() == "A title: test loss 0.0400, accuracy 96.00 %"


def test_several_seeds_are_median_and_band_and_a_shorter_one_is_drawn():
    """The last seed was interrupted after two of three epochs."""
    _, *axes = draw(
        make_record([0.9, 0.95, 0.98], [0.8, 0.93, 0.96], [0.6, 0.94], interrupted=True)
    )
    _, ax = axes
    assert ax.lines[0].get_ydata() == pytest.approx([80, 94, 97])
    (train, _) = ax.collections
    corners = train.get_paths()[0].vertices
    for epoch, low, high in (1, 60, 90), (2, 93, 95), (3, 96, 98):
        values = corners[corners[:, 0] == epoch, 1]
        assert (values.min(), values.max()) == pytest.approx((low, high))


def test_final_metrics_are_mean_and_sample_deviation_of_the_last_epochs():
    text = q2_mlp.final_metrics(make_record([0.99, 0.92], [0.91, 0.94], split="validation"))
    assert text == "validation loss 0.0800, accuracy 92.00 ± 1.41 %, 2 seeds"
    assert q3_cnn.final_metrics(make_record([0.99, 0.9])) == "test loss 0.1100, accuracy 89.00 %"
    text = q2_mlp.final_metrics(make_record([0.9], interrupted=True))
    assert text.endswith("accuracy 89.00 %, interrupted")
    # The second seed was interrupted in its second epoch.
    text = q2_mlp.final_metrics(make_record([0.9, 0.98], [0.6], interrupted=True))
    assert text.endswith("accuracy 97.00 %, interrupted")


class Sure(nn.Module):
    """Takes every image for a 3, the more surely the brighter it is."""

    def forward(self, X):
        return torch.eye(10)[3] * X.mean((1, 2, 3))[:, None] * 10


def test_wrong_digits_are_those_wrong_and_the_surest_first():
    brightness = torch.arange(4, 244, 4)  # 60 images
    images = brightness[:, None, None].expand(60, 28, 28).to(torch.uint8)
    labels = torch.where(torch.arange(60) % 10 == 0, 3, 7)  # 54 wrong
    data = images, labels
    figure = q3_cnn.plot_wrong("A title", Sure(), data, data)
    assert "A title: 54 of 60 wrong" in figure.get_suptitle()
    pictures = [ax.images[0].get_array() for ax in figure.axes]
    assert {picture.shape for picture in pictures} == {(28, 28)}
    pixels = [picture[0, 0] for picture in pictures]
    assert pixels == [4 * i + 4 for i in range(60) if i % 10][:-49:-1]
    assert figure.axes[0].get_title() == "7→3, 100%"

    # Where the network saw something else, that stands beside the original.
    seen = 255 - images
    figure = q3_cnn.plot_wrong("A title", Sure(), data, (seen, labels))
    picture = figure.axes[0].images[0].get_array()
    assert (picture == np.hstack([images[1], seen[1]])).all()
