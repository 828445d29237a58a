"""Whole runs on small data: what they print, what they write, and what is kept of a broken one."""

import re
import statistics

import pytest
import torch
from conftest import call, check_png, load, names, write_mnist

import q2_mlp
import q3_cnn

VARIANTS = ["base", "reg", "bn_only", "bn"]


def check_printed(record, printed, split="test"):
    """Compare the epoch lines, their columns and the line of final figures with the JSON."""
    epochs = [(run["seed"], epoch) for run in record["runs"] for epoch in run["epochs"]]
    epoch_lines = [line for line in printed if line.startswith("seed")]
    for (seed, epoch), line in zip(epochs, epoch_lines, strict=True):
        assert [float(text) for text in re.findall(r"\d+\.?\d*", line)] == [
            seed,
            epoch["epoch"],
            round(epoch["seconds"], 1),
            round(epoch["train_loss"], 4),
            pytest.approx(100 * epoch["train_accuracy"], abs=0.0051),
            round(epoch[f"{split}_loss"], 4),
            pytest.approx(100 * epoch[f"{split}_accuracy"], abs=0.0051),
        ]
    words = re.compile(f"epoch|train loss|train accuracy|{split} loss|{split} accuracy|%")
    columns = {tuple(match.span() for match in words.finditer(line)) for line in epoch_lines}
    assert len(columns) == 1, "the columns of the epoch lines are not aligned"

    last = [run["epochs"][-1] for run in record["runs"]]
    accuracy = [100 * epoch[f"{split}_accuracy"] for epoch in last]
    pattern = rf": {split} loss ([\d.]+), accuracy ([\d.]+)(?: ± ([\d.]+))? %(?:, (\d+) seeds)?$"
    ((loss, mean, spread, seeds),) = re.findall(pattern, "\n".join(printed), re.MULTILINE)
    expected = statistics.mean(epoch[f"{split}_loss"] for epoch in last)
    assert float(loss) == pytest.approx(expected, abs=0.000051)
    assert float(mean) == pytest.approx(statistics.mean(accuracy), abs=0.0051)
    if len(last) > 1:
        assert float(spread) == pytest.approx(statistics.stdev(accuracy), abs=0.0051)
    assert seeds == (str(len(last)) if len(last) > 1 else "")


def check_record(record, epochs, seeds, split="test"):
    """Check the keys of a JSON file against those of the design."""
    assert record["split"] == split
    assert record["hyperparameters"]["epochs"] == epochs
    assert record["environment"].keys() == {"python", "torch", "torchvision", "device", "threads"}
    assert record["environment"]["torch"] == torch.__version__
    assert record["environment"]["device"] == "cpu"
    assert record["environment"]["threads"] == 1
    assert record["interrupted"] is False
    assert [run["seed"] for run in record["runs"]] == seeds
    keys = {"epoch", "seconds"} | {
        f"{s}_{k}" for s in ("train", split) for k in ("loss", "accuracy")
    }
    for run in record["runs"]:
        assert [epoch["epoch"] for epoch in run["epochs"]] == list(range(1, epochs + 1))
        last = run["epochs"][-1]
        assert ("wrong" in last) == (record["script"] == "q3_cnn.py")
        for epoch in run["epochs"]:
            assert epoch.keys() == keys | ({"wrong"} & last.keys() if epoch is last else set())
            assert epoch["train_loss"] > 0
            assert epoch[f"{split}_loss"] > 0
            assert 0 <= epoch["train_accuracy"] <= 1
            assert 0 <= epoch[f"{split}_accuracy"] <= 1
            assert epoch["seconds"] > 0


def test_run_of_q2(small_mnist, tmp_path):
    flags = ["--epochs", 3, "--lr", 0.12, "--seeds", 3, 10, 0]
    code, printed = call(q2_mlp, small_mnist, tmp_path / "new" / "plots", *flags)
    assert code == 0
    assert names(tmp_path / "new" / "plots") == ["q2_mlp.json", "q2_mlp.png"]
    for path in (tmp_path / "new" / "plots").iterdir():
        assert f"wrote {path}" in printed
    check_png(path.with_suffix(".png"))
    record = load(path.with_suffix(".json"))
    assert record["script"] == "q2_mlp.py"
    assert record["variant"] is None
    assert record["parameters"] == 199_210
    check_record(record, epochs=3, seeds=[3, 10, 0])
    check_printed(record, printed)
    assert "100.00%" in "".join(printed), "needed to see that the widest figures are aligned"
    assert "± 0.00" not in "".join(printed), "needed to see which standard deviation it is"
    for run in record["runs"]:
        assert run["epochs"][-1]["test_loss"] < 0.8 * run["epochs"][0]["test_loss"]
        assert run["epochs"][-1]["test_accuracy"] > 0.8


