"""The two pictures of all variants: drawn once all results are whole and belong together."""

import json
import shutil

import numpy as np
import pytest
from conftest import OLD, call, check_png, load, names

import q3_cnn

FLAGS = ["--epochs", 1, "--seeds", 0, 1]
PICTURES = ["q3_cnn_comparison.png", "q3_cnn_layers.png"]


@pytest.fixture(scope="module")
def trained(small_mnist, tmp_path_factory, without_pictures):
    """Train the variants in calls of their own; return the folder."""
    folder = tmp_path_factory.mktemp("plots")
    for variant in "bn", "reg", "base", "bn_only":
        assert not set(names(folder)) & set(PICTURES)
        code, _ = call(q3_cnn, small_mnist, folder, *FLAGS, "--variant", variant)
        assert code == 0
    for name in PICTURES:
        check_png(folder / name)
    return folder


@pytest.fixture
def folder(trained, tmp_path):
    """Return a copy of the folder, with pictures that would be missed if they were replaced."""
    shutil.copytree(trained, tmp_path / "plots")
    for name in PICTURES:
        (tmp_path / "plots" / name).write_text(OLD)
    return tmp_path / "plots"


@pytest.fixture
def check(small_mnist, folder):
    """Return a function that trains reg anew with these flags, and checks what is drawn."""

    def check(*flags, drawn=False):
        code, printed = call(q3_cnn, small_mnist, folder, "--variant", "reg", *flags)
        assert code == 0
        assert ("omparison" in "".join(printed)) == drawn
        for name in PICTURES:
            if drawn:
                check_png(folder / name)
            else:
                assert (folder / name).read_text() == OLD

    return check


def test_other_settings_or_seeds(check):
    check("--epochs", 2, "--seeds", 0, 1)
    check("--epochs", 1, "--seeds", 0)
    check("--epochs", 1, "--seeds", 0, 2)
    check(*FLAGS, "--affine", 0.1)
    check(*FLAGS, drawn=True)


def test_broken_or_interrupted_result(check, folder):
    path = folder / "q3_cnn_bn.json"
    text = path.read_text()
    for broken in "", text[: len(text) // 2], json.dumps(load(path) | {"interrupted": True}):
        path.write_text(broken)
        check(*FLAGS)


@pytest.fixture
def records(trained):
    return {variant: load(trained / f"q3_cnn_{variant}.json") for variant in q3_cnn.HYPERPARAMETERS}


def test_lines_are_the_four_variants_on_the_same_images(records):
    figure = q3_cnn.plot_comparison(records)
    for ax, key, unit in zip(figure.axes, ("loss", "accuracy"), (1, 100), strict=True):
        for line, (variant, record) in zip(ax.lines, records.items(), strict=True):
            values = [unit * run["epochs"][0][f"test_{key}"] for run in record["runs"]]
            assert line.get_ydata() == pytest.approx([sum(values) / 2])  # the median of two
            assert line.get_label() == q3_cnn.TITLES[variant]
        assert len({line.get_linestyle() for line in ax.lines}) == 4
        assert len({line.get_color() for line in ax.lines}) == 4
        assert not ax.collections, "a band would squash the lines"


def test_picture_of_the_layers_shows_what_base_and_bn_only_recorded(records):
    figure = q3_cnn.plot_layers(records)
    assert "seed 0" in figure.get_suptitle()
    (legend,) = figure.legends
    assert [t.get_text() for t in legend.get_texts()] == ["without batch norm", "with batch norm"]
    axes = iter(figure.axes)
    for when, words in ("start", "before"), ("end", "after"):
        for layer in "conv 2", "linear 1", "linear 2":
            ax = next(axes)
            assert ax.get_title() == f"input of {layer}, {words} training"
            for i, variant in enumerate(["base", "bn_only"]):
                inputs = records[variant]["runs"][0]["layers"][when][layer]
                share = np.array(inputs["counts"]) / sum(inputs["counts"])
                values, edges, _ = ax.patches[i].get_data()
                assert values == pytest.approx(100 * share)
                assert (edges[0], edges[-1], len(edges)) == (-3, 7, 51)
                assert ax.lines[i].get_xdata() == [inputs["mean"]] * 2
