"""What the variants of Q3 train with: weight decay, the one-cycle schedule, random affine maps."""

import math

import pytest
import torch
from torch.testing import assert_close

import q3_cnn

GENERATOR = torch.Generator().manual_seed(0)
X = torch.rand(8, 1, 28, 28, generator=GENERATOR)
DATA = (
    torch.randint(256, (40, 28, 28), dtype=torch.uint8, generator=GENERATOR),
    torch.arange(40) % 10,
)
OTHER = (
    torch.randint(256, (12, 28, 28), dtype=torch.uint8, generator=GENERATOR),
    torch.arange(12) % 10,
)


def train(epochs=1, batch_size=40, **settings):
    """Train base with these settings instead of its own; return the network."""
    settings = q3_cnn.BASE | {"epochs": epochs, "batch_size": batch_size} | settings
    model, figures, code = q3_cnn.train(settings, 3, DATA, OTHER, "test")
    assert (len(figures), code) == (epochs, 0)
    return model


def test_weight_decay_adds_its_share_of_each_weight_to_the_gradient():
    torch.manual_seed(3)
    start = q3_cnn.NeuralNetwork().parameters()
    plain, decayed = train(lr=0.1).parameters(), train(lr=0.1, weight_decay=0.5).parameters()
    for parameter, without, with_decay in zip(start, plain, decayed, strict=True):
        assert_close(without - with_decay, 0.1 * 0.5 * parameter, rtol=1e-4, atol=1e-6)


# --- the schedule ---


@pytest.fixture
def rates(monkeypatch):
    """Return the list of the learning rates that SGD's steps have taken."""
    rates = []

    class SGD(torch.optim.SGD):
        def step(self, *args):
            rates.extend(group["lr"] for group in self.param_groups)
            return super().step(*args)

    monkeypatch.setattr(torch.optim, "SGD", SGD)
    return rates


def test_one_cycle_rates_are_those_of_onecyclelr(rates):
    train(epochs=4, batch_size=9, lr=0.7, one_cycle=True)  # five steps an epoch, the last of four
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=0.7, total_steps=20, cycle_momentum=False
    )
    expected = []
    for _ in range(20):
        expected.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    rates = rates[:20]
    assert rates == pytest.approx(expected)
    assert max(rates) == pytest.approx(0.7)
    assert rates[0] < 0.05
    assert rates[-1] < 1e-4


def test_the_rate_is_constant_without_the_schedule(rates):
    train(epochs=2, batch_size=8, lr=0.3)
    assert rates == [0.3] * 10


# --- random affine maps ---


def thetas(monkeypatch, images, strength):
    """Return the noise (images, 2, 3) on the coefficients of the maps of one call."""
    seen = []
    grid = q3_cnn.F.affine_grid
    monkeypatch.setattr(
        q3_cnn.F, "affine_grid", lambda theta, *a, **k: seen.append(theta) or grid(theta, *a, **k)
    )
    torch.manual_seed(0)
    q3_cnn.random_affine(torch.zeros(images, 1, 28, 28), strength)
    (theta,) = seen
    return theta - torch.eye(2, 3)


def test_affine_of_strength_0_is_the_identity():
    assert_close(q3_cnn.random_affine(X, 0), X, rtol=0, atol=1e-5)


def test_affine_noise_is_uniform_and_independent(monkeypatch):
    noise = thetas(monkeypatch, 2000, 0.15).flatten(1)
    assert noise.shape == (2000, 6)
    assert noise.abs().max() <= 0.15 + 1e-6
    assert (noise.amax(0) > 0.149).all()
    assert (noise.amin(0) < -0.149).all()
    assert_close(noise.std(0), torch.full((6,), 0.15 / math.sqrt(3)), rtol=0.05, atol=0)
    assert (noise.T.corrcoef() - torch.eye(6)).abs().max() < 0.1


def test_affine_of_strength_15_percent_moves_by_two_pixels():
    dots = torch.zeros(500, 1, 28, 28)
    dots[..., 13:15, 13:15] = 1
    torch.manual_seed(0)
    moved = q3_cnn.random_affine(dots, 0.15)
    places = torch.arange(28) - 13.5
    for axis in 2, 3:
        profile = moved.sum(5 - axis).squeeze(1)
        offsets = (profile * places).sum(1) / profile.sum(1)
        assert 1.8 < offsets.max() < 2.7
        assert -2.7 < offsets.min() < -1.8


def test_affine_keeps_shape_and_range_and_lets_black_in():
    torch.manual_seed(0)
    moved = q3_cnn.random_affine(torch.ones(64, 1, 28, 28), 0.15)
    assert moved.shape == (64, 1, 28, 28)
    assert moved.dtype == torch.float32
    assert moved.min() == 0
    assert moved.max() <= 1 + 1e-6


def test_affine_moves_every_image_in_its_own_way():
    torch.manual_seed(0)
    moved = q3_cnn.random_affine(X[:1].expand(8, -1, -1, -1), 0.15)
    distances = torch.cdist(moved.flatten(1), moved.flatten(1))
    assert distances[~torch.eye(8, dtype=torch.bool)].min() > 0.1


@pytest.mark.parametrize("affine", [0, 0.15])
def test_training_images_alone_are_distorted_and_only_with_affine(monkeypatch, affine):
    inputs = {True: [], False: []}
    network = q3_cnn.NeuralNetwork

    class Noting(network):
        def forward(self, X):
            inputs[self.training].append(X)
            return super().forward(X)

    monkeypatch.setattr(q3_cnn, "NeuralNetwork", Noting)
    train(epochs=2, batch_size=8, affine=affine)
    evaluated, trained = torch.cat(inputs[False]), torch.cat(inputs[True]).flatten(1)
    assert all(map(torch.equal, evaluated.split(12), [OTHER[0].unsqueeze(1) / 255] * 3))
    assert len(trained) == 80
    images = set(map(tuple, (DATA[0].flatten(1) / 255).tolist()))
    undistorted = sum(tuple(image) in images for image in trained.tolist())
    assert undistorted == (0 if affine else 80)
    first, second = trained[:40].sum(), trained[40:].sum()
    assert torch.isclose(first, second, rtol=1e-6) == (not affine)  # other maps in each epoch
