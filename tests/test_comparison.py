"""The comparison of Q3: drawn once all four results are whole and belong together, else not."""

import json
import shutil

import pytest
from conftest import call, check_png, load, names

import q3_cnn

FLAGS = ["--epochs", 1, "--seeds", 0, 1]


@pytest.fixture(scope="module")
def trained(small_mnist, tmp_path_factory):
    """Train the variants in calls of their own; return the folder and what each call printed."""
    folder = tmp_path_factory.mktemp("plots")
    variants = "bn", "reg", "base", "bn_only"
    calls = [call(q3_cnn, small_mnist, folder, *FLAGS, "--variant", v) for v in variants]
    assert [code for code, _ in calls] == [0] * 4
    return folder, [printed for _, printed in calls]


@pytest.fixture
def folder(trained, tmp_path):
    """Return a copy of the folder, with a comparison that would be missed if it were replaced."""
    shutil.copytree(trained[0], tmp_path / "plots")
    (tmp_path / "plots" / "q3_cnn_comparison.png").write_text("the last good one")
    return tmp_path / "plots"


def test_the_last_of_separate_calls_draws_it(trained):
    folder, calls = trained
    assert "q3_cnn_comparison.png" in names(folder)
    check_png(folder / "q3_cnn_comparison.png")
    assert calls[-1][-1] == f"wrote {folder / 'q3_cnn_comparison.png'}"
    for printed in calls[:-1]:
        assert printed[-1].startswith(
            f"No comparison: {folder / 'q3_cnn_base.json'} is missing"
        ) or (printed[-1].startswith(f"No comparison: {folder / 'q3_cnn_bn_only.json'} is missing"))
        assert sum("comparison" in line for line in printed) == 1


def check_refused(small_mnist, folder, *flags, culprit="base"):
    """Train reg anew with these flags; check that one line says why there is no comparison."""
    code, printed = call(q3_cnn, small_mnist, folder, "--variant", "reg", *flags)
    assert code == 0
    (line,) = (line for line in printed if "omparison" in line)
    suffix = "_validate" * ("--validate" in flags)
    assert line.startswith(f"No comparison: {folder / f'q3_cnn_{culprit}{suffix}.json'} is ")
    assert (folder / "q3_cnn_comparison.png").read_text() == "the last good one"


def test_the_same_settings_and_seeds_replace_it(small_mnist, folder):
    assert call(q3_cnn, small_mnist, folder, "--variant", "reg", *FLAGS)[0] == 0
    check_png(folder / "q3_cnn_comparison.png")


def test_other_settings_or_seeds(small_mnist, folder):
    check_refused(small_mnist, folder, "--epochs", 2, "--seeds", 0, 1)
    check_refused(small_mnist, folder, "--epochs", 1, "--seeds", 0)
    check_refused(small_mnist, folder, "--epochs", 1, "--seeds", 0, 1, 2)
    check_refused(small_mnist, folder, *FLAGS, "--lr", 0.1)
    check_refused(small_mnist, folder, *FLAGS, "--affine", 0.1)


@pytest.mark.parametrize("variant", ["base", "bn"])
def test_truncated_result(small_mnist, folder, variant):
    path = folder / f"q3_cnn_{variant}.json"
    for size in len(path.read_text()) // 2, 0:
        path.write_text(path.read_text()[:size])
        check_refused(small_mnist, folder, *FLAGS, culprit=variant)


def test_interrupted_result(small_mnist, folder):
    path = folder / "q3_cnn_bn.json"
    path.write_text(json.dumps(load(path) | {"interrupted": True}))
    check_refused(small_mnist, folder, *FLAGS, culprit="bn")


def test_validation_is_not_compared_with_test(small_mnist, folder, monkeypatch):
    monkeypatch.setattr(q3_cnn, "HELD_OUT", 300)
    check_refused(small_mnist, folder, *FLAGS, "--validate")


def test_lines_are_the_four_variants_on_the_same_images(
    trained, small_mnist, tmp_path, monkeypatch
):
    figures = []
    monkeypatch.setattr(q3_cnn, "train_seeds", lambda *_: None)
    monkeypatch.setattr(q3_cnn, "save", lambda args, name, figure: figures.append((name, figure)))
    call(q3_cnn, small_mnist, trained[0], *FLAGS, "--variant", "base")
    ((name, figure),) = figures
    assert name == "q3_cnn_comparison.png"
    for ax, key, unit in zip(figure.axes, ("loss", "accuracy"), (1, 100), strict=True):
        for line, variant in zip(ax.lines, q3_cnn.HYPERPARAMETERS, strict=True):
            record = load(trained[0] / f"q3_cnn_{variant}.json")
            values = [unit * run["epochs"][0][f"test_{key}"] for run in record["runs"]]
            assert line.get_ydata() == pytest.approx([sum(values) / 2])  # the median of two
            assert line.get_label() == q3_cnn.TITLES[variant]
        assert len({line.get_linestyle() for line in ax.lines}) == 4
        assert len({line.get_color() for line in ax.lines}) == 4
