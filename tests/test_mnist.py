"""The real MNIST: one epoch of each network gets as far as it should, and none is perfect."""

import json
import statistics

import pytest
from conftest import run_script


@pytest.mark.parametrize(
    ("script", "flags", "name", "floor"),
    [
        ("q2_mlp.py", [], "q2_mlp", 0.93),
        ("q3_cnn.py", ["--variant", "base"], "q3_cnn_base", 0.96),
        ("q3_cnn.py", ["--variant", "reg"], "q3_cnn_reg", 0.96),
        ("q3_cnn.py", ["--variant", "bn"], "q3_cnn_bn", 0.96),
    ],
    ids=["q2", "base", "reg", "bn"],
)
def test_one_epoch(mnist_dir, tmp_path, script, flags, name, floor):
    """The median of three seeds: at a constant rate, one seed in five stops in a bad moment."""
    flags = [*flags, "--epochs", 1, "--seeds", 0, 1, 2]
    result = run_script(script, *flags, "--data-dir", mnist_dir, "--plots-dir", tmp_path)
    assert result.returncode == 0, result.stderr
    runs = json.loads((tmp_path / f"{name}.json").read_text())["runs"]
    accuracies = [run["epochs"][-1]["test_accuracy"] for run in runs]
    assert len(accuracies) == 3
    assert statistics.median(accuracies) >= floor
    assert max(accuracies) < 1
    assert max(run["epochs"][-1]["train_accuracy"] for run in runs) < 1
