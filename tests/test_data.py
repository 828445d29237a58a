"""MNIST is read whole; what is broken or not to be had is said in one line, never trained on."""

import gzip
import os
import socket
import threading

import pytest
import torch
from conftest import write_mnist
from torchvision.datasets import MNIST

import q2_mlp
import q3_cnn

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
HTML = b"<html><body>Please log in.</body></html>"


@pytest.mark.skipif("MNIST_DIR" not in os.environ, reason="needs MNIST: set MNIST_DIR to data/")
def test_all_of_the_real_mnist_is_read_and_its_pixels_are_centred_and_scaled():
    data = q3_cnn.load_data(os.environ["MNIST_DIR"], False, "cpu")
    for dataset, count, zeros in zip(data, (60_000, 10_000), (5923, 980), strict=True):
        images, labels = dataset.tensors
        assert (images.shape, images.dtype) == ((count, 28, 28), torch.uint8)
        assert torch.bincount(labels)[0] == zeros
    model = q3_cnn.NeuralNetwork(q3_cnn.BASE | {"normalize": True})
    seen = model.prepare(data[0].tensors[0] / 255)
    assert (seen.mean().item(), seen.std().item()) == pytest.approx((0, 1), abs=1e-3)


@pytest.fixture
def raw(tmp_path):
    """Return the folder of four small files, to be broken."""
    return write_mnist(tmp_path / "data", train=40, test=20) / "MNIST" / "raw"


@pytest.fixture
def refused(main, raw, tmp_path, no_training):
    """Return a function that checks that nothing is trained, and returns the line that says why."""
    calls = no_training(q2_mlp, {})

    def refused():
        folders = ["--data-dir", tmp_path / "data", "--plots-dir", tmp_path / "plots"]
        message, printed = main(q2_mlp, *folders)
        assert isinstance(message, str)  # Python writes it to stderr and exits with 1
        assert len(message.splitlines()) == 1
        assert str(raw) in message
        assert "--data-dir" in message
        assert printed == calls == list((tmp_path / "plots").iterdir()) == []
        return message

    return refused


def labels_of_fashion(data):
    return data[:8] + bytes([9, 0, 0, 3, 0]) + data[13:]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (TEST_LABELS, lambda data: b""),
        (TEST_IMAGES, lambda data: data[:-1]),
        (TRAIN_LABELS, gzip.compress),
        (TRAIN_LABELS, lambda data: HTML),
        (TRAIN_IMAGES, lambda data: data[:4] + bytes(4) + data[8:16]),  # no images
        (TRAIN_LABELS, labels_of_fashion),
        (TEST_LABELS, labels_of_fashion),
    ],
)
def test_broken_or_foreign_file(raw, refused, name, change):
    (raw / name).write_bytes(change((raw / name).read_bytes()))
    refused()


def test_training_and_test_swapped(raw, refused):
    for one, other in (TRAIN_IMAGES, TEST_IMAGES), (TRAIN_LABELS, TEST_LABELS):
        (raw / one).rename(raw / "aside")
        (raw / other).rename(raw / one)
        (raw / "aside").rename(raw / other)
    refused()


def test_no_network_or_a_page_in_place_of_the_file(raw, refused, tmp_path, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    (raw / TRAIN_IMAGES).unlink()
    (tmp_path / f"{TRAIN_IMAGES}.gz").write_bytes(HTML)
    for mirror in "http://127.0.0.1:9", tmp_path.as_uri():
        monkeypatch.setattr(MNIST, "mirrors", [f"{mirror}/"])
        refused()
        refused()  # what the first left behind does not help the second


def test_mirror_that_never_answers(raw, refused, monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    (raw / TRAIN_IMAGES).unlink()
    limit = socket.setdefaulttimeout
    with socket.create_server(("127.0.0.1", 0)) as server, monkeypatch.context() as patch:
        patch.setattr(socket, "setdefaulttimeout", lambda seconds: limit(seconds / 100))
        patch.setattr(MNIST, "mirrors", ["http://{}:{}/".format(*server.getsockname())])
        # Whoever has no limit is hung up on, so that the test fails and does not wait for ever.
        timer = threading.Timer(60, server.close)
        timer.start()
        message = refused()
        timer.cancel()
    limit(None)
    assert "timed out" in message
