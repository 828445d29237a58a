"""Whole runs on small data: what they print, what they write, and what is kept of a broken one."""

import re
import statistics

import pytest
import torch
import torchvision
from conftest import OLD, call, check_png, load, metrics, names, train, write_mnist

import q2_mlp
import q3_cnn


def check_printed(record, printed, split="test"):
    """Compare the epoch lines, their columns and the line of final metrics with the JSON."""
    epochs = [(run["seed"], epoch) for run in record["runs"] for epoch in run["epochs"]]
    lines = [line for line in printed if line.startswith("seed")]
    for (seed, epoch), line in zip(epochs, lines, strict=True):
        shown = [float(text) for text in re.findall(r"\d+\.?\d*", line)]
        losses = [epoch["train_loss"], epoch[f"{split}_loss"]]
        accuracies = [100 * epoch["train_accuracy"], 100 * epoch[f"{split}_accuracy"]]
        assert shown[:2] == [seed, epoch["epoch"]]
        assert shown[2:6:2] == pytest.approx(losses, abs=0.000051)
        assert shown[3:6:2] == pytest.approx(accuracies, abs=0.0051)
        assert shown[6] == pytest.approx(epoch["seconds"], abs=0.051)
    words = re.compile(f"epoch|train loss|train accuracy|{split} loss|{split} accuracy|%")
    columns = {tuple(match.span() for match in words.finditer(line)) for line in lines}
    assert len(columns) == 1, "the columns of the epoch lines are not aligned"

    last = [run["epochs"][-1] for run in record["runs"]]
    accuracy = [100 * epoch[f"{split}_accuracy"] for epoch in last]
    loss = statistics.mean(epoch[f"{split}_loss"] for epoch in last)
    expected = [loss, statistics.mean(accuracy)]
    pattern = rf": {split} loss ([\d.]+), accuracy ([\d.]+) %$"
    if len(last) > 1:
        expected += [statistics.stdev(accuracy), len(last)]
        pattern = pattern[:-3] + r" ± ([\d.]+) %, (\d+) seeds$"
    (shown,) = re.findall(pattern, "\n".join(printed), re.MULTILINE)
    assert [float(text) for text in shown] == pytest.approx(expected, abs=0.0051)


def check_record(record, epochs, seeds, split="test"):
    """Check the keys of a JSON file against those of the design."""
    q3 = record["script"] == "q3_cnn.py"
    assert record["split"] == split
    assert record["hyperparameters"]["epochs"] == epochs
    assert record["environment"].pop("python")
    assert record["environment"] == {
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "device": "cpu",
        "processor": torch.backends.cpu.get_cpu_capability(),
        "threads": 1,
    }
    assert record["interrupted"] is False
    assert record["seeds"] == [run["seed"] for run in record["runs"]] == seeds
    for run in record["runs"]:
        assert run.keys() == {"seed", "epochs"} | ({"layers"} if q3 else set())
        assert [epoch["epoch"] for epoch in run["epochs"]] == list(range(1, epochs + 1))
        assert ("wrong" in run["epochs"][-1]) == q3


def test_run_of_q2(small_mnist, tmp_path):
    folder = tmp_path / "new" / "plots"
    flags = ["--epochs", 3, "--lr", 0.12, "--seeds", 3, 10, 0]
    code, printed = call(q2_mlp, small_mnist, folder, *flags)
    assert code == 0
    assert names(folder) == ["q2_mlp.json", "q2_mlp.png"]
    assert printed[-1] == f"wrote {folder / 'q2_mlp.json'} and .png"
    check_png(folder / "q2_mlp.png")
    record = load(folder / "q2_mlp.json")
    assert (record["script"], record["variant"]) == ("q2_mlp.py", None)
    assert record["parameters"] == 199_210
    check_record(record, epochs=3, seeds=[3, 10, 0])
    check_printed(record, printed)
    assert "100.00%" in "".join(printed), "needed to see that the widest figures are aligned"
    assert "± 0.00" not in "".join(printed), "needed to see which standard deviation it is"
    for run in record["runs"]:
        assert run["epochs"][-1]["test_loss"] < 0.8 * run["epochs"][0]["test_loss"]
        assert run["epochs"][-1]["test_accuracy"] > 0.8


@pytest.fixture
def figures(monkeypatch):
    """Return the figures that are saved from now on, by name."""
    figures = {}
    save = q3_cnn.save_figure

    def noted(args, name, figure):
        figures[name] = figure
        save(args, name, figure)

    monkeypatch.setattr(q3_cnn, "save_figure", noted)
    return figures


