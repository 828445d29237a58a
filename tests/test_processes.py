"""What only a process of its own can show: signals, a full disk, a bare folder, an import."""

import os
import shutil
import signal
import subprocess
import sys
import threading

import matplotlib.image
import pytest
from conftest import ROOT, load, names, write_mnist

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs prlimit")
FOREVER = 10_000  # epochs
LIMIT = 600  # seconds until a process that does not end is killed, and its test fails


@pytest.fixture
def start(small_mnist, tmp_path):
    """Return a function that starts q2_mlp.py writing into tmp_path."""
    ends = []

    def start(*flags):
        folders = ["--device", "cpu", "--data-dir", small_mnist, "--plots-dir", tmp_path]
        command = [sys.executable, ROOT / "q2_mlp.py", *folders, "--batch-size", 4, *flags]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(
            list(map(str, command)),
            **pipes,
            # It would hide that a line is kept back.
            env={**os.environ, "PYTHONUNBUFFERED": ""},
            # What was started with & ignores Ctrl-C.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )
        timer = threading.Timer(LIMIT, process.kill)
        timer.start()
        ends.extend([timer.cancel, process.kill, process.wait])
        return process

    yield start
    for end in ends:
        end()


def read_until(stream, text):
    """Return the lines of the stream up to the first that has this text."""
    lines = []
    for line in stream:
        lines.append(line)
        if text in line:
            return lines
    return pytest.fail(f"ended before {text!r}: {''.join(lines)}")


def check_saved(folder, printed):
    """Check that the JSON is whole and has the epochs whose lines were printed."""
    epochs = load(folder / "q2_mlp.json")["epochs"]
    saved = [(str(metrics["seed"]), str(metrics["epoch"])) for metrics in epochs]
    shown = [(line.split()[1], line.split()[3]) for line in printed if line.startswith("seed")]
    assert saved[: len(shown)] == shown


def test_interrupted_while_its_output_goes_to_tee(start, tmp_path):
    """Ctrl-C ends the reader of its output, too."""
    process = start("--epochs", FOREVER)
    printed = read_until(process.stdout, "epoch  2")
    process.send_signal(signal.SIGINT)
    process.stdout.close()
    errors = process.stderr.read()
    assert (process.wait(), errors) == (130, "")
    check_saved(tmp_path, printed)
    assert (tmp_path / "q2_mlp.png").exists()


def test_killed_in_a_later_seed(start, tmp_path):
    process = start("--epochs", 2, "--seeds", *range(1000))
    printed = read_until(process.stdout, "seed 2 epoch  1")
    process.kill()
    check_saved(tmp_path, [*printed, *process.stdout])


def test_disk_full(start, tmp_path):
    """From the second epoch on there is no room for a longer JSON."""
    import resource

    process = start("--epochs", FOREVER)
    printed = read_until(process.stdout, "epoch  2")
    room = (tmp_path / "q2_mlp.json").stat().st_size
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (room, room))
    rest, errors = process.communicate()
    assert process.returncode == 1
    assert "File too large" in errors
    check_saved(tmp_path, [*printed, *rest.splitlines()])


def test_alone_in_a_folder_and_called_from_another(tmp_path):
    """Where a matplotlibrc asks for TeX, which is not there, and the data is beside the script."""
    folder, elsewhere = tmp_path / "Übung 6 数字", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "matplotlibrc").write_text("text.usetex: True\nsavefig.dpi: 20\n")
    write_mnist(folder / "data")
    shutil.copy(ROOT / "q3_cnn.py", folder)
    result = subprocess.run(
        [sys.executable, folder / "q3_cnn.py", "--variant", "base", "--epochs", "1"],
        cwd=elsewhere,
        env={**os.environ, "PATH": ""},
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert (result.returncode, result.stderr) == (0, "")  # no progress bar either
    assert names(elsewhere) == ["matplotlibrc"]
    assert names(folder) == ["data", "plots", "q3_cnn.py"]
    assert names(folder / "plots") == ["q3_cnn_base.json", "q3_cnn_base.png"]
    image = matplotlib.image.imread(folder / "plots" / "q3_cnn_base.png")
    assert image.shape[1] >= 1400  # wide enough for a page
    assert image.std() > 0.01  # not empty


IMPORT = """
import os, signal, socket
import matplotlib.figure, matplotlib.style, numpy, torch, torchvision, tqdm

def state():
    return [
        dict(os.environ),
        dict(matplotlib.rcParams),
        matplotlib.get_backend(auto_select=False),
        socket.getdefaulttimeout(),
        torch.get_num_threads(),
        torch.get_rng_state().tolist(),
        signal.getsignal(signal.SIGINT),
    ]

before = state()
import q2_mlp, q3_cnn
print([pair for pair in zip(before, state()) if pair[0] != pair[1]])
"""


def test_importing_changes_nothing_in_the_process():
    environment = {**os.environ, "MPLBACKEND": "svg", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", IMPORT]
    output = subprocess.check_output(command, env=environment, text=True, timeout=LIMIT)
    assert output == "[]\n"
