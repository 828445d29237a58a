"""What question 3 adds: weight decay, the one-cycle schedule, and tweaks that are layers."""

import math

import pytest
import torch
from torch import Generator, nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.testing import assert_close

import q3_cnn

GENERATOR = Generator().manual_seed(0)
IMAGES = torch.randint(256, (40, 28, 28), dtype=torch.uint8, generator=GENERATOR)
DATA = q3_cnn.ImageDataset(IMAGES, torch.arange(40) % 10)


def train(**settings):
    """Train base with these settings in place of its own; return the network."""
    settings = q3_cnn.BASE | {"epochs": 1, "batch_size": 40} | settings
    *_, (model, _, _) = q3_cnn.train(settings, 3, DATA, DATA)
    return model


def test_weight_decay_adds_its_share_of_each_weight_to_the_gradient():
    torch.manual_seed(3)
    start = q3_cnn.NeuralNetwork(q3_cnn.BASE).parameters()
    plain, decayed = train(lr=0.1).parameters(), train(lr=0.1, weight_decay=0.5).parameters()
    for parameter, without, with_decay in zip(start, plain, decayed, strict=True):
        assert_close(without - with_decay, 0.1 * 0.5 * parameter, rtol=1e-4, atol=1e-6)


@pytest.fixture
def rates(monkeypatch):
    """Return the list of the learning rates that SGD's steps take from now on."""
    rates = []
    step = torch.optim.SGD.step

    def noted(optimizer, *args):
        rates.append(optimizer.param_groups[0]["lr"])
        return step(optimizer, *args)

    monkeypatch.setattr(torch.optim.SGD, "step", noted)
    return rates


@pytest.mark.parametrize(("drop_last", "steps"), [(False, 20), (True, 16)])
def test_one_cycle_rates_are_those_of_onecyclelr(rates, drop_last, steps):
    """Four epochs of 40 images in batches of 9."""
    train(epochs=4, batch_size=9, lr=0.7, one_cycle=True, drop_last=drop_last)
    taken = rates[:]
    optimizer = torch.optim.SGD([torch.zeros(1)])
    schedule = OneCycleLR(optimizer, max_lr=0.7, total_steps=steps, cycle_momentum=False)
    expected = []
    for _ in range(steps):
        expected.append(schedule.get_last_lr()[0])
        optimizer.step()
        schedule.step()
    assert taken == pytest.approx(expected)


def moments(X):
    """Return centre x, centre y, covariance and variance of y of images (N, 1, H, W), as (4, N)."""
    y, x = torch.meshgrid(*map(torch.arange, X.shape[2:]), indexing="ij")
    mass = X.double() / X.sum((2, 3), keepdim=True)
    center_x, center_y = ((mass * place).sum((2, 3), keepdim=True) for place in (x, y))
    covariance = (mass * (x - center_x) * (y - center_y)).sum((2, 3))
    variance = (mass * (y - center_y) ** 2).sum((2, 3))
    return torch.stack([center_x.flatten(), center_y.flatten(), *covariance.T, *variance.T])


def test_affine_moves_turns_and_scales_each_image_in_its_own_way_and_lets_black_in():
    """Two dots, 14 pixels apart: where they come to lie."""
    layer = q3_cnn.RandomAffine(0.15)
    images = torch.zeros(2000, 1, 28, 28)
    images[..., 13:15, 6:8] = 1
    images[..., 13:15, 20:22] = 1
    torch.manual_seed(0)
    left, right = (moments(half)[:2] for half in layer(images).split(14, dim=3))
    offsets = (left + right) / 2 + torch.tensor([[7.0], [0.0]]) - 13.5
    # Uniform: ± 0.15 of half the width of 28 pixels, and of the distance.
    expected = torch.full((2,), 2.1 / math.sqrt(3)).double()
    assert_close(offsets.std(1), expected, rtol=0.1, atol=0)
    assert_close((right - left).std(1), expected, rtol=0.2, atol=0)
    assert offsets.abs().max() < 2.8
    assert abs(offsets.corrcoef()[0, 1]) < 0.15
    assert layer(torch.ones(500, 1, 28, 28)).min() == 0


def bar(slant, left):
    """Return a bar, 18 pixels high and 4 wide, sheared by `slant` pixels per row."""
    image = torch.zeros(1, 28, 28)
    for row in range(18):
        start = left + round(slant * row)
        image[0, row + 3, start : start + 4] = 0.8
    return image


BARS = torch.stack([bar(0.5, 8), bar(-0.5, 20), bar(0.9, 2), bar(0, 20)])


def test_deskew_makes_digits_upright_in_the_middle_each_by_itself():
    """As high as before; straight and empty images stay."""
    upright = q3_cnn.Deskew()(BARS)
    centers, (covariance, variance) = moments(upright).split(2)
    assert_close(centers, torch.full_like(centers, 13.5), rtol=0, atol=0.15)
    assert (covariance / variance).abs().max() < 0.03
    assert_close(variance, moments(BARS)[3], rtol=0.05, atol=0)
    assert_close(upright[1:2], q3_cnn.Deskew()(BARS[1:2]))
    resting = torch.stack([torch.zeros(1, 28, 28), bar(0, 12).roll(2, dims=1)])
    assert_close(q3_cnn.Deskew()(resting), resting, rtol=0, atol=1e-5)


X = BARS + 0.2 * torch.rand(BARS.shape, generator=GENERATOR)  # so that there is ink at the border


def pass_through(model):
    """Return the logits, and a list of what the first convolution was given for them."""
    seen = []
    conv = next(module for module in model.modules() if isinstance(module, nn.Conv2d))
    hook = conv.register_forward_pre_hook(lambda _, inputs: seen.append(*inputs))
    logits = model(X)
    hook.remove()
    return logits, seen


def test_digits_are_straightened_then_distorted_in_training_then_normalised():
    settings = {"deskew": True, "affine": 0.15, "normalize": True}
    model = q3_cnn.NeuralNetwork(q3_cnn.BASE | settings)
    upright = q3_cnn.Deskew()(X)
    torch.manual_seed(1)
    distorted = q3_cnn.RandomAffine(0.15)(upright)
    for training, expected in (True, distorted), (False, upright):
        torch.manual_seed(1)
        _, (seen,) = pass_through(model.train(training))
        assert_close(seen, (expected - 0.1307) / 0.3081)


def test_logits_are_averaged_over_the_image_and_its_four_shifts_in_evaluation_only():
    """Once it is straight; the pixels at the edge are repeated."""
    model = q3_cnn.NeuralNetwork(q3_cnn.BASE | {"deskew": True, "average_shifts": True})
    plain = q3_cnn.NeuralNetwork(q3_cnn.BASE)
    plain.load_state_dict(model.state_dict())
    upright = q3_cnn.Deskew()(X)
    before, after = [0, *range(27)], [*range(1, 28), 27]
    images = [upright, upright[:, :, before], upright[:, :, after]]
    images += [upright[..., before], upright[..., after]]
    logits, _ = pass_through(model.eval())
    assert_close(logits, sum(map(plain.eval(), images)) / 5)
    logits, _ = pass_through(model.train())
    assert_close(logits, plain.train()(upright))
