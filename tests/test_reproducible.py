"""The same seed gives the same numbers, in whatever company, and evaluating changes nothing."""

import json

import pytest
import torch

import q2_mlp
import q3_cnn

NETWORKS = [
    (q2_mlp, None),
    (q3_cnn, "base"),
    (q3_cnn, "reg"),
    (q3_cnn, "bn"),
]
IDS = ["q2", "base", "reg", "bn"]


def without_seconds(path):
    """Return the content of a JSON file but for the seconds, which no two runs have alike."""
    record = json.loads(path.read_text())
    for run in record["runs"]:
        for epoch in run["epochs"]:
            del epoch["seconds"]
    return record


@pytest.mark.parametrize(("module", "variant"), NETWORKS, ids=IDS)
def test_same_seed_twice_and_seeds_apart(run_forked, small_mnist, tmp_path, module, variant):
    script = module.__name__ + ".py"
    flags = ["--variant", variant] if variant else []
    records = []
    for i, seeds in enumerate([[0, 1], [0, 1], [1]]):
        folders = ["--data-dir", small_mnist, "--plots-dir", tmp_path / str(i)]
        result = run_forked(script, *flags, "--epochs", 2, "--seeds", *seeds, *folders)
        assert result.returncode == 0, result.stderr
        (path,) = (tmp_path / str(i)).glob("*.json")
        records.append(without_seconds(path))
    together, again, apart = records
    assert together == again
    assert together["runs"][1] == apart["runs"][0]
    assert together["runs"][0]["epochs"] != together["runs"][1]["epochs"]


@pytest.mark.parametrize(("module", "variant"), NETWORKS, ids=IDS)
def test_evaluating_does_not_disturb_training(module, variant, monkeypatch):
    """After each epoch or only after the last, on these images or on others: the same network."""
    rows = module.HYPERPARAMETERS
    settings = (rows[variant] if variant else rows) | {"epochs": 3}
    generator = torch.Generator().manual_seed(0)

    def data(size):
        images = torch.randint(256, (size, 28, 28), dtype=torch.uint8, generator=generator)
        return images, torch.randint(10, (size,), generator=generator)

    train_data, test_data, other_data = data(300), data(100), data(7)

    def train(test_data):
        """Return the figures of the epochs: those of training, and those of the test."""
        epochs = module.train({"seed": 3}, settings, train_data, test_data, "cpu")
        return list(zip(*epochs, strict=True))

    train_figures, test_figures = train(test_data)
    assert train(other_data)[0] == train_figures

    test_loop, calls = module.test_loop, []

    def only_after_the_last(*args):
        calls.append(args)
        return test_loop(*args) if len(calls) == settings["epochs"] else None

    monkeypatch.setattr(module, "test_loop", only_after_the_last)
    assert train(test_data) == [train_figures, (None, None, test_figures[-1])]
