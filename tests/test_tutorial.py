"""The scripts compute what the loops and the DataLoader of the PyTorch tutorial compute."""

import pytest
import torch
from conftest import load, write_mnist
from torch import Generator, nn
from torch.testing import assert_close
from torch.utils.data import DataLoader
from torchvision.datasets import MNIST
from torchvision.transforms import ToTensor

import q2_mlp
import q3_cnn

ROWS = {"q2": q2_mlp.HYPERPARAMETERS} | q3_cnn.HYPERPARAMETERS
SCRIPT = {name: q2_mlp if name == "q2" else q3_cnn for name in ROWS}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Return a data folder whose 300 training images leave a last batch of 44 after four of 64."""
    return write_mnist(tmp_path_factory.mktemp("data") / "short", train=300, test=70)


@pytest.fixture(scope="module")
def data(data_dir):
    return q2_mlp.load_data(data_dir, False, "cpu")


@pytest.fixture(scope="module")
def tutorial_data(data_dir):
    return [MNIST(data_dir, train=part, transform=ToTensor()) for part in (True, False)]


def tutorial_epoch(dataloader, model, loss_fn, optimizer):
    """Train as the tutorial's train_loop does; return loss and accuracy, means over samples."""
    model.train()
    loss_sum, correct = 0, 0
    for X, y in dataloader:
        pred = model(X)
        loss = loss_fn(pred, y)

        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

        loss_sum += loss.item() * len(X)
        correct += (pred.argmax(1) == y).sum().item()
    return loss_sum / len(dataloader.dataset), correct / len(dataloader.dataset)


@pytest.mark.parametrize("name", ["q2", "base"])
def test_training_is_that_of_the_tutorial(name, data, tutorial_data):
    """Two epochs, ten steps, against the tutorial's loop."""
    script = SCRIPT[name]
    settings = ROWS[name] | {"epochs": 2, "lr": 0.1}
    torch.manual_seed(5)
    model = script.NeuralNetwork() if script is q2_mlp else script.NeuralNetwork(settings)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train_set, test_set = tutorial_data
    generator = Generator().manual_seed(5)
    train_dataloader = DataLoader(train_set, 64, shuffle=True, generator=generator)
    X, y = next(iter(DataLoader(test_set, 70)))
    epochs = list(script.train(settings, 5, *data))
    assert len(epochs) == 2
    for _, train_metrics, test_metrics in epochs:
        expected = tutorial_epoch(train_dataloader, model, loss_fn, optimizer)
        assert train_metrics == pytest.approx(expected, rel=1e-5)
        pred = model.eval()(X)
        expected = loss_fn(pred, y).item(), (pred.argmax(1) == y).float().mean().item()
        assert test_metrics == pytest.approx(expected, rel=1e-5)
    for ours, theirs in zip(epochs[1][0].parameters(), model.parameters(), strict=True):
        assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ROWS)
def test_batches_are_those_of_the_tutorial(name, data, tutorial_data, monkeypatch):
    """As ToTensor makes them, in an order from a generator of its own, the same for all networks.

    Only with drop_last is the smaller one at the end left out.
    """
    seen = []
    for loop in "train_loop", "test_loop":
        monkeypatch.setattr(
            SCRIPT[name], loop, lambda loader, *_: seen.append(list(map(tuple, loader)))
        )
    settings = ROWS[name] | {"epochs": 2}
    assert len(list(SCRIPT[name].train(settings, 1, *data))) == 2
    train_set, test_set = tutorial_data
    arguments = {"shuffle": True, "drop_last": settings.get("drop_last", False)}
    expected = DataLoader(train_set, 64, generator=Generator().manual_seed(1), **arguments)
    for trained in seen[::2]:
        assert_close(trained, list(map(tuple, expected)), rtol=0, atol=0)
    for evaluated in seen[1::2]:
        (together,) = DataLoader(test_set, 70)
        assert_close([torch.cat(part) for part in zip(*evaluated, strict=True)], together)


@pytest.mark.parametrize("name", ["q2", "reg", "bn"])
def test_training_is_the_same_without_evaluation(name, data, monkeypatch):
    def losses():
        epochs = SCRIPT[name].train(ROWS[name] | {"epochs": 3}, 3, *data)
        return [train_metrics for _, train_metrics, _ in epochs]

    expected = losses()
    monkeypatch.setattr(SCRIPT[name], "test_loop", lambda *_: (0, 0))
    assert losses() == expected


@pytest.mark.parametrize("name", ["q2", "reg", "bn"])
def test_a_seed_gives_the_same_numbers_after_another_and_alone(
    name, data_dir, main, tmp_path, figures
):
    def epochs(*seeds):
        flags = ["--variant", name] if SCRIPT[name] is q3_cnn else []
        flags += ["--data-dir", data_dir, "--epochs", 1, "--seeds", *seeds]
        assert main(SCRIPT[name], *flags)[0] == 0
        (path,) = tmp_path.glob("*.json")
        return [metrics | {"seconds": 0} for metrics in load(path)["epochs"]]

    zero, one = epochs(0, 1)
    assert epochs(1) == [one]
    assert zero["train_loss"] != one["train_loss"]


def test_evaluation_neither_drops_nor_normalises_by_the_batch(data):
    train_data, _ = data
    settings = q3_cnn.BN_ONLY | {"epochs": 1, "dropout": 0.5}
    ((model, _, _),) = q3_cnn.train(settings, 0, *data)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    found = []
    for size in 7, 300:
        model.train()  # each sees to the mode itself
        loader = DataLoader(train_data, size, generator=Generator(), collate_fn=tuple)
        found.append(q3_cnn.test_loop(loader, model, nn.CrossEntropyLoss()))
    assert found[0] == pytest.approx(found[1])
    model.train()
    state = torch.get_rng_state()
    probability = q3_cnn.predict(model, train_data)
    assert torch.equal(torch.get_rng_state(), state)
    labels = train_data.tensors[1]
    loss = nn.functional.nll_loss(probability.log(), labels).item()
    assert loss == pytest.approx(found[0][0], rel=1e-4)
    assert_close(model.state_dict(), before, rtol=0, atol=0)
