"""Small data in the format of MNIST, and the scripts called in this process."""

import contextlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

ROOT = Path(__file__).resolve().parent.parent
FIRST_LABELS = {"train": [5, 0, 4, 1, 9], "t10k": [7, 2, 1, 0, 4]}  # those of MNIST

torch.set_num_threads(1)


def write_mnist(folder, train=600, test=200):
    """Write four IDX files of `train` and `test` images that a network can learn, below `folder`.

    The image of digit d is noise with a bright 8 x 7 rectangle at a place of its own.
    """
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for part, count in ("train", train), ("t10k", test):
        labels = rng.integers(0, 10, count, dtype=np.uint8)
        labels[:5] = FIRST_LABELS[part]
        images = rng.integers(0, 100, (count, 28, 28), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            top, left = divmod(int(label), 4)
            image[9 * top : 9 * top + 8, 7 * left : 7 * left + 7] += 150
        for name, array in ("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels):
            header = np.array([0x0800 + array.ndim, *array.shape], dtype=">u4")
            (raw / f"{part}-{name}").write_bytes(header.tobytes() + array.tobytes())
    return folder


@pytest.fixture(scope="session")
def small_mnist(tmp_path_factory):
    """Return a data folder with 600 training and 200 test images; not to be written to."""
    return write_mnist(tmp_path_factory.mktemp("data") / "small")


@pytest.fixture
def main(small_mnist, tmp_path):
    """Return a function that calls a script's main() and returns how it ended, and its lines."""

    def main(script, *flags, stdout=None):
        folders = ["--data-dir", small_mnist, "--plots-dir", tmp_path]
        argv = ["--device", "cpu", *folders, *flags]
        with contextlib.redirect_stdout(stdout or io.StringIO()) as printed:
            try:
                code = script.main([str(flag) for flag in argv]) or 0
            except SystemExit as error:
                code = error.code
        torch.set_num_threads(1)
        return code, printed.getvalue().splitlines()

    return main


@pytest.fixture
def figures(monkeypatch):
    """Return the figures that are saved from now on, by file name; the files stay empty."""
    figures = {}

    def savefig(figure, path, **_):
        Path(path).touch()
        figures[Path(path).name] = figure

    monkeypatch.setattr(Figure, "savefig", savefig)
    return figures


@pytest.fixture
def no_training(monkeypatch, figures):
    """Return a function that lets train() yield these metrics, a list by seed, and train nothing.

    The network of seed s takes every image for an s, the more surely the brighter it is. What
    train() is called with from now on is in the list that the function returns.
    """

    def no_training(script, epochs):
        calls = []

        def train(settings, seed, train_data, test_data):
            calls.append((settings, seed, train_data, test_data, torch.get_num_threads()))
            model = nn.Sequential(nn.AvgPool2d(28), nn.Flatten(), nn.Linear(1, 10, bias=False))
            model[2].weight.data = 10 * torch.eye(10)[:, [seed]]
            for metrics in epochs[seed]:
                yield model, *metrics

        monkeypatch.setattr(script, "train", train)
        return calls

    return no_training


def load(path):
    return json.loads(path.read_text())


def names(folder):
    return sorted(path.name for path in folder.iterdir())
