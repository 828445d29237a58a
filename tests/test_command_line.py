"""The flags: which are refused, what each does to the training, and what --help says of them."""

import pytest
from conftest import call, load, names

import q2_mlp
import q3_cnn

WRONG = {
    "--epochs 0": "argument --epochs: 0 is not from 1 to 10000",
    "--epochs 1.5": "argument --epochs: invalid int value: '1.5'",
    "--batch-size 1": "argument --batch-size: 1 is not from 2 to ",
    "--lr 0": "argument --lr: 0.0 is not from 1e-06 to 1000",
    "--lr nan": "argument --lr: nan is not from 1e-06 to 1000",
    "--lr inf": "argument --lr: inf is not from 1e-06 to 1000",
    "--seeds": "argument --seeds: expected at least one argument",
    "--seeds 0,1": "argument --seeds: invalid int value: '0,1'",
    "--device banana": "argument --device: invalid choice: 'banana'",
    "--batchsize 64": "unrecognized arguments: --batchsize 64",
}
ONLY_Q2 = {
    "--variant base": "unrecognized arguments: --variant base",
    "--dropout 0.5": "unrecognized arguments: --dropout 0.5",
}
ONLY_Q3 = {
    "--variant best": "argument --variant: invalid choice: 'best'",
    "--one-cycle 2": "argument --one-cycle: 2 is not from 0 to 1",
    "--batch-norm yes": "argument --batch-norm: invalid int value: 'yes'",
    "--weight-decay -1": "argument --weight-decay: -1.0 is not from 0 to 1",
    "--dropout 1": "argument --dropout: 1.0 is not from 0 to 0.99",
    "--dropout nan": "argument --dropout: nan is not from 0 to 0.99",
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


def test_help_tells_each_default(capsys):
    for script in q2_mlp, q3_cnn:
        with pytest.raises(SystemExit, match="0"):
            script.main(["--help"])
        rows = script.HYPERPARAMETERS
        if script is q2_mlp:
            defaults = {key: f"{value:g})" for key, value in rows.items()}
        else:
            defaults = {"variant": "all)"}
            for key in rows["base"]:
                each = [f"{variant} {row[key]:g}" for variant, row in rows.items()]
                defaults[key] = ", ".join(each) + ")"
        defaults |= {"seeds": "0)", "device": "auto)", "data-dir": "data ", "plots-dir": "plots "}
        text = " ".join(capsys.readouterr().out.split("options:")[1].split())
        parts = {part.split()[0]: part for part in text.split(" --")}
        for key, default in defaults.items():
            assert f"(default: {default}" in parts[key.replace("_", "-")]


EACH = {"--lr": 0.05, "--batch-size": 32, "--seeds": 1, "--epochs": 2}
ON = {"--one-cycle": 1, "--batch-norm": 1, "--weight-decay": 0.1, "--dropout": 0.5, "--affine": 0.1}
OFF = {"--one-cycle": 0, "--batch-norm": 0, "--weight-decay": 0, "--dropout": 0.1, "--affine": 0}


@pytest.mark.parametrize(
    ("script", "variant", "changes"),
    [(q2_mlp, None, EACH), (q3_cnn, "base", EACH | ON), (q3_cnn, "bn", EACH | OFF)],
    ids=["q2", "base", "bn"],
)
def test_each_flag_reaches_the_training(small_mnist, tmp_path, script, variant, changes):
    """Each changes the figures, and its own hyperparameter alone; none is forgotten here."""
    keys = {flag.removeprefix("--").replace("-", "_") for flag in changes}
    assert keys == {*script.FLAGS, "seeds"}
    start = ["--epochs", 1, *(["--variant", variant] if variant else [])]
    records = []
    for i, flags in enumerate([(), *changes.items()]):
        assert call(script, small_mnist, tmp_path / str(i), *start, *flags)[0] == 0
        (path,) = (tmp_path / str(i)).glob("*.json")
        records.append(load(path))
    losses = [record["runs"][0]["epochs"][-1]["train_loss"] for record in records]
    assert len(set(losses)) == len(records), "two settings have the same loss"
    for (flag, value), record in zip(changes.items(), records[1:], strict=True):
        key = flag.removeprefix("--").replace("-", "_")
        change = {} if key == "seeds" else {key: value}
        assert record["hyperparameters"] == records[0]["hyperparameters"] | change
        assert record["runs"][0]["seed"] == (value if key == "seeds" else 0)
        assert len(record["runs"][0]["epochs"]) == (value if key == "epochs" else 1)


def test_a_flag_left_out_takes_the_value_of_the_variant(small_mnist, tmp_path, monkeypatch):
    rows = {}
    monkeypatch.setattr(
        q3_cnn, "train_seeds", lambda n, variant, t, row, *_: rows.update({variant: row})
    )
    monkeypatch.setattr(q3_cnn, "plot_wrong", lambda *_: None)
    monkeypatch.setattr(q3_cnn, "save", lambda *_: None)
    assert call(q3_cnn, small_mnist, tmp_path)[0] == 0
    assert rows == q3_cnn.HYPERPARAMETERS
    assert call(q3_cnn, small_mnist, tmp_path, "--dropout", 0.2, "--one-cycle", 0)[0] == 0
    given = {"dropout": 0.2, "one_cycle": 0}
    assert rows == {name: row | given for name, row in q3_cnn.HYPERPARAMETERS.items()}
