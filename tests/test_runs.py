"""What a run prints and writes, mostly with chosen metrics in place of training."""

import io
import itertools
import json
import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from conftest import load, names

import q2_mlp
import q3_cnn


def epochs(*accuracies):
    """Return metrics as train() yields them, with these accuracies in the test."""
    return [((1.15 - x, x - 0.1), (1.05 - x, x)) for x in accuracies]


def test_run_of_q2(main, tmp_path, monkeypatch, figures, no_training):
    """The final figure is that of the last epoch, mean and sample deviation over the seeds."""
    no_training(q2_mlp, {3: epochs(0.99, 0.90), 6: epochs(1.00, 0.96)})
    # Each look at the clock takes a second.
    clock = SimpleNamespace(perf_counter=itertools.count().__next__)
    monkeypatch.setattr(q2_mlp, "time", clock)
    folder = tmp_path / "new" / "plots"
    flags = ["--epochs", 2, "--lr", 0.12, "--seeds", 3, 6, "--plots-dir", folder]
    code, printed = main(q2_mlp, *flags)
    assert code == 0
    record = load(folder / "q2_mlp.json")
    losses_and_accuracies = ["train_loss", "train_accuracy", "test_loss", "test_accuracy"]
    columns = ["seed", "epoch", *losses_and_accuracies, "seconds"]
    rows = [(3, 1, 0.16, 0.89, 0.06, 0.99, 1), (3, 2, 0.25, 0.8, 0.15, 0.9, 1)]
    rows += [(6, 1, 0.15, 0.9, 0.05, 1.0, 1), (6, 2, 0.19, 0.86, 0.09, 0.96, 1)]
    lines = [line for line in printed if line.startswith("seed")]
    for metrics, row, line in zip(record.pop("epochs"), rows, lines, strict=True):
        assert metrics == pytest.approx(dict(zip(columns, row, strict=True)))
        shown = [float(text) for text in re.findall(r"[\d.]+", line)]
        assert shown == pytest.approx(np.multiply(row, (1, 1, 1, 100, 1, 100, 1)))
    assert record.pop("title").startswith("Q2")
    machine = "python", "torch", "torchvision", "device", "processor", "threads"
    assert tuple(record.pop("environment")) == machine
    assert record == {
        "script": "q2_mlp.py",
        "variant": None,
        "split": "test",
        "hyperparameters": q2_mlp.HYPERPARAMETERS | {"epochs": 2, "lr": 0.12},
        "parameters": 10,  # those of the network in place of ours
        "seeds": [3, 6],
    }
    final = "epoch 2: test loss 0.1200, accuracy 93.00 ± 4.24 %"
    assert final in printed[-2]
    assert final in figures["q2_mlp.png"].get_suptitle()
    _, ax = figures["q2_mlp.png"].axes
    assert [line.get_ydata()[1] for line in ax.lines] == pytest.approx([0.83, 0.93])
    assert str(folder / "q2_mlp.json") in printed[-1]


def test_an_epoch_is_in_the_json_before_its_line_is_printed(main, tmp_path, no_training):
    saved = []

    class Listener(io.StringIO):
        def write(self, text):
            if text.startswith("seed"):
                saved.append(len(load(tmp_path / "q2_mlp.json")["epochs"]))
            return super().write(text)

    no_training(q2_mlp, {0: epochs(0.8, 0.9), 1: epochs(0.7)})
    main(q2_mlp, "--seeds", 0, 1, stdout=Listener())
    assert saved == [1, 2, 3]


@pytest.mark.parametrize("bad", [((float("nan"), 0), (2, 0)), ((2, 0), (float("inf"), 0))])
def test_loss_that_is_not_finite(main, tmp_path, figures, no_training, bad):
    no_training(q2_mlp, {4: epochs(0.8, 0.9), 5: [*epochs(0.7), bad]})
    message, _ = main(q2_mlp, "--epochs", 2, "--seeds", 4, 5)
    # Python writes it to stderr and exits with 1.
    assert re.fullmatch(r".*Q2.*seed 5 epoch +2.*not finite.*", message)
    kept = load(tmp_path / "q2_mlp.json")["epochs"]
    assert [(metrics["seed"], metrics["epoch"]) for metrics in kept] == [(4, 1), (4, 2), (5, 1)]
    assert "accuracy 90.00 %" in figures["q2_mlp.png"].get_suptitle()


