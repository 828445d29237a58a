"""The networks are those of the sheet, and what a variant adds does what its name says."""

from itertools import pairwise

import torch
from torch import nn
from torch.testing import assert_close

import q2_mlp
import q3_cnn

X = torch.rand(8, 1, 28, 28, generator=torch.Generator().manual_seed(0))


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
    active = [m for m in modules if not isinstance(m, nn.Identity) and getattr(m, "p", 1) > 0]
    return [str(m).replace("inplace=True", "") for m in active]


def parameters(model):
    return sum(parameter.numel() for parameter in model.parameters())


RELU = nn.ReLU()
MLP = [nn.Flatten(), nn.Linear(784, 200), RELU, nn.Linear(200, 200), RELU, nn.Linear(200, 10)]
CONVOLUTIONS = [nn.Conv2d(1, 20, 4), RELU, nn.Conv2d(20, 20, 4, stride=2), RELU, nn.MaxPool2d(2)]
CNN = [*CONVOLUTIONS, nn.Flatten(), nn.Linear(500, 250), RELU, nn.Linear(250, 10)]


def test_q2_is_784_200_200_10():
    model = q2_mlp.NeuralNetwork()
    assert layers(model) == list(map(str, MLP))
    assert parameters(model) == 199_210
    assert model(X).shape == (8, 10)


def test_q3_base_is_the_network_of_the_sheet():
    model = q3_cnn.NeuralNetwork()
    assert layers(model) == list(map(str, CNN))
    assert parameters(model) == 134_520
    assert model(X).shape == (8, 10)
    shapes = [tuple(output.shape[1:]) for _, _, output in steps(model) if output.dim() == 4]
    assert list(dict.fromkeys(shapes))[-3:] == [(20, 25, 25), (20, 11, 11), (20, 5, 5)]


def test_batch_norm_follows_every_relu_and_nothing_else():
    model = q3_cnn.NeuralNetwork(batch_norm=True)
    kinds = [layer.split("(")[0] for layer in layers(model)]
    after_relu = [after for before, after in pairwise(kinds) if before == "ReLU"]
    assert after_relu == ["BatchNorm2d", "BatchNorm2d", "BatchNorm1d"]
    assert [layer for layer in layers(model) if "BatchNorm" not in layer] == list(map(str, CNN))
    assert parameters(model) == 135_100


def test_dropout_stands_before_both_linear_layers_and_drops_only_in_training():
    torch.manual_seed(0)
    model = q3_cnn.NeuralNetwork(dropout=0.25)
    ran = [step for step in steps(model) if not isinstance(step[0], nn.Identity)]
    kinds = [type(module).__name__ for module, *_ in ran]
    after_dropout = [after for before, after in pairwise(kinds) if before == "Dropout"]
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
