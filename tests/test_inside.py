"""experiments/inside.py: its networks, its curvature, its statistics in place of the averages."""

import copy
import sys

import pytest
import torch
from conftest import ROOT
from torch import nn
from torch.testing import assert_close

import q3_cnn

sys.path.insert(0, str(ROOT / "experiments"))
import inside

GENERATOR = torch.Generator().manual_seed(0)


def random_data(count):
    """Return images (count, 28, 28) uint8 and labels (count,) that no network can learn."""
    images = torch.randint(256, (count, 28, 28), dtype=torch.uint8, generator=GENERATOR)
    return images, torch.arange(count) % 10


DATA = random_data(200)
OTHER = random_data(50)


@pytest.mark.parametrize(("kind", "variant"), [("none", "base"), ("both", "bn_only")])
def test_the_ends_of_the_row_train_as_the_variants_do(kind, variant):
    settings = q3_cnn.HYPERPARAMETERS[variant] | {"epochs": 2}
    expected = [
        (*trained, *tested) for _, trained, tested in q3_cnn.train(settings, 3, DATA, OTHER)
    ]
    run = inside.train(2, {"kind": kind, "rate": settings["lr"], "seed": 3}, DATA, OTHER)
    names = "train_loss", "train_accuracy", "validation_loss", "validation_accuracy"
    assert [tuple(epoch[name] for name in names) for epoch in run["epochs"]] == expected


@pytest.mark.parametrize("shape", [(8, 3), (8, 3, 5, 4)], ids=["linear", "convolution"])
def test_centred_and_then_scaled_is_batch_norm(shape):
    norm = nn.BatchNorm1d(3) if len(shape) == 2 else nn.BatchNorm2d(3)
    both = nn.Sequential(inside.Centred(3), inside.Scaled(3))
    for _ in range(3):  # moves the running averages
        X = torch.rand(shape, generator=GENERATOR)
        assert_close(both(X), norm(X), rtol=1e-4, atol=1e-5)
    assert_close(both.eval()(X), norm.eval()(X), rtol=1e-4, atol=1e-5)


def test_the_largest_curvature_is_that_of_the_whole_hessian():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.BatchNorm1d(5), nn.Linear(5, 3))
    X = torch.rand(20, 4)
    y = torch.arange(20) % 3
    product = inside.hessian_product(model, X, y)
    size = sum(parameter.numel() for parameter in model.parameters())
    hessian = torch.stack([product(row) for row in torch.eye(size)])
    # The last bias adds to the logits, by which the Hessian is diag(f) - f fᵀ.
    f = model(X).detach().softmax(1)
    assert_close(hessian[-3:, -3:], f.mean(0).diag() - f.T @ f / len(f))
    values, vectors = torch.linalg.eigh(hessian)
    for seed in range(3):
        first = torch.randn(size, generator=torch.Generator().manual_seed(seed))
        value, vector, _ = inside.largest_eigenvalue(product, first, tolerance=1e-3)
        assert value == pytest.approx(values[-1].item(), rel=1e-3)
        assert abs(vector @ vectors[:, -1]) == pytest.approx(1, abs=1e-3)


def test_a_negative_eigenvalue_is_not_the_largest():
    eigenvalues = torch.tensor([-50.0, -1.0, 0.5, 1.0, 3.0])
    value, vector, residual = inside.largest_eigenvalue(lambda v: eigenvalues * v, torch.ones(5))
    assert value == pytest.approx(3, rel=0.01)
    assert abs(vector[4]) == pytest.approx(1, abs=0.01)
    assert_close(torch.tensor(residual), (eigenvalues * vector - value * vector).norm())


@pytest.fixture
def model():
    """Return a network with batch norm whose running averages fit no data."""
    torch.manual_seed(0)
    model = q3_cnn.NeuralNetwork(batch_norm=True)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.running_mean += 1
    return model


def test_looking_inside_changes_nothing(model):
    before = copy.deepcopy(model.state_dict())
    random = torch.get_rng_state()
    found = inside.look(model, OTHER)
    assert 0 < sum(layer["vector_share"] for layer in found["layers"].values()) <= 1
    found = inside.judge(model, DATA, OTHER, affine=0.1)
    assert len({found[f"{name}_loss"] for name in ("batch", "undistorted", "distorted")}) == 3
    assert_close(model.state_dict(), before, rtol=0, atol=0)
    assert torch.equal(torch.get_rng_state(), random)


def test_batch_statistics_are_those_of_training_mode(model):
    found = inside.judge(model, DATA, OTHER)
    X, y = next(iter(q3_cnn.batches(OTHER, 50)))
    logits = copy.deepcopy(model).train()(X)
    assert found["batch_loss"] == pytest.approx(inside.loss_fn(logits, y).item(), rel=1e-5)
