"""Whole runs of the real scripts on small data: what they print, what they write, and where."""

import contextlib
import json
import os
import re
import runpy
import statistics
import struct
import subprocess
import sys
from types import SimpleNamespace

import matplotlib.image
import numpy as np
import pytest
import torch
from conftest import copy_script, run_script, script_command, script_environment, write_mnist

import q2_mlp
import q3_cnn

VARIANTS = ["base", "reg", "bn"]


def load(path):
    return json.loads(path.read_text())


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def lines(result):
    """Return the lines that a successful run printed; a log file gets no progress bar."""
    assert result.returncode == 0, result.stderr
    assert result.stderr == ""
    assert "\r" not in result.stdout
    return result.stdout.splitlines()


def check_figures(record, printed, split="test"):
    """Compare the epoch lines and the line of final figures with the JSON."""
    epochs = [(run["seed"], epoch) for run in record["runs"] for epoch in run["epochs"]]
    epoch_lines = [line for line in printed if line.startswith("seed")]
    for (seed, epoch), line in zip(epochs, epoch_lines, strict=True):
        assert [float(text) for text in re.findall(r"-?\d+\.?\d*", line)] == [
            seed,
            epoch["epoch"],
            round(epoch["train_loss"], 4),
            pytest.approx(100 * epoch["train_accuracy"], abs=0.0051),
            round(epoch[f"{split}_loss"], 4),
            pytest.approx(100 * epoch[f"{split}_accuracy"], abs=0.0051),
            round(epoch["seconds"], 1),
        ]
    words = re.compile(f"epoch|train loss|train accuracy|{split} loss|{split} accuracy|%")
    columns = {tuple(match.span() for match in words.finditer(line)) for line in epoch_lines}
    assert len(columns) == 1, "the columns of the epoch lines are not aligned"

    last = [run["epochs"][-1] for run in record["runs"]]
    accuracy = [100 * epoch[f"{split}_accuracy"] for epoch in last]
    expected = [statistics.mean(accuracy)]
    if len(last) > 1:
        expected.append(statistics.stdev(accuracy))
    (final,) = (line for line in printed if line.startswith(f"{split} accuracy"))
    figures = re.fullmatch(
        rf"{split} accuracy ([\d.]+)(?: ± ([\d.]+))? %, {split} loss ([\d.]+), seed ([\d, ]+)",
        final,
    )
    assert [float(text) for text in figures.groups()[:2] if text] == pytest.approx(
        expected, abs=0.0051
    )
    loss = statistics.mean(epoch[f"{split}_loss"] for epoch in last)
    assert float(figures[3]) == pytest.approx(loss, abs=0.000051)
    assert figures[4] == ", ".join(str(run["seed"]) for run in record["runs"])


def check_record(record, epochs, seeds, split="test"):
    """Check the keys of a JSON file against those of the design."""
    assert record["split"] == split
    assert record["hyperparameters"]["epochs"] == epochs
    assert record["environment"].keys() >= {"python", "torch", "torchvision"}
    assert record["environment"]["device"] == "cpu"
    assert record["environment"]["threads"] == 1
    assert record["interrupted"] is False
    assert [run["seed"] for run in record["runs"]] == seeds
    for run in record["runs"]:
        assert [epoch["epoch"] for epoch in run["epochs"]] == list(range(1, epochs + 1))
        for epoch in run["epochs"]:
            assert epoch.keys() == {
                "epoch",
                "train_loss",
                "train_accuracy",
                f"{split}_loss",
                f"{split}_accuracy",
                "seconds",
            }
            assert epoch["train_loss"] > 0
            assert epoch[f"{split}_loss"] > 0
            assert 0 <= epoch["train_accuracy"] <= 1
            assert 0 <= epoch[f"{split}_accuracy"] <= 1
            assert epoch["seconds"] > 0


def check_png(path):
    """A figure, not an empty canvas, wide enough for a page."""
    image = matplotlib.image.imread(path)
    assert image.shape[1] >= 1000
    assert image.std() > 0.01


# --- a whole run: each script copied alone into a folder, called from yet another one ---


@pytest.fixture(scope="module")
def q2(tmp_path_factory):
    """Run Q2 with its data beside it; return its folder and what it printed."""
    folder, elsewhere = tmp_path_factory.mktemp("q2"), tmp_path_factory.mktemp("elsewhere")
    script = copy_script("q2_mlp.py", folder)
    write_mnist(folder / "data")
    flags = ["--epochs", 3, "--lr", 0.12, "--seeds", 3, 10, 0, "--device", "cpu"]
    printed = lines(run_script(script, *flags, cwd=elsewhere))
    assert names(elsewhere) == []
    return folder, printed


