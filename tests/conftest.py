"""Small data in MNIST's own file format, and the real scripts as subprocesses."""

import contextlib
import ctypes
import json
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


def run_script(script, *flags, cwd=None, preexec_fn=None, **changes):
    """Run a script in `cwd` to its end; return the completed process with its output as text."""
    return subprocess.run(
        script_command(script, *flags),
        cwd=cwd,
        preexec_fn=preexec_fn,
        env=script_environment(**changes),
        capture_output=True,
        text=True,
        timeout=300,
    )


# Has the packages imported, and runs each script that stdin names in a process forked from there.
FORK = """
import json, multiprocessing, os, runpy, sys
import matplotlib.pyplot, torchvision, tqdm

def run(command, environment, outputs):
    os.environ.clear()
    os.environ.update(environment)
    for number, path in enumerate(outputs, 1):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.argv = command
    runpy.run_path(command[0], run_name="__main__")

for line in sys.stdin:
    child = multiprocessing.get_context("fork").Process(target=run, args=json.loads(line))
    child.start()
    child.join(300)
    child.kill()
    child.join()
    print(child.exitcode, flush=True)
"""


@pytest.fixture(scope="session")
def run_forked(tmp_path_factory):
    """Return a run_script that saves the seconds of importing torch; not for how it starts."""
    if not hasattr(os, "fork"):
        pytest.skip("needs fork")
    folder = tmp_path_factory.mktemp("outputs")
    outputs = [folder / "stdout", folder / "stderr"]
    with subprocess.Popen(
        [sys.executable, "-c", FORK],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=script_environment(),
    ) as server:

        def run(script, *flags, **changes):
            command = script_command(script, *flags)[1:]
            task = command, script_environment(**changes), [str(path) for path in outputs]
            print(json.dumps(task), file=server.stdin, flush=True)
            code = int(server.stdout.readline())
            texts = (path.read_text(encoding="utf-8") for path in outputs)
            return subprocess.CompletedProcess(command, code, *texts)

        yield run


def complaint(result, code=1):
    """Return the line on stderr of a script that ended so; only argparse puts its usage before."""
    assert result.returncode == code, result.stderr
    usage, line = result.stderr.splitlines()[:-1], result.stderr.splitlines()[-1]
    assert all(text.startswith(("usage: ", "  ")) for text in usage) if code == 2 else not usage
    return line


def copy_script(script, folder):
    """Copy one script alone into `folder`; return its path there."""
    folder.mkdir(parents=True, exist_ok=True)
    return Path(shutil.copy(ROOT / script, folder))


def obey_permissions():
    """Take from root, in a process about to start, the right to write in spite of permissions."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE


@contextlib.contextmanager
def read_only(*folders):
    """Make the folders read-only; give the preexec_fn that lets this hold for root."""
    for folder in folders:
        folder.chmod(0o555)
    try:
        for folder in folders:
            probe = subprocess.run(["test", "-w", folder], preexec_fn=obey_permissions)
            if probe.returncode == 0:
                pytest.skip("this root may write into read-only folders")
        yield obey_permissions
    finally:
        for folder in folders:
            folder.chmod(0o755)
