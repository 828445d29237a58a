"""experiments/inside.py: batch norm taken apart, the curvature, what the layers receive."""

import copy

import inside
import numpy as np
import pytest
import torch
from scipy.sparse.linalg import LinearOperator
from torch import nn
from torch.testing import assert_close

import q3_cnn

GENERATOR = torch.Generator().manual_seed(0)
IMAGES = torch.randint(256, (250, 28, 28), dtype=torch.uint8, generator=GENERATOR)
X = IMAGES[:200].unsqueeze(1) / 255
DATA = q3_cnn.ImageDataset(IMAGES[:200], torch.arange(200) % 10)
OTHER = q3_cnn.ImageDataset(IMAGES[200:], torch.arange(50) % 10)


@pytest.mark.parametrize(("kind", "variant"), [("none", "base"), ("both", "bn_only")])
def test_the_ends_of_the_row_train_as_the_variants_do(kind, variant):
    run = inside.train_apart(DATA, OTHER, kind, 0.2, seed=3)
    settings = q3_cnn.HYPERPARAMETERS[variant] | {"epochs": 1}
    [(_, train_metrics, test_metrics)] = q3_cnn.train(settings, 3, DATA, OTHER)
    assert run["train_loss"] == pytest.approx(train_metrics[0], rel=1e-6)
    assert run["validation_accuracy"] == test_metrics[1]
    [(_, _, test_metrics)] = q3_cnn.train(settings | {"drop_last": True}, 3, DATA, OTHER)
    assert run["before_last_accuracy"] == test_metrics[1]


def test_centred_and_then_scaled_is_batch_norm():
    norm = nn.BatchNorm2d(3)
    halves = [inside.HalfBatchNorm(kind, 3, 1, 1) for kind in ("centred", "scaled")]
    both = nn.Sequential(*halves)
    for _ in range(3):  # moves the running averages
        inputs = torch.rand(4, 3, 2, 2, generator=GENERATOR)
        assert_close(both(inputs), norm(inputs), rtol=1e-4, atol=1e-5)
    assert_close(both.eval()(inputs), norm.eval()(inputs), rtol=1e-4, atol=1e-5)


def test_the_largest_curvature_is_that_of_the_whole_hessian():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.BatchNorm1d(5), nn.Linear(5, 3))
    inputs = torch.rand(20, 4)
    matrix = inside.hessian(model, inputs, torch.arange(20) % 3)
    whole = torch.tensor(matrix @ np.eye(matrix.shape[0], dtype=np.float32))
    # The last bias adds to the logits, by which the Hessian is diag(f) - f fᵀ.
    f = model(inputs).detach().softmax(1)
    assert_close(whole[-3:, -3:], f.mean(0).diag() - f.T @ f / len(f))
    values, vectors = torch.linalg.eigh(whole)
    value, vector = inside.sharpest(matrix, tolerance=1e-3)
    assert value == pytest.approx(values[-1].item(), rel=1e-3)
    assert abs(vector @ vectors[:, -1]) == pytest.approx(1, abs=1e-3)


def test_a_negative_eigenvalue_is_not_the_largest():
    values = np.linspace(-50, 3, 20, dtype=np.float32)
    value, _ = inside.sharpest(LinearOperator((20, 20), lambda v: values * v, dtype=np.float32))
    assert value == pytest.approx(3, rel=0.05)


def test_looking_gives_the_share_along_the_mean_and_changes_nothing(monkeypatch):
    model = inside.network("both", 0).eval()
    before = copy.deepcopy(model.state_dict())
    ones = torch.ones(sum(parameter.numel() for parameter in model.parameters()))
    monkeypatch.setattr(inside, "sharpest", lambda _: (7.0, ones))
    curvature, share = inside.look(model, DATA)
    assert curvature == 7
    assert not model.training
    assert_close(model.state_dict(), before, rtol=0, atol=0)
    mean = model.train().stack[:9](X).mean(0)
    assert share == pytest.approx((mean.sum() ** 2 / mean.square().sum() / 500).item(), rel=1e-4)


def test_what_layers_receive_is_what_hooks_see_and_dead_channels_are_counted():
    model = q3_cnn.NeuralNetwork(q3_cnn.BN | {"average_shifts": False}).eval()
    seen = []
    for index, dead in ((0, 1), (3, 3), (9, 7), (13, 0)):
        layer = model.stack[index]
        layer.weight.data.zero_()
        layer.bias.data = torch.linspace(1, 2, len(layer.bias))
        layer.bias.data[:dead] = -1
        layer.register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    model.stack[2].running_var[:2] = 0.9e-4
    model(X)
    expected = list(seen)  # more are seen below
    found, never_fires, low_variance = inside.receive(model, X, with_counts=True)
    assert never_fires == {"conv 1": 1, "conv 2": 3, "linear 1": 7}
    assert low_variance == {"conv 1": 2, "conv 2": 0, "linear 1": 0}
    for one, values in zip(found.values(), expected, strict=True):
        assert one["mean"] == pytest.approx(values.mean().item(), rel=1e-4)
        assert one["standard_deviation"] == pytest.approx(values.std().item(), rel=1e-4)
        assert sum(one["counts"]) == values.numel()
        assert sum(one["counts"][15:]) == pytest.approx((values >= 0).sum().item(), rel=1e-3)


def test_layers_are_those_of_the_training_of_the_script(monkeypatch):
    settings = q3_cnn.BN | {"epochs": 1, "dropout": 0.5}
    monkeypatch.setitem(q3_cnn.HYPERPARAMETERS, "bn", settings)
    run = inside.train_layers(DATA, "bn", 1)
    [(model, _, _)] = q3_cnn.train(settings, 1, DATA, OTHER)
    assert run["end"] == inside.receive(model.eval(), X, with_counts=False)[0]
    torch.manual_seed(1)
    untrained = q3_cnn.NeuralNetwork(settings | {"dropout": 0.0, "affine": 0.0})
    assert run["start"] == inside.receive(untrained, X, with_counts=False)[0]


def test_only_what_is_missing_is_measured_and_the_rest_stays(tmp_path):
    path = tmp_path / "inside.json"
    text = '{\n"note": "one",\n"apart": [\n{"seed": 0, "loss": 1}\n]\n}\n'
    path.write_text(text)
    inside.measure_missing(path, "apart", {"seed": 0}, lambda seed: pytest.fail("measured again"))
    inside.measure_missing(path, "apart", {"seed": 1}, lambda seed: {"loss": float("nan")})
    assert path.read_text() == text.replace("1}\n]", '1},\n{"seed": 1, "loss": null}\n]')