@pytest.fixture(scope="module")
def q3(tmp_path_factory, small_mnist):
    """Run all variants of Q3 with the data elsewhere; return its folder and what it printed."""
    folder, elsewhere = tmp_path_factory.mktemp("q3"), tmp_path_factory.mktemp("elsewhere")
    script = copy_script("q3_cnn.py", folder)
    flags = ["--epochs", 1, "--seeds", 0, 1, "--device", "cpu", "--data-dir"]
    printed = lines(
        run_script(script, *flags, os.path.relpath(small_mnist, elsewhere), cwd=elsewhere)
    )
    assert names(elsewhere) == []
    return folder, printed


def test_q2_writes_its_plot_beside_itself(q2):
    folder, printed = q2
    assert names(folder) == ["data", "plots", "q2_mlp.py"]
    assert names(folder / "plots") == ["q2_mlp.json", "q2_mlp.png"]
    check_png(folder / "plots" / "q2_mlp.png")
    plots = folder.resolve() / "plots"
    assert printed[-1] == f"wrote {plots / 'q2_mlp.png'}, {plots / 'q2_mlp.json'}"


def test_q2_json(q2):
    folder, printed = q2
    record = load(folder / "plots" / "q2_mlp.json")
    assert record["script"] == "q2_mlp.py"
    assert record["variant"] is None
    assert record["parameters"] == 199_210
    check_record(record, epochs=3, seeds=[3, 10, 0])
    check_figures(record, printed)
    assert " 100.00 %" in "".join(printed), "needed to see that the widest figures are aligned"
    assert "± 0.00" not in "".join(printed), "needed to see which standard deviation it is"


def test_q2_learns(q2):
    folder, _ = q2
    for run in load(folder / "plots" / "q2_mlp.json")["runs"]:
        assert run["epochs"][-1]["test_loss"] < 0.8 * run["epochs"][0]["test_loss"]
        assert run["epochs"][-1]["test_accuracy"] > 0.8


def test_q3_writes_its_plots_beside_itself(q3):
    folder, printed = q3
    assert names(folder) == ["plots", "q3_cnn.py"]
    written = [f"q3_cnn_{variant}.{kind}" for variant in VARIANTS for kind in ("json", "png")]
    pictures = ["q3_cnn_bn_wrong.png", "q3_cnn_comparison.png"]
    assert names(folder / "plots") == sorted(written + pictures)
    for path in (folder / "plots").glob("*.png"):
        check_png(path)
    text = "\n".join(printed)
    assert all(str(path) in text for path in (folder.resolve() / "plots").iterdir())


@pytest.mark.parametrize("variant", VARIANTS)
def test_q3_json(q3, variant):
    folder, printed = q3
    record = load(folder / "plots" / f"q3_cnn_{variant}.json")
    assert record["script"] == "q3_cnn.py"
    assert record["variant"] == variant
    assert record["parameters"] == 134_520 + (variant == "bn") * 2 * (20 + 20 + 250)
    check_record(record, epochs=1, seeds=[0, 1])
    start = 5 * VARIANTS.index(variant)  # title, two epochs, final figures, files
    check_figures(record, printed[start : start + 5])


@pytest.mark.parametrize("variant", VARIANTS)
def test_q3_wrong_images_are_those_of_the_accuracy(q3, small_mnist, variant):
    folder, _ = q3
    path = small_mnist / "MNIST" / "raw" / "t10k-labels-idx1-ubyte"
    labels = np.fromfile(path, np.uint8)[8:].tolist()
    for run in load(folder / "plots" / f"q3_cnn_{variant}.json")["runs"]:
        wrong = run["wrong"]
        assert len(wrong) == round((1 - run["epochs"][-1]["test_accuracy"]) * len(labels)) > 0
        assert [index for index, _, _ in wrong] == sorted({index for index, _, _ in wrong})
        assert all(labels[index] == label != guess for index, label, guess in wrong)
        assert all(guess in range(10) for _, _, guess in wrong)


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


@pytest.mark.parametrize("script", [q2_mlp, q3_cnn], ids=["q2", "q3"])
def test_validate_holds_out_the_last_images(without_test_set, script):
    images, labels = script.load_mnist(without_test_set, True, "cpu")
    args = SimpleNamespace(data_dir=without_test_set, device="cpu", validate=True)
    train_data, held_out = script.load_data(None, args, batch_size=64)
    assert all(map(torch.equal, train_data, (images[:300], labels[:300])))
    assert all(map(torch.equal, held_out, (images[300:], labels[300:])))


