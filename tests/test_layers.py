"""What Q3 records of its layers: that it is right, and that recording it changes nothing."""

import pytest
import torch
from conftest import call, load, metrics, train
from torch import nn

import q3_cnn

LAYERS = ["conv 1", "conv 2", "linear 1", "linear 2"]
FLAGS = ["--epochs", 2, "--seeds", 3, 4, "--normalize", "--deskew", "--dropout", 0.3]
SETTINGS = {"epochs": 2, "normalize": True, "deskew": True, "dropout": 0.3}


@pytest.fixture(scope="module")
def data(small_mnist):
    """Return the data as the network sees it."""
    pairs = q3_cnn.load_data(small_mnist, False, "cpu")
    return [(q3_cnn.deskew(images), labels) for images, labels in pairs]


@pytest.fixture(scope="module", params=["reg", "bn"])
def record(request, small_mnist, tmp_path_factory, without_pictures):
    folder = tmp_path_factory.mktemp("plots")
    assert call(q3_cnn, small_mnist, folder, "--variant", request.param, *FLAGS)[0] == 0
    return load(folder / f"q3_cnn_{request.param}.json")


def hooked(model, images):
    """Return the inputs of each layer and the outputs of each ReLU, noted by hooks."""
    inputs, fired = [], []
    hooks = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            hook = module.register_forward_hook(lambda m, X, _: inputs.append(X[0].clone()))
            hooks.append(hook)
        if isinstance(module, nn.ReLU):
            hook = module.register_forward_hook(lambda m, _, X: fired.append(X.clone()))
            hooks.append(hook)
    with torch.no_grad():
        model(images.unsqueeze(1) / 255)
    for hook in hooks:
        hook.remove()
    return inputs, fired


def check_inputs(description, inputs, with_counts):
    assert list(description) == LAYERS
    for layer, X in zip(LAYERS, inputs, strict=True):
        entry = description[layer]
        assert entry["mean"] == pytest.approx(X.mean().item(), rel=1e-4, abs=1e-5)
        assert entry["standard_deviation"] == pytest.approx(X.std().item(), rel=1e-3)
        assert ("counts" in entry) == with_counts
        if with_counts:
            # A value near the edge of two bins, by its rounding, may fall into either.
            below, above = (
                torch.histc((X + shift).clamp(-3, 7), 50, -3, 7).cumsum(0)
                for shift in (0.01, -0.01)
            )
            up_to = torch.tensor(entry["counts"]).cumsum(0)
            assert (below <= up_to).all()
            assert (up_to <= above).all()
            assert up_to[-1] == X.numel()


def test_record_is_that_of_a_plain_computation(record, data):
    train_data, test_data = data
    settings = q3_cnn.HYPERPARAMETERS[record["variant"]] | SETTINGS
    for run, with_counts in zip(record["runs"], (True, False), strict=True):
        layers = run["layers"]
        torch.manual_seed(run["seed"])
        start = q3_cnn.NeuralNetwork(settings["batch_norm"], normalize=True)
        inputs, _ = hooked(start, train_data[0][:500])
        check_inputs(layers["start"], inputs, with_counts)

        end, epochs = train(q3_cnn, settings, run["seed"], train_data, test_data)
        assert metrics(run) == epochs
        inputs, fired = hooked(end.eval(), train_data[0])
        check_inputs(layers["end"], inputs, with_counts)
        silent = [int((X.transpose(0, 1).flatten(1) == 0).all(1).sum()) for X in fired]
        assert layers["never_fires"] == dict(zip(LAYERS, silent, strict=False))
        norms = [m for m in end.modules() if hasattr(m, "running_var")]
        low = [int((norm.running_var < 1e-4).sum()) for norm in norms]
        assert layers["low_variance"] == dict(zip(LAYERS, low, strict=False))


def test_dead_channels_are_counted_and_the_network_stays_as_it_is(data):
    settings = q3_cnn.HYPERPARAMETERS["bn_only"]
    torch.manual_seed(1)
    model = q3_cnn.NeuralNetwork(batch_norm=True)
    convs = [m for m in model.modules() if isinstance(m, nn.Conv2d)]
    linear = next(m for m in model.modules() if isinstance(m, nn.Linear))
    norms = [m for m in model.modules() if hasattr(m, "running_var")]
    with torch.no_grad():
        for layer, dead in (convs[0], 1), (convs[1], 3), (linear, 7):
            layer.weight.zero_()
            layer.bias.fill_(1)
            layer.bias[:dead] = -1
        norms[0].running_var[:2] = 0.9e-4
        norms[2].running_var[:5] = 0
    before = {key: value.clone() for key, value in model.state_dict().items()}
    layers = q3_cnn.record_layers(settings, 0, model, data[0], with_counts=False)
    assert layers["never_fires"] == {"conv 1": 1, "conv 2": 3, "linear 1": 7}
    assert layers["low_variance"] == {"conv 1": 2, "conv 2": 0, "linear 1": 5}
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