def test_run_of_all_variants_of_q3(small_mnist, tmp_path):
    flags = ["--epochs", 1, "--seeds", 4, 5, "--dropout", 0.1]
    code, printed = call(q3_cnn, small_mnist, tmp_path, *flags)
    assert code == 0
    written = [f"q3_cnn_{variant}.{kind}" for variant in VARIANTS for kind in ("json", "png")]
    assert names(tmp_path) == sorted([*written, "q3_cnn_bn_wrong.png", "q3_cnn_comparison.png"])
    for path in tmp_path.iterdir():
        assert printed.count(f"wrote {path}") == 1
        if path.suffix == ".png":
            check_png(path)
    starts = [i for i, line in enumerate(printed) if " on cpu: " in line]
    for variant, start, end in zip(VARIANTS, starts, [*starts[1:], None], strict=True):
        record = load(tmp_path / f"q3_cnn_{variant}.json")
        assert record["script"] == "q3_cnn.py"
        assert record["variant"] == variant
        assert record["parameters"] == (135_100 if variant.startswith("bn") else 134_520)
        given = {"epochs": 1, "dropout": 0.1}
        assert record["hyperparameters"] == q3_cnn.HYPERPARAMETERS[variant] | given
        check_record(record, epochs=1, seeds=[4, 5])
        check_printed(record, printed[start:end])
        for run in record["runs"]:
            (epoch,) = run["epochs"]
            assert len(epoch["wrong"]) == round(200 * (1 - epoch["test_accuracy"]))


def test_wrong_are_the_indices_of_the_test_images_that_are_wrong(small_mnist):
    train_data, test_data = q3_cnn.load_data(small_mnist, False, "cpu")
    settings = q3_cnn.HYPERPARAMETERS["reg"] | {"epochs": 2}
    model, epochs, _ = q3_cnn.train(settings, 0, train_data, test_data, "test")
    model.eval()
    guesses = model(test_data[0].unsqueeze(1) / 255).argmax(1)
    expected = [i for i, label in enumerate(test_data[1]) if guesses[i] != label]
    assert "wrong" not in epochs[0]
    assert epochs[1]["wrong"] == expected
    assert 0 < len(expected) == round(200 * (1 - epochs[1]["test_accuracy"]))


def test_the_last_epoch_is_reported_and_not_the_best(small_mnist, tmp_path, monkeypatch):
    figures = iter([(0.4, 0.91), (0.1, 0.99), (0.3, 0.93)])
    monkeypatch.setattr(q2_mlp, "test_loop", lambda *_: next(figures))
    code, printed = call(q2_mlp, small_mnist, tmp_path, "--epochs", 3)
    assert code == 0
    assert printed[-1].endswith(": test loss 0.3000, accuracy 93.00 %")
    (run,) = load(tmp_path / "q2_mlp.json")["runs"]
    assert [epoch["test_accuracy"] for epoch in run["epochs"]] == [0.91, 0.99, 0.93]


# --- validation ---


@pytest.fixture(scope="module")
def without_test_set(tmp_path_factory):
    """Return a data folder with 10,300 training images, whose test files are no IDX files."""
    folder = write_mnist(tmp_path_factory.mktemp("validate"), train=10_300, test=1)
    for path in (folder / "MNIST" / "raw").glob("t10k-*"):
        path.write_bytes(b"not the test set")
    with pytest.raises(SystemExit, match="t10k"):  # whoever reads them notices
        q2_mlp.load_mnist(folder, False, "cpu")
    return folder


@pytest.mark.parametrize("script", [q2_mlp, q3_cnn])
def test_validate_holds_out_the_last_images(without_test_set, script):
    images, labels = script.load_mnist(without_test_set, True, "cpu")
    train_data, held_out = script.load_data(without_test_set, True, "cpu")
    assert all(map(torch.equal, train_data, (images[:300], labels[:300])))
    assert all(map(torch.equal, held_out, (images[300:], labels[300:])))


@pytest.mark.parametrize(("script", "name"), [(q2_mlp, "q2_mlp"), (q3_cnn, "q3_cnn_bn")])
def test_validate_does_not_read_the_test_set(without_test_set, tmp_path, monkeypatch, script, name):
    monkeypatch.setattr(script, "HELD_OUT", 10_100)  # not 10,000, so that 200 are trained on
    flags = ["--epochs", 1, *(["--variant", "bn"] if script is q3_cnn else [])]
    code, printed = call(script, without_test_set, tmp_path, "--validate", *flags)
    assert code == 0
    written = [f"{name}_validate.json", f"{name}_validate.png"]
    if script is q3_cnn:
        written.append(f"{name}_wrong_validate.png")
    assert names(tmp_path) == sorted(written)
    record = load(tmp_path / f"{name}_validate.json")
    check_record(record, epochs=1, seeds=[0], split="validation")
    check_printed(record, printed, split="validation")
    (epoch,) = record["runs"][0]["epochs"]
    for accuracy, images in (epoch["validation_accuracy"], 10_100), (epoch["train_accuracy"], 200):
        assert accuracy * images == pytest.approx(round(accuracy * images), abs=1e-6)