@pytest.mark.parametrize(("script", "name"), [(q2_mlp, "q2_mlp"), (q3_cnn, "q3_cnn_base")])
def test_validate_holds_out_the_last_images_and_never_reads_the_test_set(
    script, name, main, small_mnist, tmp_path, monkeypatch, no_training
):
    assert script.HELD_OUT == 10_000
    monkeypatch.setattr(script, "HELD_OUT", 150)
    train_set = script.load_mnist(small_mnist, True, "cpu")
    loaded = []
    monkeypatch.setattr(
        script, "load_mnist", lambda *_, train, **__: loaded.append(train) or train_set
    )
    calls = no_training(script, {0: epochs(0.8)})
    flags = ["--variant", "base"] if script is q3_cnn else []
    assert main(script, "--validate", *flags)[0] == 0
    assert loaded == [True]
    _, _, train_data, held_out, _ = calls[0]
    for images, part in (train_data, slice(450)), (held_out, slice(450, 600)):
        assert all(map(torch.equal, images.tensors, train_set[part]))
    assert names(tmp_path) == ["validation"]
    record = load(tmp_path / "validation" / f"{name}.json")
    assert record["split"] == "validation"
    assert record["epochs"][0]["validation_accuracy"] == 0.8


def test_all_variants_of_q3(main, tmp_path, figures):
    """Trained for one epoch; a flag holds for all of them."""
    code, printed = main(q3_cnn, "--epochs", 1, "--dropout", 0.1)
    assert code == 0
    pictures = ["q3_cnn_bn_wrong.png", "q3_cnn_comparison.png"]
    written = [f"q3_cnn_{name}.{kind}" for name in q3_cnn.TITLES for kind in ("json", "png")]
    assert names(tmp_path) == sorted(written + pictures)
    assert sum(str(tmp_path) in line for line in printed) == 6
    for variant, title in q3_cnn.TITLES.items():
        record = load(tmp_path / f"q3_cnn_{variant}.json")
        assert (record["script"], record["variant"]) == ("q3_cnn.py", variant)
        assert record["title"] == f"Q3 {title}"
        assert record["parameters"] == (135_100 if "bn" in variant else 134_520)
        given = {"epochs": 1, "dropout": 0.1}
        assert record["hyperparameters"] == q3_cnn.HYPERPARAMETERS[variant] | given
        (metrics,) = record["epochs"]
        assert len(record["wrong"]["0"]) == round(200 * (1 - metrics["test_accuracy"]))


def test_wrong_digits_of_each_seed_and_a_picture_of_the_last(
    main, small_mnist, tmp_path, figures, no_training
):
    """The network of seed s takes everything for an s, the more surely the brighter it is."""
    no_training(q3_cnn, {3: epochs(0.1), 7: epochs(0.1)})
    main(q3_cnn, "--variant", "bn", "--epochs", 1, "--seeds", 3, 7)
    images, labels = q3_cnn.load_mnist(small_mnist, False, "cpu").tensors
    wrong = {str(seed): (labels != seed).nonzero().flatten().tolist() for seed in (3, 7)}
    assert load(tmp_path / "q3_cnn_bn.json")["wrong"] == wrong
    figure = figures["q3_cnn_bn_wrong.png"]
    assert f"seed 7: {len(wrong['7'])} of 200" in figure.get_suptitle()
    brightest = sorted(wrong["7"], key=lambda i: -images[i].sum())[:48]
    for ax, i in zip(figure.axes, brightest, strict=True):
        assert torch.equal(torch.tensor(ax.images[0].get_array()), images[i])
        assert ax.get_title().startswith(f"{labels[i]}→7, ")


def test_comparison_needs_whole_results_of_all_with_these_settings_and_seeds(
    main, tmp_path, figures, no_training
):
    no_training(q3_cnn, {seed: epochs(0.8, 0.9) for seed in (0, 1, 2)})

    def compared(variant, *flags, seeds=(0, 1)):
        figures.clear()
        main(q3_cnn, "--variant", variant, "--epochs", 2, "--seeds", *seeds, *flags)
        return "q3_cnn_comparison.png" in figures

    assert [compared(variant) for variant in ("bn", "reg", "base")] == [False] * 3
    assert compared("bn_only")
    assert not compared("reg", seeds=(0, 2))
    assert not compared("reg", "--affine", 0.1)
    assert compared("reg")
    for ax, values in zip(
        figures["q3_cnn_comparison.png"].axes, ([0.25, 0.15], [0.8, 0.9]), strict=True
    ):
        assert [line.get_label() for line in ax.lines] == list(q3_cnn.TITLES.values())
        assert ax.lines[0].get_ydata() == pytest.approx(values)
        assert len({line.get_linestyle() for line in ax.lines}) == 4
        assert len({line.get_color() for line in ax.lines}) == 4

    path = tmp_path / "q3_cnn_bn.json"
    record = load(path)
    interrupted = record | {"epochs": record["epochs"][:-1]}
    another_layout = {"runs": record["epochs"]}
    for content in interrupted, another_layout:
        path.write_text(json.dumps(content))
        assert not compared("reg")