@pytest.mark.parametrize(
    ("script", "flags", "name"),
    [("q2_mlp.py", [], "q2_mlp"), ("q3_cnn.py", ["--variant", "bn"], "q3_cnn_bn")],
    ids=["q2", "q3"],
)
def test_validate_does_not_read_the_test_set(without_test_set, tmp_path, script, flags, name):
    flags = [*flags, "--epochs", 1, "--device", "cpu", "--data-dir", without_test_set]
    printed = lines(run_script(script, *flags, "--validate", "--plots-dir", tmp_path))
    written = [f"{name}_validate.json", f"{name}_validate.png"]
    if name == "q3_cnn_bn":
        written.append(f"{name}_wrong_validate.png")
    assert names(tmp_path) == sorted(written)
    record = load(tmp_path / f"{name}_validate.json")
    check_record(record, epochs=1, seeds=[0], split="validation")
    check_figures(record, printed, split="validation")
    # 10,000 were held out and 300 trained on.
    (epoch,) = record["runs"][0]["epochs"]
    for accuracy, images in (epoch["validation_accuracy"], 10_000), (epoch["train_accuracy"], 300):
        assert accuracy * images == pytest.approx(round(accuracy * images), abs=1e-6)


# --- flags ---

# Calls main() once per command line, in one process because most of a small run is imports.
CALL_MAIN = """
import importlib, json, sys
script = importlib.import_module(sys.argv[1])
for command_line in json.loads(sys.argv[2]):
    sys.argv[1:] = command_line
    script.main()
"""

Q2_FLAGS = [["--lr", "0.05"], ["--batch-size", "32"], ["--seeds", "1"], ["--epochs", "2"]]
REG_FLAGS = [*Q2_FLAGS, ["--weight-decay", "0.01"], ["--dropout", "0.1"]]
BN_FLAGS = [
    ["--lr", "0.05"],
    ["--momentum", "0.5"],
    ["--momentum", "0"],
    ["--label-smoothing", "0"],
    ["--affine", "0"],
]


@pytest.mark.parametrize(
    ("script", "start", "changes"),
    [
        ("q2_mlp", [], Q2_FLAGS),
        ("q3_cnn", ["--variant", "reg"], REG_FLAGS),
        ("q3_cnn", ["--variant", "bn"], BN_FLAGS),
    ],
    ids=["q2", "reg", "bn"],
)
def test_each_flag_reaches_the_training(small_mnist, tmp_path, script, start, changes):
    copy_script(f"{script}.py", tmp_path)
    start = [*start, "--device", "cpu", "--epochs", "1", "--data-dir", str(small_mnist)]
    calls = [[*start, *flags, "--plots-dir", str(i)] for i, flags in enumerate([[], *changes])]
    lines(
        subprocess.run(
            [sys.executable, "-c", CALL_MAIN, script, json.dumps(calls)],
            cwd=tmp_path,
            env=script_environment(),
            capture_output=True,
            text=True,
            timeout=300,
        )
    )
    records = [load(next((tmp_path / str(i)).glob("*.json"))) for i in range(len(calls))]
    losses = [record["runs"][0]["epochs"][-1]["test_loss"] for record in records]
    assert len(set(losses)) == len(calls), "two settings have the same loss"
    for (flag, value), record in zip(changes, records[1:], strict=True):
        if flag == "--seeds":
            assert record["runs"][0]["seed"] == int(value)
        else:
            key = flag.removeprefix("--").replace("-", "_")
            changed = {**records[0]["hyperparameters"], key: float(value)}
            assert record["hyperparameters"] == changed


# --- the rest ---


@pytest.mark.parametrize("script", ["q2_mlp.py", "q3_cnn.py"])
def test_a_started_process_imports_the_script_and_runs_nothing(script, tmp_path, capfd):
    path = copy_script(script, tmp_path)
    runpy.run_path(path, run_name="__mp_main__")  # as multiprocessing does on Windows and macOS
    assert capfd.readouterr() == ("", "")
    assert names(tmp_path) == [script]


def test_progress_bar_on_a_terminal(small_mnist, tmp_path):
    termios = pytest.importorskip("termios", reason="a terminal to print on needs POSIX")
    import fcntl

    ours, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))  # rows, columns
    flags = ["--epochs", 1, "--data-dir", small_mnist, "--plots-dir", tmp_path]
    process = subprocess.Popen(
        script_command("q2_mlp.py", *flags),
        stdout=subprocess.DEVNULL,
        stderr=terminal,
        env=script_environment(),
    )
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # Linux's way to say that the other side is closed
        while chunk := os.read(ours, 65536):
            shown += chunk
    os.close(ours)
    assert process.wait(timeout=300) == 0
    assert b"it/s" in shown