def test_run_of_all_variants_of_q3(small_mnist, tmp_path, figures):
    flags = ["--epochs", 1, "--seeds", 4, 5, "--dropout", 0.1]
    code, printed = call(q3_cnn, small_mnist, tmp_path, *flags)
    assert code == 0
    pictures = [f"q3_cnn_{kind}.png" for kind in ("bn_wrong", "comparison", "layers")]
    written = [
        f"q3_cnn_{variant}.{kind}" for variant in q3_cnn.HYPERPARAMETERS for kind in ("json", "png")
    ]
    assert names(tmp_path) == sorted(written + pictures)
    for path in tmp_path.glob("*.png"):
        check_png(path)
    for variant in q3_cnn.HYPERPARAMETERS:
        path = tmp_path / f"q3_cnn_{variant}.json"
        assert f"wrote {path} and .png" in printed
        record = load(path)
        assert (record["script"], record["variant"]) == ("q3_cnn.py", variant)
        assert record["parameters"] == (135_100 if variant.startswith("bn") else 134_520)
        given = {"epochs": 1, "dropout": 0.1}
        assert record["hyperparameters"] == q3_cnn.HYPERPARAMETERS[variant] | given
        check_record(record, epochs=1, seeds=[4, 5])
        title = figures[f"q3_cnn_{variant}"].get_suptitle()
        part = {"base": "(b)", "reg": "(c)"}.get(variant, "(d)")
        assert title.startswith(f"Q3 {part} ")
        assert q3_cnn.final_metrics(record) in title
    last = record["runs"][1]["epochs"][0]["wrong"]
    assert f", seed 5: {len(last)} of 200 wrong" in figures["q3_cnn_bn_wrong"].get_suptitle()


@pytest.mark.parametrize("straight", [False, True], ids=["as they are", "straightened"])
def test_metrics_and_wrong_images_are_those_of_each_network(small_mnist, tmp_path, straight):
    """What --deskew straightens, it straightens before everything that sees the images."""
    flags = ["--epochs", 2, "--seeds", 0, 1, "--deskew" if straight else "--no-deskew"]
    assert call(q3_cnn, small_mnist, tmp_path, "--variant", "reg", *flags)[0] == 0
    data = q3_cnn.load_data(small_mnist, False, "cpu")
    if straight:
        data = [(q3_cnn.deskew(images), labels) for images, labels in data]
    settings = q3_cnn.HYPERPARAMETERS["reg"] | {"epochs": 2}
    images, labels = data[1]
    for run in load(tmp_path / "q3_cnn_reg.json")["runs"]:
        model, epochs = train(q3_cnn, settings, run["seed"], *data)
        assert metrics(run) == epochs
        guesses = model.eval()(images.unsqueeze(1) / 255).argmax(1)
        wrong = [i for i, label in enumerate(labels) if guesses[i] != label]
        assert run["epochs"][1]["wrong"] == wrong
        assert 0 < len(wrong) == round(200 * (1 - epochs[1][3]))


@pytest.fixture(scope="module")
def without_test_set(tmp_path_factory):
    """Return a data folder with 10,300 training images, whose test files are no IDX files."""
    folder = write_mnist(tmp_path_factory.mktemp("validate"), train=10_300, test=1)
    for path in (folder / "MNIST" / "raw").glob("t10k-*"):
        path.write_bytes(b"not the test set")
    with pytest.raises(SystemExit, match="t10k"):  # whoever reads them notices
        q2_mlp.load_mnist(folder, False, "cpu")
    return folder


@pytest.mark.parametrize(("script", "name"), [(q2_mlp, "q2_mlp"), (q3_cnn, "q3_cnn_bn")])
def test_validate_holds_out_the_last_images_and_never_reads_the_test_set(
    without_test_set, tmp_path, monkeypatch, script, name
):
    images, labels = script.load_mnist(without_test_set, True, "cpu")
    train_data, held_out = script.load_data(without_test_set, True, "cpu")
    assert all(map(torch.equal, train_data, (images[:300], labels[:300])))
    assert all(map(torch.equal, held_out, (images[300:], labels[300:])))
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


def test_stopped_in_the_first_epoch_leaves_the_last_files(small_mnist, tmp_path):
    for kind in "json", "png":
        (tmp_path / f"q3_cnn_base.{kind}").write_text(OLD)
    flags = ["--lr", 1000, "--weight-decay", 1]  # each step: times -999
    message, _ = call(q3_cnn, small_mnist, tmp_path, "--variant", "base", *flags)
    assert "no longer finite" in message
    for kind in "json", "png":
        assert (tmp_path / f"q3_cnn_base.{kind}").read_text() == OLD
    assert names(tmp_path) == ["q3_cnn_base.json", "q3_cnn_base.png"]


@pytest.mark.parametrize(("script", "part"), [(q2_mlp, "train"), (q3_cnn, "test")])
def test_loss_that_is_no_longer_finite(small_mnist, tmp_path, monkeypatch, script, part):
    loop, calls = getattr(script, f"{part}_loop"), []

    def diverging(*args):
        calls.append(args)
        loss, accuracy = loop(*args)
        if len(calls) == 7:
            loss = float("nan" if part == "train" else "inf")
        return loss, accuracy

    monkeypatch.setattr(script, f"{part}_loop", diverging)
    message, printed = call(script, small_mnist, tmp_path, "--epochs", 4, "--seeds", 4, 5)
    # Python writes it to stderr and exits with 1.
    assert re.fullmatch(r".*epoch 3: the loss is no longer finite.*--lr.*", message, re.IGNORECASE)
    assert sum("  epoch " in line for line in printed) == 6
    (path,) = tmp_path.glob("*.json")
    record = load(path)
    assert record["interrupted"] is True
    assert [(run["seed"], len(run["epochs"])) for run in record["runs"]] == [(4, 4), (5, 2)]
    check_png(path.with_suffix(".png"))
