"""Small data in the format of MNIST, and the scripts: in this process or in one of their own."""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import q2_mlp  # noqa: E402
import q3_cnn  # noqa: E402

SCRIPTS = pytest.mark.parametrize("script", [q2_mlp, q3_cnn], ids=["q2", "q3"])
FIRST_LABELS = {"train": [5, 0, 4, 1, 9], "t10k": [7, 2, 1, 0, 4]}  # those of MNIST
OLD = "the last good one"  # stands in a file that must not be replaced

os.environ.pop("PYTHONUNBUFFERED", None)  # it would hide a script that keeps its output back
torch.set_num_threads(1)


def write_idx(path, array):
    """Write a uint8 array as an IDX file: magic number, sizes, bytes."""
    header = np.array([0x0800 + array.ndim, *array.shape], dtype=">u4")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header.tobytes() + array.tobytes())


def write_mnist(folder, train=600, test=200):
    """Write four IDX files of `train` and `test` images that a network can learn, below `folder`.

    The image of digit d is noise with a bright 8 x 7 rectangle at a place of its own.
    """
    rng = np.random.default_rng(0)
    for part, count in ("train", train), ("t10k", test):
        labels = rng.integers(0, 10, count, dtype=np.uint8)
        labels[:5] = FIRST_LABELS[part][:count]
        images = rng.integers(0, 100, (count, 28, 28), dtype=np.uint8)
        for image, label in zip(images, labels, strict=True):
            top, left = divmod(int(label), 4)
            image[9 * top : 9 * top + 8, 7 * left : 7 * left + 7] += 150
        write_idx(folder / "MNIST" / "raw" / f"{part}-images-idx3-ubyte", images)
        write_idx(folder / "MNIST" / "raw" / f"{part}-labels-idx1-ubyte", labels)
    return folder


@pytest.fixture(scope="session")
def small_mnist(tmp_path_factory):
    """Return a data folder with 600 training and 200 test images; not to be written to."""
    return write_mnist(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="session")
def mnist_dir():
    """Return the folder of the real MNIST, named by MNIST_DIR; skip where it is not set."""
    if not os.environ.get("MNIST_DIR"):
        pytest.skip("needs the real MNIST: set MNIST_DIR to the folder above MNIST/raw")
    return Path(os.environ["MNIST_DIR"]).resolve()


@pytest.fixture(scope="module")
def without_pictures():
    """Let pictures be empty: for tests that look at the JSON alone, to be fast."""
    with pytest.MonkeyPatch.context() as patch:
        for script in q2_mlp, q3_cnn:
            patch.setattr(script, "plot_run", lambda *_: Figure())
        patch.setattr(q3_cnn, "plot_wrong", lambda *_: Figure())
        yield


# --- the scripts in this process ---


def call(script, data_dir, plots_dir, *flags):
    """Call main() of an imported script; return how it ended, and the lines it printed."""
    folders = ["--device", "cpu", "--data-dir", data_dir, "--plots-dir", plots_dir]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            code = script.main([str(flag) for flag in [*folders, *flags]]) or 0
        except SystemExit as error:
            code = error.code
    return code, printed.getvalue().splitlines()


def train(script, settings, seed, train_data, test_data):
    """Train to the end; return the network, and the four metrics of each epoch."""
    epochs = []
    for network, train_metrics, test_metrics in script.train(settings, seed, train_data, test_data):
        model = network
        epochs.append((*train_metrics, *test_metrics))
    return model, epochs


def metrics(run, split="test"):
    """Return the four metrics of each epoch of a run as the JSON has it."""
    keys = ["train_loss", "train_accuracy", f"{split}_loss", f"{split}_accuracy"]
    return [tuple(epoch[key] for key in keys) for epoch in run["epochs"]]


def load(path):
    """Return the content of a JSON file; NaN and Infinity are none."""
    return json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} in JSON"))


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def check_png(path):
    """Check that it is a figure, not an empty canvas, and wide enough for a page."""
    image = matplotlib.image.imread(path)
    assert image.shape[1] >= 1400
    assert image.shape[0] >= 500
    assert image.std() > 0.01


# --- the scripts in a process of their own ---


def script_command(script, *flags):
    """Return the command line that runs a script of the project with these flags."""
    return [sys.executable, str(ROOT / script), *map(str, flags)]


def run_script(script, *flags, cwd=None, preexec_fn=None, **changes):
    """Run a script to its end in this environment with `changes` (None takes a variable out)."""
    environment = {**os.environ, **changes}
    return subprocess.run(
        script_command(script, *flags),
        cwd=cwd,
        preexec_fn=preexec_fn,
        env={name: value for name, value in environment.items() if value is not None},
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=300,
    )


def copy_script(script, folder):
    """Copy one script alone into `folder`; return its path there."""
    folder.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(ROOT / script, folder))
