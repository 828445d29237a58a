"""The networks are those of the sheet, and what a variant adds does what its name says."""

import math
from itertools import pairwise

import pytest
import torch
from torch import nn
from torch.testing import assert_close

import q2_mlp
import q3_cnn

X = torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))
Y = torch.arange(8)


def steps(model):
    """Return (module, input, output) of each layer in the order in which `model(X)` runs them."""
    ran = []
    for module in model.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda m, inputs, output: ran.append((m, *inputs, output)))
    logits = model(X)
    assert ran[0][1] is X
    assert ran[-1][2] is logits
    # No function such as F.relu or F.softmax stands between two layers.
    assert all(after[1] is before[2] for before, after in pairwise(ran))
    return ran


def layers(model):
    """Return the layers in order, as text, without those that do nothing."""
    modules = [module for module, *_ in steps(model)]
    return [str(m) for m in modules if not isinstance(m, nn.Identity) and getattr(m, "p", 1) > 0]


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


MLP = [
    "Flatten(start_dim=1, end_dim=-1)",
    "Linear(in_features=784, out_features=200, bias=True)",
    "ReLU()",
    "Linear(in_features=200, out_features=200, bias=True)",
    "ReLU()",
    "Linear(in_features=200, out_features=10, bias=True)",
]
CNN = [
    "Conv2d(1, 20, kernel_size=(4, 4), stride=(1, 1))",
    "ReLU()",
    "Conv2d(20, 20, kernel_size=(4, 4), stride=(2, 2))",
    "ReLU()",
    "MaxPool2d(kernel_size=2, stride=2, padding=0, dilation=1, ceil_mode=False)",
    "Flatten(start_dim=1, end_dim=-1)",
    "Linear(in_features=500, out_features=250, bias=True)",
    "ReLU()",
    "Linear(in_features=250, out_features=10, bias=True)",
]


def test_q2_is_784_200_200_10():
    model = q2_mlp.NeuralNetwork()
    assert layers(model) == MLP
    assert parameters(model) == 199_210
    assert model(X).shape == (8, 10)


def test_q3_base_is_the_network_of_the_sheet():
    model = q3_cnn.NeuralNetwork()
    assert layers(model) == CNN
    assert parameters(model) == 134_520
    assert model(X).shape == (8, 10)


def test_q3_shapes():
    ran = steps(q3_cnn.NeuralNetwork())
    shapes = [tuple(output.shape[1:]) for _, _, output in ran if output.dim() == 4]
    assert list(dict.fromkeys(shapes)) == [(20, 25, 25), (20, 11, 11), (20, 5, 5)]


def test_batch_norm_follows_every_relu_and_nothing_else():
    model = q3_cnn.NeuralNetwork(batch_norm=True)
    names = [layer.split("(")[0] for layer in layers(model)]
    after_relu = [after for before, after in pairwise(names) if before == "ReLU"]
    assert after_relu == ["BatchNorm2d", "BatchNorm2d", "BatchNorm1d"]
    assert [layer for layer in layers(model) if "BatchNorm" not in layer] == CNN
    assert parameters(model) == 134_520 + 2 * (20 + 20 + 250)  # a scale and a shift per channel


def test_dropout_stands_before_both_linear_layers_and_drops_only_in_training():
    torch.manual_seed(0)
    model = q3_cnn.NeuralNetwork(dropout=0.25)
    ran = [step for step in steps(model) if not isinstance(step[0], nn.Identity)]
    names = [type(module).__name__ for module, *_ in ran]
    after_dropout = [after for before, after in pairwise(names) if before == "Dropout"]
    assert after_dropout == ["Linear", "Linear"]
    for module, before, after in ran:
        if isinstance(module, nn.Dropout):
            kept = after != 0
            assert_close(after[kept], before[kept] / 0.75)
            share = 1 - kept.sum() / (before != 0).sum()  # ReLU made zeros of its own
            assert 0.2 < share < 0.3

    assert not torch.equal(model(X), model(X))
    model.eval()
    without = q3_cnn.NeuralNetwork().eval()
    without.load_state_dict(model.state_dict())
    assert torch.equal(model(X), without(X))


def train_on_x(monkeypatch, **settings):
    """Train by train() on X, all of it in one step per epoch; return the parameters."""
    made = []
    network = q3_cnn.NeuralNetwork
    monkeypatch.setattr(
        q3_cnn, "NeuralNetwork", lambda *flags: made.append(network(*flags)) or made[-1]
    )
    data = (255 * X.squeeze(1)).to(torch.uint8), Y
    settings = {"epochs": 1, "batch_size": len(Y), "lr": 0.1, **settings}
    list(q3_cnn.train({"seed": 3}, settings, data, data, torch.device("cpu")))
    monkeypatch.undo()
    return [parameter.detach() for parameter in made[0].parameters()]


def test_weight_decay_adds_its_share_of_each_weight_to_the_gradient(monkeypatch):
    torch.manual_seed(3)
    start = q3_cnn.NeuralNetwork().parameters()
    plain, decayed = train_on_x(monkeypatch), train_on_x(monkeypatch, weight_decay=0.5)
    for parameter, without, with_decay in zip(start, plain, decayed, strict=True):
        assert_close(without - with_decay, 0.1 * 0.5 * parameter.detach(), rtol=1e-4, atol=1e-6)


def test_weight_decay_shrinks_the_weights(monkeypatch):
    plain = train_on_x(monkeypatch, epochs=20)
    decayed = train_on_x(monkeypatch, epochs=20, weight_decay=0.1)
    for before, after in zip(plain, decayed, strict=True):
        if before.dim() > 1:
            assert after.norm() < 0.95 * before.norm()


