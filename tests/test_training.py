"""What the variants of Q3 train with: weight decay, the one-cycle schedule, random affine maps."""

import math

import conftest
import pytest
import torch
from torch.testing import assert_close

import q3_cnn

GENERATOR = torch.Generator().manual_seed(0)
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
    model, metrics = conftest.train(q3_cnn, settings, 3, DATA, OTHER)
    assert len(metrics) == epochs
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


def test_the_last_batch_is_left_out_if_it_is_smaller(rates, inputs):
    """Of the images and of the steps of the schedule."""
    train(epochs=4, batch_size=9, lr=0.7, one_cycle=True, drop_last=True)
    assert [len(X) for X in inputs["network"][True]] == [9] * 16
    assert rates[15] < 1e-4
    train(batch_size=8, drop_last=True)
    assert [len(X) for X in inputs["network"][True][16:]] == [8] * 5


def test_the_rate_is_constant_without_the_schedule(rates):
    train(epochs=2, batch_size=8, lr=0.3)
    assert rates == [0.3] * 10


# --- random affine maps ---


def centers(X):
    """Return the centres of mass (x, y) of images (N, 1, H, W), as (2, N)."""
    y, x = torch.meshgrid(*map(torch.arange, X.shape[2:]), indexing="ij")
    mass = X / X.sum((1, 2, 3), keepdim=True)
    return torch.stack([(mass * x).sum((1, 2, 3)), (mass * y).sum((1, 2, 3))])


def test_affine_moves_turns_and_scales_each_image_in_its_own_way_and_lets_black_in():
    """Two dots, 14 pixels apart: where they come to lie."""
    images = torch.zeros(500, 1, 28, 28)
    images[..., 13:15, 6:8] = 1
    images[..., 13:15, 20:22] = 1
    torch.manual_seed(0)
    left, right = map(centers, q3_cnn.random_affine(images, 0.15).split(14, dim=3))
    offsets = (left + right) / 2 + torch.tensor([[7.0], [0.0]]) - 13.5
    # Uniform: ± 0.15 of half the width of 28 pixels, and of the distance.
    assert_close(offsets.std(1), torch.full((2,), 2.1 / math.sqrt(3)), rtol=0.1, atol=0)
    assert abs(offsets.corrcoef()[0, 1]) < 0.15
    distances = right - left
    assert_close(distances.std(1), torch.full((2,), 0.15 * 14 / math.sqrt(3)), rtol=0.2, atol=0)
    moved = q3_cnn.random_affine(torch.ones(500, 1, 28, 28), 0.15)
    assert moved.min() == 0
    assert moved.max() <= 1 + 1e-6


@pytest.fixture
def inputs(monkeypatch):
    """Return what reaches the network, and its first layer, by whether it is in training."""
    inputs = {"network": {True: [], False: []}, "conv 1": {True: [], False: []}}
    network = q3_cnn.NeuralNetwork

    class Noting(network):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            conv = next(m for m in self.modules() if isinstance(m, torch.nn.Conv2d))
            conv.register_forward_pre_hook(lambda m, X: inputs["conv 1"][m.training].append(*X))

        def forward(self, X):
            inputs["network"][self.training].append(X)
            return super().forward(X)

    monkeypatch.setattr(q3_cnn, "NeuralNetwork", Noting)
    return inputs


@pytest.mark.parametrize("affine", [0, 0.15])
def test_training_images_alone_are_distorted_and_only_with_affine(inputs, affine):
    train(epochs=2, batch_size=8, affine=affine)
    evaluated = torch.cat(inputs["network"][False])
    assert torch.equal(evaluated, (OTHER[0].unsqueeze(1) / 255).repeat(2, 1, 1, 1))
    trained = torch.cat(inputs["network"][True]).flatten(1)
    assert len(trained) == 80
    images = set(map(tuple, (DATA[0].flatten(1) / 255).tolist()))
    undistorted = sum(tuple(image) in images for image in trained.tolist())
    assert undistorted == (0 if affine else 80)
    first, second = trained[:40].sum(), trained[40:].sum()
    assert torch.isclose(first, second, rtol=1e-6) == (not affine)  # other maps in each epoch


# --- centred and scaled pixels ---


@pytest.mark.parametrize("normalize", [False, True])
def test_pixels_are_normalised_after_the_augmentation_in_training_and_evaluation(inputs, normalize):
    model = train(batch_size=8, affine=0.15, normalize=normalize)
    q3_cnn.predict(q3_cnn.batches(OTHER, 5), model)
    for training in True, False:
        given = torch.cat(inputs["network"][training])
        seen = torch.cat(inputs["conv 1"][training])
        assert_close(seen, (given - 0.1307) / 0.3081 if normalize else given)
    assert torch.cat(inputs["network"][True]).min() == 0  # the borders that came in are black


# --- straightened digits ---


def moments(image):
    """Return centre (x, y), covariance and variance of y of an image, its pixels as masses."""
    mass = image.double() / image.sum()
    y, x = torch.meshgrid(torch.arange(28.0), torch.arange(28.0), indexing="ij")
    center_x, center_y = (mass * x).sum().item(), (mass * y).sum().item()
    x, y = x - center_x, y - center_y
    return center_x, center_y, (mass * x * y).sum().item(), (mass * y * y).sum().item()


def bar(slant, left):
    """Return an upright bar, 18 pixels high and 4 wide, sheared by `slant` pixels per row."""
    image = torch.zeros(28, 28, dtype=torch.uint8)
    for row in range(18):
        start = left + round(slant * row)
        image[row + 3, start : start + 4] = 200
    return image


def test_a_sheared_digit_becomes_upright_in_the_middle():
    images = torch.stack([bar(0.5, 8), bar(-0.5, 20), bar(0.9, 2), bar(0, 12)])
    upright = q3_cnn.deskew(images)
    assert upright.dtype == torch.uint8
    faint = images.clamp(max=1)
    assert q3_cnn.deskew(faint).sum() == faint.sum(), "values are not rounded"
    for before, after in zip(images, upright, strict=True):
        center_x, center_y, covariance, variance = moments(after)
        assert (center_x, center_y) == pytest.approx((13.5, 13.5), abs=0.15)
        assert abs(covariance / variance) < 0.03
        assert variance == pytest.approx(moments(before)[3], rel=0.05)
        # The rows are alike again, four pixels wide.
        assert (after[6:22] > 100).sum(1).float().mean().item() == pytest.approx(4, abs=0.5)
        assert after[:, :9].max() == after[:, 19:].max() == 0


def test_each_of_many_digits_is_straightened_by_itself_and_a_straight_one_stays():
    images = torch.randint(256, (1100, 28, 28), dtype=torch.uint8, generator=GENERATOR)
    images[:2] = 0
    images[1, 5:23, 12:16] = 200
    upright = q3_cnn.deskew(images)
    assert torch.equal(upright[:2], images[:2])
    assert upright.shape == images.shape
    for i in 0, 499, 500, 1099:
        assert torch.equal(upright[i], q3_cnn.deskew(images[i : i + 1])[0])
