"""The flags: which are refused, and that each reaches the training."""

import io
import runpy
import sys

import matplotlib
import pytest
import torch
from conftest import ROOT, load, names

import q2_mlp
import q3_cnn

EPOCHS = [((2.0, 0.2), (1.9, 0.3))]
WRONG = {
    "--epochs": ["0", "2.5"],
    "--batch-size": ["1"],
    "--lr": ["0", "nan", "inf"],
    "--weight-decay": ["-1", "nan"],
    "--dropout": ["1"],
    "--affine": ["1.5"],
    "--seeds": ["", "0,1", "-1", "9223372036854775808", "1 0 1"],
    "--threads": ["0"],
    "--device": ["banana"],
    "--variant": ["best"],
    "--batchsize": ["64"],
}


@pytest.mark.parametrize("flag", WRONG)
def test_wrong_flags(main, tmp_path, capsys, no_training, flag):
    no_training(q3_cnn, {})
    for value in WRONG[flag]:
        folder = tmp_path / "plots"
        assert main(q3_cnn, "--plots-dir", folder, flag, *value.split()) == (2, []), value
        *usage, line = capsys.readouterr().err.splitlines()
        assert usage[0].startswith("usage: ")
        assert "error: " in line
        assert flag in line
        assert not folder.exists()


def test_help_tells_the_settings_of_each_variant(main, capsys):
    _, printed = main(q3_cnn, "--help")
    for variant, row in q3_cnn.HYPERPARAMETERS.items():
        assert f"'{variant}': {row}" in " ".join(" ".join(printed).split())


VALUES = {"epochs": 1, "batch_size": 32, "lr": 0.05}
VALUES |= {"weight_decay": 0.1, "dropout": 0.4, "affine": 0.3}


@pytest.mark.parametrize("variant", ["base", "bn"])
def test_each_flag_reaches_the_training(main, tmp_path, no_training, variant):
    """All at once: those that are on in one variant are off in the other."""
    calls = no_training(q3_cnn, {7: EPOCHS, 2: EPOCHS})
    expected, flags = {}, ["--variant", variant, "--seeds", 7, 2, "--threads", 2]
    for key, value in q3_cnn.HYPERPARAMETERS[variant].items():
        flag = key.replace("_", "-")
        if isinstance(value, bool):
            expected[key] = not value
            flags.append(f"--no-{flag}" if value else f"--{flag}")
        else:
            expected[key] = VALUES[key]
            flags += [f"--{flag}", VALUES[key]]
    assert main(q3_cnn, *flags)[0] == 0
    for seed, (settings, given_seed, _, _, threads) in zip((7, 2), calls, strict=True):
        assert (settings, given_seed, threads) == (expected, seed, 2)


def test_a_gpu_that_does_not_work_is_told_in_one_line(main, tmp_path, monkeypatch, no_training):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    # On this device no value can be read.
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("meta"))
    calls = no_training(q2_mlp, {0: EPOCHS})
    code, printed = main(q2_mlp, "--device", "meta")
    assert code == 0
    assert "CPU: meta does not work" in printed[0]
    assert printed[1].startswith("Q2")
    assert load(tmp_path / "q2_mlp.json")["environment"]["device"] == "cpu"
    assert calls[0][2].tensors[0].device.type == "cpu"


def test_run_in_a_notebook_with_folders_at_home(small_mnist, tmp_path, monkeypatch):
    """Where standard output is no file, and no shell has replaced the ~ of --data-dir=~/data."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "data").symlink_to(small_mnist)
    flags = ["--epochs=1", "--data-dir=~/data", "--plots-dir=~/plots", "--device=cpu"]
    monkeypatch.setattr(sys, "argv", ["q2_mlp.py", *flags])
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    monkeypatch.setitem(matplotlib.rcParams, "lines.linewidth", 7)  # the user's own
    runpy.run_path(str(ROOT / "q2_mlp.py"), run_name="__main__")
    assert "seed 0 epoch  1" in sys.stdout.getvalue()
    assert names(tmp_path / "plots") == ["q2_mlp.json", "q2_mlp.png"]
    assert matplotlib.rcParams["lines.linewidth"] == 7
