"""The networks are those of the sheet, and what a variant adds stands where it should."""

from itertools import pairwise

import torch
from torch import nn

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
    assert logits.shape == (8, 10)
    assert ran[0][1] is X
    assert ran[-1][2] is logits
    # No function such as F.relu or F.softmax stands between two layers.
    assert all(after[1] is before[2] for before, after in pairwise(ran))
    return [step for step in ran if not isinstance(step[0], nn.Identity)]


def layers(model):
    """Return the layers in order, as text, without those that do nothing."""
    return [str(module) for module, *_ in steps(model) if getattr(module, "p", 1) > 0]


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


def test_q3_base_is_the_network_of_the_sheet():
    model = q3_cnn.NeuralNetwork(q3_cnn.BASE)
    assert layers(model) == list(map(str, CNN))
    assert parameters(model) == 134_520
    shapes = [tuple(output.shape[1:]) for _, _, output in steps(model) if output.dim() == 4]
    assert list(dict.fromkeys(shapes)) == [(20, 25, 25), (20, 11, 11), (20, 5, 5)]


def test_batch_norm_follows_every_relu_and_nothing_else():
    model = q3_cnn.NeuralNetwork(q3_cnn.BN_ONLY)
    kinds = [layer.split("(")[0] for layer in layers(model)]
    after_relu = [after for before, after in pairwise(kinds) if before == "ReLU"]
    assert after_relu == ["BatchNorm2d", "BatchNorm2d", "BatchNorm1d"]
    assert [layer for layer in layers(model) if "BatchNorm" not in layer] == list(map(str, CNN))
    assert parameters(model) == 135_100


def test_dropout_stands_before_both_linear_layers_and_drops_only_in_training():
    model = q3_cnn.NeuralNetwork(q3_cnn.BASE | {"dropout": 0.25})
    after = [pair for pair in pairwise(steps(model)) if isinstance(pair[0][0], nn.Dropout)]
    for (dropout, given, dropped), (linear, *_) in after:
        assert (dropout.p, type(linear)) == (0.25, nn.Linear)
        assert not torch.equal(given, dropped)
    assert len(after) == 2
    without = q3_cnn.NeuralNetwork(q3_cnn.BASE).eval()
    without.load_state_dict(model.state_dict())
    assert torch.equal(model.eval()(X), without(X))