# --- cut short ---


def stop(monkeypatch, script, *, at):
    """Let the `at`th epoch of training be interrupted, as Ctrl-C does it."""
    train_loop, calls = script.train_loop, []

    def interrupted(*args):
        calls.append(args)
        if len(calls) == at:
            raise KeyboardInterrupt
        return train_loop(*args)

    monkeypatch.setattr(script, "train_loop", interrupted)


def test_interrupted_in_the_second_seed(small_mnist, tmp_path, monkeypatch):
    stop(monkeypatch, q2_mlp, at=5)
    flags = ["--epochs", 3, "--seeds", 7, 8, 9]
    code, printed = call(q2_mlp, small_mnist, tmp_path, *flags)
    assert code == 130
    assert printed[-1].endswith("2 seeds, interrupted")
    record = load(tmp_path / "q2_mlp.json")
    assert record["interrupted"] is True
    assert [(run["seed"], len(run["epochs"])) for run in record["runs"]] == [(7, 3), (8, 1)]
    check_png(tmp_path / "q2_mlp.png")
    assert names(tmp_path) == ["q2_mlp.json", "q2_mlp.png"]


def test_interrupted_in_the_second_variant(small_mnist, tmp_path, monkeypatch):
    stop(monkeypatch, q3_cnn, at=4)
    code, printed = call(q3_cnn, small_mnist, tmp_path, "--epochs", 2)
    assert code == 130
    assert load(tmp_path / "q3_cnn_base.json")["interrupted"] is False
    record = load(tmp_path / "q3_cnn_reg.json")
    assert record["interrupted"] is True
    assert [len(run["epochs"]) for run in record["runs"]] == [1]
    assert printed[-1].endswith(", interrupted")
    written = [f"q3_cnn_{v}.{kind}" for v in ("base", "reg") for kind in ("json", "png")]
    assert names(tmp_path) == written


def test_interrupted_in_the_first_epoch_leaves_the_last_files(small_mnist, tmp_path, monkeypatch):
    for kind in "json", "png":
        (tmp_path / f"q3_cnn_base.{kind}").write_text("the last good one")
    stop(monkeypatch, q3_cnn, at=1)
    assert call(q3_cnn, small_mnist, tmp_path)[0] == 130
    for kind in "json", "png":
        assert (tmp_path / f"q3_cnn_base.{kind}").read_text() == "the last good one"
    assert names(tmp_path) == ["q3_cnn_base.json", "q3_cnn_base.png"]


def test_diverged_in_the_first_epoch(small_mnist, tmp_path):
    (tmp_path / "q3_cnn_base.json").write_text("the last good one")
    flags = ["--variant", "base", "--lr", 1000, "--weight-decay", 1]  # each step: times -999
    code, printed = call(q3_cnn, small_mnist, tmp_path, *flags)
    assert code == 1
    _, line = printed
    assert re.fullmatch(r"seed 0, epoch 1: the loss is not finite, .*--lr", line)
    assert names(tmp_path) == ["q3_cnn_base.json"]
    assert (tmp_path / "q3_cnn_base.json").read_text() == "the last good one"


@pytest.mark.parametrize(("script", "figure"), [(q2_mlp, "train"), (q3_cnn, "test")])
def test_diverged_later(small_mnist, tmp_path, monkeypatch, script, figure):
    loop, calls = getattr(script, f"{figure}_loop"), []

    def diverging(*args):
        calls.append(args)
        loss, accuracy = loop(*args)
        return (float("nan" if figure == "train" else "inf") if len(calls) == 3 else loss), accuracy

    monkeypatch.setattr(script, f"{figure}_loop", diverging)
    code, printed = call(script, small_mnist, tmp_path, "--epochs", 4, "--seeds", 4, 5)
    assert code == 1
    assert sum("not finite" in line for line in printed) == 1
    assert "seed 4, epoch 3: the loss is not finite, try a smaller --lr" in printed
    (path,) = tmp_path.glob("*.json")
    record = load(path)
    assert record["interrupted"] is True
    assert [(run["seed"], len(run["epochs"])) for run in record["runs"]] == [(4, 2)]
    check_png(path.with_suffix(".png"))
