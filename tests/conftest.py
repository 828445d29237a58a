"""Small data in MNIST's own file format, and the real scripts as subprocesses."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))


def write_idx(path, array):
    """Write a uint8 array as an IDX file: magic number, sizes, bytes."""
    header = np.array([0x0800 + array.ndim, *array.shape], dtype=">u4")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(header.tobytes() + array.tobytes())


def write_mnist(folder, train=600, test=200):
    """Write four IDX files of `train` and `test` images that a network can learn, below `folder`.

    The image of digit d is noise with a bright 8 x 8 square at a place of its own.
    """
    rng = np.random.default_rng(0)
    for part, count in ("train", train), ("t10k", test):
        labels = rng.integers(0, 10, count, dtype=np.uint8)
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


def script_command(script, *flags):
    """Return the command line that runs a script of the project with these flags."""
    return [sys.executable, str(ROOT / script), *map(str, flags)]


def script_environment(**changes):
    """Return this process's environment with one thread, and `changes` (None takes one out)."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **changes}
    return {name: value for name, value in environment.items() if value is not None}


def run_script(script, *flags, cwd=None, **changes):
    """Run a script in `cwd` to its end; return the completed process with its output as text."""
    return subprocess.run(
        script_command(script, *flags),
        cwd=cwd,
        env=script_environment(**changes),
        capture_output=True,
        text=True,
        timeout=300,
    )


def copy_script(script, folder):
    """Copy one script alone into `folder`; return its path there."""
    folder.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(ROOT / script, folder))
