"""collect.py appends the runs of a search to runs.csv, each once."""

import json
import shutil

import collect
import pytest

SETTINGS = {"epochs": 5, "batch_size": 64, "lr": 0.4}
LOSSES = [0.5, 0.4, 0.3, 0.2, 0.301]  # the last one is a jump


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Return a function that writes the record of a search beside a copy of runs.csv."""
    shutil.copy(collect.RUNS, tmp_path)
    monkeypatch.setattr(collect, "RUNS", tmp_path / "runs.csv")

    def record(split="validation", losses=LOSSES):
        epochs = []
        for seed in (7, 8):
            for number, loss in enumerate(losses, start=1):
                figures = {"validation_loss": loss, "validation_accuracy": 0.9 + number / 100}
                epochs.append({"seed": seed, "epoch": number, **figures})
        content = {"script": "q2_mlp.py", "variant": None, "split": split, "seeds": [7, 8]}
        path = tmp_path / "q2_mlp.json"
        path.write_text(json.dumps(content | {"hyperparameters": SETTINGS, "epochs": epochs}))
        return path

    return record


def test_rows_are_appended_once(write):
    before = collect.RUNS.read_text()
    collect.main([write()])
    first, second = collect.read_runs()[-2:]
    assert collect.RUNS.read_text().startswith(before)
    assert (first["seed"], second["seed"]) == (7, 8)
    settings = {
        key: first[key] for key in ("script", "variant", "epochs", "lr", "affine", "loader")
    }
    assert list(settings.values()) == ["q2_mlp.py", "", 5, 0.4, None, "now"]
    figures = [first[key] for key in ("accuracy", "last3", "loss", "jumps", "highest_ratio")]
    assert figures == pytest.approx([0.95, 0.94, 0.301, 1, 1.505])

    after = collect.RUNS.read_text()
    with pytest.raises(SystemExit, match="already"):
        collect.main([write()])
    assert collect.RUNS.read_text() == after


def test_the_same_record_twice_is_refused_whole(write):
    before = collect.RUNS.read_text()
    path = write()
    with pytest.raises(SystemExit, match="already"):
        collect.main([path, path])
    assert collect.RUNS.read_text() == before


@pytest.mark.parametrize("change", [{"split": "test"}, {"losses": LOSSES[:4]}])
def test_test_set_and_unfinished_seeds_are_refused(write, change):
    before = collect.RUNS.read_text()
    with pytest.raises(SystemExit, match="not of held-out images, or not whole"):
        collect.main([write(**change)])
    assert collect.RUNS.read_text() == before
