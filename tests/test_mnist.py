"""The real MNIST: it is read whole, and the networks get as far as they should in one epoch."""

import pytest
import torch
from conftest import call, load, train

import q2_mlp
import q3_cnn


def test_one_epoch_of_q2(mnist_dir, tmp_path):
    assert call(q2_mlp, mnist_dir, tmp_path, "--epochs", 1)[0] == 0
    ((epoch,),) = (run["epochs"] for run in load(tmp_path / "q2_mlp.json")["runs"])
    assert 0.93 < epoch["test_accuracy"] < 1
    assert 0.85 < epoch["train_accuracy"] < 1
    for accuracy, images in (epoch["train_accuracy"], 60_000), (epoch["test_accuracy"], 10_000):
        assert abs(accuracy * images - round(accuracy * images)) < 1e-6


def test_ninety_four_steps_of_each_variant_of_q3(mnist_dir):
    train_data, test_data = q3_cnn.load_data(mnist_dir, False, "cpu")
    assert train_data[0].shape == (60_000, 28, 28)
    assert test_data[0].shape == (10_000, 28, 28)
    assert torch.bincount(test_data[1]).tolist()[:3] == [980, 1135, 1032]
    train_data, test_data = [[part[:6000] for part in train_data], [p[:2000] for p in test_data]]
    for variant, floor in {"base": 0.8, "reg": 0.8, "bn_only": 0.9, "bn": 0.9}.items():
        settings = q3_cnn.HYPERPARAMETERS[variant] | {"epochs": 1}
        _, ((_, _, _, accuracy),) = train(q3_cnn, settings, 0, train_data, test_data)
        assert floor < accuracy < 1, variant


def test_pixels_are_centred_and_scaled_by_those_of_the_training_images(mnist_dir):
    (images, _), _ = q3_cnn.load_data(mnist_dir, False, "cpu")
    seen = q3_cnn.NeuralNetwork(normalize=True).normalize(images.unsqueeze(1) / 255)
    assert seen.mean().item() == pytest.approx(0, abs=1e-3)
    assert seen.std().item() == pytest.approx(1, abs=1e-3)
