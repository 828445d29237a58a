"""The flags: which are refused, what each does to the training, and what --help says of them."""

import pytest
import torch
from conftest import SCRIPTS, call, load, metrics, names

import q2_mlp
import q3_cnn

WRONG = {
    "--epochs 0": "argument --epochs: 0 is not from 1 to 10000",
    "--batch-size 1": "argument --batch-size: 1 is not from 2 to ",
    "--lr 0": "argument --lr: 0.0 is not from 1e-06 to 1000",
    "--lr nan": "argument --lr: nan is not from 1e-06 to 1000",
    "--seeds": "argument --seeds: expected at least one argument",
    "--seeds 0,1": "argument --seeds: invalid int value: '0,1'",
    "--seeds -1": "argument --seeds: -1 is not from 0 to ",
    "--seeds 99999999999999999999": "argument --seeds: 99999999999999999999 is not from 0 to ",
    "--threads 0": "argument --threads: 0 is not from 1 to ",
    "--device banana": "argument --device: invalid choice: 'banana'",
    "--batchsize 64": "unrecognized arguments: --batchsize 64",
}
ONLY_Q2 = {
    "--variant base": "unrecognized arguments: --variant base",
}
ONLY_Q3 = {
    "--variant best": "argument --variant: invalid choice: 'best'",
    "--one-cycle yes": "unrecognized arguments: yes",
    "--weight-decay -1": "argument --weight-decay: -1.0 is not from 0 to 1",
    "--dropout 1": "argument --dropout: 1.0 is not from 0 to 0.99",
    "--affine 1.5": "argument --affine: 1.5 is not from 0 to 1",
}


@pytest.mark.parametrize(
    ("script", "cases"), [(q2_mlp, WRONG | ONLY_Q2), (q3_cnn, WRONG | ONLY_Q3)], ids=["q2", "q3"]
)
def test_wrong_flags(small_mnist, tmp_path, capsys, script, cases):
    for flags, message in cases.items():
        code, printed = call(script, small_mnist, tmp_path / "plots", *flags.split())
        *usage, line = capsys.readouterr().err.splitlines()
        assert (code, printed) == (2, []), flags
        assert f": error: {message}" in line
        assert usage[0].startswith("usage: ")
        assert all(text.startswith("  ") for text in usage[1:])
        assert names(tmp_path) == [], flags


@SCRIPTS
def test_help_tells_each_default(capsys, script):
    with pytest.raises(SystemExit, match="0"):
        script.main(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    rows = {"": q2_mlp.HYPERPARAMETERS} if script is q2_mlp else q3_cnn.HYPERPARAMETERS
    for variant, row in rows.items():
        defaults = ", ".join(f"{key} {value}" for key, value in row.items())
        assert f"{variant}: {defaults}".removeprefix(": ") in text
    parts = {part.split()[0]: part for part in text.split("options:")[1].split(" --")}
    defaults = {"seeds": "[0]", "threads": "1", "device": "auto"}
    if script is q3_cnn:
        defaults["variant"] = "all"
    for flag, default in defaults.items():
        assert f"(default: {default})" in parts[flag]


VALUES = {"epochs": 2, "batch_size": 32, "lr": 0.05}
SHARES = {"weight_decay": 0.1, "dropout": 0.5, "affine": 0.1}


def changes(row):
    """Return for each hyperparameter another value and its flags: shares and switches on or off."""
    for key, value in row.items():
        flag = key.replace("_", "-")
        if key in VALUES:
            yield key, VALUES[key], [f"--{flag}", VALUES[key]]
        elif key in SHARES:
            other = 0 if value == SHARES[key] else SHARES[key]
            yield key, other, [f"--{flag}", other]
        else:
            yield key, not value, [f"--no-{flag}" if value else f"--{flag}"]


@pytest.mark.parametrize(
    ("script", "variant"),
    [(q2_mlp, None), (q3_cnn, "reg"), (q3_cnn, "bn")],
    ids=["q2", "reg", "bn"],
)
def test_each_flag_reaches_the_training(small_mnist, tmp_path, without_pictures, script, variant):
    """Each changes the metrics, and its own hyperparameter alone."""
    row = script.HYPERPARAMETERS[variant] if variant else script.HYPERPARAMETERS
    start = ["--epochs", 1, *(["--variant", variant] if variant else [])]
    row = row | {"epochs": 1}
    losses = []
    for key, value, flags in [("epochs", 1, []), ("seeds", 1, ["--seeds", 1]), *changes(row)]:
        folder = tmp_path / f"{key} {value}"
        assert call(script, small_mnist, folder, *start, *flags)[0] == 0
        (path,) = folder.glob("*.json")
        record = load(path)
        assert record["hyperparameters"] == row | ({} if key == "seeds" else {key: value})
        (run,) = record["runs"]
        assert run["seed"] == (value if key == "seeds" else 0)
        assert len(run["epochs"]) == (value if key == "epochs" else 1)
        losses.append(metrics(run)[-1][0])
    assert len(losses) >= 5
    assert len(set(losses)) == len(losses), "two settings have the same loss"


def test_auto_falls_back_to_the_cpu_in_one_line(small_mnist, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    # On this device no value can be read.
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("meta"))
    flags = ["--device", "auto", "--epochs", 1]
    code, printed = call(q2_mlp, small_mnist, tmp_path, *flags)
    assert code == 0
    assert printed[0].startswith("Training on the CPU, because meta does not work: ")
    assert printed[1].startswith("Q2: ")
    assert load(tmp_path / "q2_mlp.json")["environment"]["device"] == "cpu"
