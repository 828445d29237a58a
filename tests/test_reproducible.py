"""The same seed gives the same numbers, in whatever company, and evaluating changes nothing."""

import pytest
import torch
from conftest import call, load, train

import q2_mlp
import q3_cnn

NETWORKS = pytest.mark.parametrize(
    ("script", "variant"),
    [(q2_mlp, None), (q3_cnn, "base"), (q3_cnn, "reg"), (q3_cnn, "bn")],
    ids=["q2", "base", "reg", "bn"],
)


def without_seconds(path):
    """Return the content of a JSON file but for the seconds, which no two runs have alike."""
    record = load(path)
    for run in record["runs"]:
        for epoch in run["epochs"]:
            del epoch["seconds"]
    return record


@NETWORKS
def test_same_seed_twice_and_seeds_apart(small_mnist, tmp_path, without_pictures, script, variant):
    flags = ["--epochs", 2, *(["--variant", variant] if variant else [])]
    records = []
    for i, seeds in enumerate([[0, 1], [0, 1], [1]]):
        torch.rand(i)  # whatever was drawn before
        assert call(script, small_mnist, tmp_path / str(i), *flags, "--seeds", *seeds)[0] == 0
        (path,) = (tmp_path / str(i)).glob("*.json")
        records.append(without_seconds(path))
    together, again, apart = records
    assert together == again
    assert together["runs"][1]["epochs"] == apart["runs"][0]["epochs"]
    assert together["runs"][0]["epochs"] != together["runs"][1]["epochs"]


@NETWORKS
def test_evaluating_does_not_disturb_training(script, variant):
    """On these images or on others: the same network."""
    rows = script.HYPERPARAMETERS
    settings = (rows[variant] if variant else rows) | {"epochs": 3}
    generator = torch.Generator().manual_seed(0)

    def data(size):
        images = torch.randint(256, (size, 28, 28), dtype=torch.uint8, generator=generator)
        return images, torch.randint(10, (size,), generator=generator)

    train_data, test_data, other_data = data(300), data(100), data(7)

    _, expected = train(script, settings, 3, train_data, test_data)
    _, others = train(script, settings, 3, train_data, other_data)
    assert [epoch[:2] for epoch in others] == [epoch[:2] for epoch in expected]
