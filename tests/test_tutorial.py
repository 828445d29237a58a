"""The scripts compute what the loops of the PyTorch basics tutorial compute."""

import pytest
import torch
from conftest import SCRIPTS, train, write_mnist
from torch import nn
from torch.testing import assert_close
from torch.utils.data import DataLoader
from torchvision.datasets import MNIST
from torchvision.transforms import ToTensor

import q2_mlp
import q3_cnn

BASE = {q2_mlp: q2_mlp.HYPERPARAMETERS, q3_cnn: q3_cnn.HYPERPARAMETERS["base"]}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    """Return a data folder whose 300 training images leave a last batch of 44 after four of 64."""
    return write_mnist(tmp_path_factory.mktemp("data"), train=300, test=70)


def train_epoch(script, data, batch_size, model, optimizer):
    """Call train_loop, in Q3 with a schedule that changes nothing."""
    arguments = [script.batches(data, batch_size), model, nn.CrossEntropyLoss(), optimizer]
    if script is q3_cnn:
        arguments.append(torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1))
    return script.train_loop(*arguments)


def tutorial_epoch(dataloader, model, loss_fn, optimizer):
    """Train as the tutorial's train_loop does; return the mean loss over samples and the accuracy.

    (The tutorial prints the loss of every hundredth batch.)
    """
    model.train()
    loss_sum, correct = 0, 0
    for X, y in dataloader:
        pred = model(X)
        loss = loss_fn(pred, y)

        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

        loss_sum += loss.item() * len(X)
        correct += (pred.argmax(1) == y).type(torch.float).sum().item()
    return loss_sum / len(dataloader.dataset), correct / len(dataloader.dataset)


def tutorial_test(dataloader, model, loss_fn):
    """Evaluate as the tutorial's test_loop does, but with a sum over samples."""
    model.eval()
    loss_sum, correct = 0, 0
    with torch.no_grad():
        for X, y in dataloader:
            pred = model(X)
            loss_sum += loss_fn(pred, y).item() * len(X)
            correct += (pred.argmax(1) == y).type(torch.float).sum().item()
    return loss_sum / len(dataloader.dataset), correct / len(dataloader.dataset)


@SCRIPTS
def test_batches_are_those_of_dataloader_and_totensor(script, data_dir):
    for part in True, False:
        data = script.load_mnist(data_dir, part, "cpu")
        dataset = MNIST(data_dir, train=part, transform=ToTensor())
        assert len(data[0]) == len(dataset)
        order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(7))
        generator = torch.Generator().manual_seed(7)
        for ours, theirs in (
            (script.batches(data, 64, generator), DataLoader(dataset, 64, sampler=order.tolist())),
            (script.batches(data, 64), DataLoader(dataset, 64)),
        ):
            for (X, y), (X_theirs, y_theirs) in zip(ours, theirs, strict=True):
                assert X.dtype == X_theirs.dtype
                assert y.dtype == y_theirs.dtype
                assert torch.equal(X, X_theirs)
                assert torch.equal(y, y_theirs)


@SCRIPTS
def test_training_is_that_of_the_tutorial(script, data_dir):
    """Two epochs of train() with base's settings, ten steps, against the tutorial's loops."""
    train_data, test_data = (script.load_mnist(data_dir, train, "cpu") for train in (True, False))
    settings = BASE[script] | {"epochs": 2, "lr": 0.1}
    trained, epochs = train(script, settings, 5, train_data, test_data)

    torch.manual_seed(5)
    model = script.NeuralNetwork()
    shuffle = torch.Generator().manual_seed(5)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train_set, test_set = (MNIST(data_dir, train=t, transform=ToTensor()) for t in (True, False))
    for metrics in epochs:
        order = torch.randperm(300, generator=shuffle).tolist()
        loader = DataLoader(train_set, 64, sampler=order)
        expected = [
            *tutorial_epoch(loader, model, loss_fn, optimizer),
            *tutorial_test(DataLoader(test_set, 64), model, loss_fn),
        ]
        assert metrics == pytest.approx(expected, rel=1e-5)
    assert len(epochs) == 2
    for ours, theirs in zip(trained.parameters(), model.parameters(), strict=True):
        assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_evaluation_neither_drops_nor_normalises_by_the_batch(data_dir):
    data = q3_cnn.load_mnist(data_dir, True, "cpu")
    torch.manual_seed(0)
    model, loss_fn = q3_cnn.NeuralNetwork(batch_norm=True, dropout=0.5), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    train_epoch(q3_cnn, data, 64, model, optimizer)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    one, other = (q3_cnn.test_loop(q3_cnn.batches(data, n), model, loss_fn) for n in (7, 500))
    assert one == pytest.approx(other)
    model.train()  # predict() sees to it itself
    probability = q3_cnn.predict(q3_cnn.batches(data, 100), model)
    assert_close(probability.sum(1), torch.ones(300))
    assert (probability.argmax(1) == data[1]).float().mean().item() == pytest.approx(one[1])
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    train_epoch(q3_cnn, data, 64, model, optimizer)
    assert model.training


@pytest.mark.parametrize("variant", [None, "reg", "bn"])
def test_each_epoch_has_a_permutation_drawn_by_a_generator_of_its_own(
    variant, data_dir, monkeypatch
):
    """The same one for all networks, whatever else they draw."""
    script = q3_cnn if variant else q2_mlp
    settings = script.HYPERPARAMETERS[variant] if variant else script.HYPERPARAMETERS
    images, labels = script.load_mnist(data_dir, True, "cpu")
    batches, orders = script.batches, []

    def noted(*args):
        orders.append([])
        for X, y in batches(*args):
            orders[-1].extend(y.tolist())
            yield X, y

    monkeypatch.setattr(script, "batches", noted)
    train(script, settings | {"epochs": 2}, 1, (images, labels), (images[:9], labels[:9]))
    generator = torch.Generator().manual_seed(1)
    for shown in orders[::2]:
        assert shown == labels[torch.randperm(300, generator=generator)].tolist()
    assert orders[1::2] == [labels[:9].tolist()] * 2