# In this layout torch adds up the sums of a batch norm one by one, which rounds more.
@pytest.mark.parametrize(("batch_norm", "rounding"), [(False, 1e-5), (True, 1e-3)])
def test_channels_last_changes_only_the_rounding(batch_norm, rounding):
    results = []
    for layout in torch.contiguous_format, torch.channels_last:
        torch.manual_seed(0)
        model = q3_cnn.NeuralNetwork(batch_norm).to(memory_format=layout)
        assert model.convolutions[3].weight.is_contiguous(memory_format=layout)
        logits = model(X)
        nn.functional.cross_entropy(logits, Y).backward()
        results.append([logits.detach(), *(parameter.grad for parameter in model.parameters())])
    for contiguous, channels_last in zip(*results, strict=True):
        assert (contiguous - channels_last).norm() < rounding * contiguous.norm()


# --- random affine maps ---


@pytest.fixture
def affine(monkeypatch):
    """Return random_affine with known draws: 0 for what is not named, 1 for its upper limit."""

    def with_draws(X, strength, angle=0, slant=0, zoom=0, right=0, down=0):
        draws = iter([angle, slant, zoom, right, down])
        monkeypatch.setattr(
            torch, "rand", lambda n, device: torch.full((n,), (1 + next(draws)) / 2)
        )
        result = q3_cnn.random_affine(X, strength)
        monkeypatch.undo()
        assert next(draws, None) is None
        return result

    return with_draws


def centre(weights):
    """Return the mean place of `weights` along the last dimension."""
    places = torch.arange(weights.shape[-1], dtype=weights.dtype)
    return (weights * places).sum(-1) / weights.sum(-1)


def test_affine_of_strength_0_is_the_identity():
    assert_close(q3_cnn.random_affine(X, 0), X, rtol=0, atol=1e-5)


def test_affine_without_turn_move_zoom_and_shear_is_the_identity(affine):
    assert_close(affine(X, 1), X, rtol=0, atol=1e-5)


def test_affine_moves_by_two_pixels(affine):
    assert_close(affine(X, 1, right=1)[..., :-2], X[..., 2:], rtol=0, atol=1e-5)
    assert_close(affine(X, 1, down=-1)[..., 2:, :], X[..., :-2, :], rtol=0, atol=1e-5)
    assert affine(X, 1, right=1)[..., -1].abs().max() == 0  # black comes in from outside


def test_affine_turns_by_ten_degrees(affine):
    assert_close(affine(X, 9, angle=1), X.rot90(dims=(2, 3)), rtol=0, atol=1e-4)
    assert_close(affine(X, 9, angle=-1), X.rot90(-1, dims=(2, 3)), rtol=0, atol=1e-4)


def test_affine_zooms_by_ten_percent(affine):
    square = torch.zeros(1, 1, 28, 28)
    square[..., 12:16, 12:16] = 1
    zoomed = affine(square, 10, zoom=1)  # 1 + 10 * 0.1: twice as high and as wide
    assert_close(zoomed.sum(), 4 * square.sum())
    assert_close(centre(zoomed.sum(2)), centre(square.sum(2)))
    assert_close(centre(zoomed.sum(3)), centre(square.sum(3)))


def test_affine_shears_by_five_degrees(affine):
    bar = torch.zeros(1, 1, 28, 28)
    bar[..., 8:20, 13:15] = 1
    sheared = affine(bar, 9, slant=1)[0, 0, 8:20]  # 45 degrees: each row by one pixel more
    assert_close(centre(sheared).diff(), torch.full((11,), -1.0), rtol=0, atol=1e-4)
    assert_close(sheared.sum(1), bar[0, 0, 8:20].sum(1), rtol=0, atol=1e-4)


@pytest.mark.parametrize("strength", [0.5, 1, 3])
def test_affine_keeps_shape_and_range(strength):
    torch.manual_seed(0)
    moved = q3_cnn.random_affine(X, strength)
    assert moved.shape == X.shape
    assert moved.dtype == X.dtype
    assert moved.min() >= 0
    assert moved.max() <= 1 + 1e-6


def test_affine_moves_every_image_in_its_own_way():
    torch.manual_seed(0)
    moved = q3_cnn.random_affine(X[:1].expand(8, -1, -1, -1), 1)
    distances = torch.cdist(moved.flatten(1), moved.flatten(1))
    assert distances[~torch.eye(8, dtype=torch.bool)].min() > 0.1


def test_affine_draws_stay_within_the_limits_and_reach_them(monkeypatch):
    thetas = []
    monkeypatch.setattr(
        q3_cnn.F, "affine_grid", lambda theta, *_, **__: thetas.append(theta) or theta
    )
    monkeypatch.setattr(q3_cnn.F, "grid_sample", lambda X, *_, **__: X)
    torch.manual_seed(0)
    q3_cnn.random_affine(torch.zeros(20_000, 1, 1, 1), 1)
    matrices, moves = thetas[0].split((2, 1), dim=2)
    # A turn and a shear keep areas: the determinant is that of the zoom alone.
    zoom = matrices.det().rsqrt()
    angle = torch.atan2(matrices[:, 1, 0], matrices[:, 0, 0])
    for values, low, high in (
        (zoom, 0.9, 1.1),
        (angle, -math.radians(10), math.radians(10)),
        (moves[:, 0, 0], -2 / 14, 2 / 14),
        (moves[:, 1, 0], -2 / 14, 2 / 14),
    ):
        slack = 0.01 * (high - low)
        assert low - 1e-5 <= values.min() < low + slack
        assert high - slack < values.max() <= high + 1e-5
