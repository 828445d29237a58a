"""What only a process of its own can show: signals, a closed pipe, a full disk, bare folders."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from conftest import (
    OLD,
    ROOT,
    check_png,
    copy_script,
    load,
    names,
    run_script,
    script_command,
    write_mnist,
)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")

FOREVER = 10_000  # epochs


# --- alone in a folder, called from another one ---


def test_q2_alone_and_in_poor_surroundings(tmp_path):
    """Data beside it; no home, no locale, an ASCII log of a path that has other letters.

    A notebook's backend that is not there, and a user's matplotlibrc that asks for TeX.
    """
    folder, elsewhere = tmp_path / "Übung 6 数字", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "matplotlibrc").write_text("text.usetex: True\nsavefig.dpi: 20\n")
    script = copy_script("q2_mlp.py", folder)
    write_mnist(folder / "data")
    gone = ["MPLCONFIGDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "DISPLAY", "OMP_NUM_THREADS"]
    changes = dict.fromkeys([*gone, *(name for name in os.environ if name.startswith("LC_"))])
    changes |= {"HOME": "/proc/nobody", "LANG": "C", "PYTHONIOENCODING": "ascii"}
    changes |= {"MPLBACKEND": "module://matplotlib_inline.backend_inline", "PATH": ""}  # no TeX
    result = run_script(script, "--epochs", 2, "--seeds", 0, 1, cwd=elsewhere, **changes)
    assert result.returncode == 0, result.stderr
    # Matplotlib says where it keeps its fonts instead.
    assert all("matplotlib" in line.lower() for line in result.stderr.splitlines())
    assert names(elsewhere) == ["matplotlibrc"]
    assert names(folder) == ["data", "plots", "q2_mlp.py"]
    assert names(folder / "plots") == ["q2_mlp.json", "q2_mlp.png"]
    check_png(folder / "plots" / "q2_mlp.png")
    assert load(folder / "plots" / "q2_mlp.json")["environment"]["threads"] == 1
    path = str(folder.resolve() / "plots" / "q2_mlp.json")
    assert f"wrote {path.encode('ascii', 'backslashreplace').decode()}" in result.stdout


def test_q3_alone_with_the_data_at_home_and_two_threads(small_mnist, tmp_path):
    folder, elsewhere = tmp_path / "alone", tmp_path / "elsewhere"
    elsewhere.mkdir()
    script = copy_script("q3_cnn.py", folder)
    flags = ["--epochs", 1, f"--data-dir=~/{small_mnist.name}", "--threads", 2]
    result = run_script(script, *flags, cwd=elsewhere, HOME=str(small_mnist.parent))
    assert (result.returncode, result.stderr) == (0, "")  # no progress bar either
    assert "\r" not in result.stdout
    assert names(elsewhere) == []
    assert names(folder) == ["plots", "q3_cnn.py"]
    assert len(names(folder / "plots")) == 11
    assert load(folder / "plots" / "q3_cnn_bn.json")["environment"]["threads"] == 2


def test_in_a_notebook(small_mnist, tmp_path):
    """Its %run replaces standard output by an object that is no file."""
    path = str(ROOT / "q2_mlp.py")
    argv = [path, "--epochs=1", f"--data-dir={small_mnist}", f"--plots-dir={tmp_path}"]
    cell = f"""import io, runpy, sys
sys.argv = {argv}
sys.stdout = io.StringIO()
runpy.run_path({path!r}, run_name="__main__")
sys.exit(sys.stdout.getvalue())"""
    result = subprocess.run([sys.executable, "-c", cell], capture_output=True, text=True)
    assert f"wrote {tmp_path / 'q2_mlp.json'}" in result.stderr
    assert names(tmp_path) == ["q2_mlp.json", "q2_mlp.png"]


# --- ended from outside ---


@pytest.fixture
def start(small_mnist, tmp_path):
    """Return a function that starts a script which writes into tmp_path; end it after the test."""
    processes = []

    def start(script, *flags, **options):
        folders = ["--device", "cpu", "--data-dir", small_mnist, "--plots-dir", tmp_path]
        command = script_command(script, *folders, *flags)
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen(command, **pipes, **options)
        timer = threading.Timer(120, process.kill)  # one that does not stop
        timer.start()
        processes.append((process, timer))
        return process

    yield start
    for process, timer in processes:
        timer.cancel()
        process.kill()
        process.wait()


def read_until(stream, text):
    """Return the lines of the stream up to the first that has this text."""
    lines = []
    for line in stream:
        lines.append(line)
        if text in line:
            return lines
    pytest.fail(f"ended before {text!r}: {''.join(lines)}")


def check_interrupted(folder, name, printed, picture=True):
    """Check that every epoch of which a line was printed is in the JSON, and the plot beside it.

    Return how many epochs more are in the JSON.
    """
    record = load(folder / f"{name}.json")
    assert record["interrupted"] is True
    epochs = [(run["seed"], epoch["epoch"]) for run in record["runs"] for epoch in run["epochs"]]
    lines = [line.split() for line in printed if "  epoch " in line]
    shown = [(int(words[1]), int(words[3])) for words in lines]
    assert epochs[: len(shown)] == shown
    if picture:
        assert names(folder) == [f"{name}.json", f"{name}.png"]
        check_png(folder / f"{name}.png")
    return len(epochs) - len(shown)


def ignore_interrupt():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as a shell does for what it starts with &


@pytest.mark.parametrize(
    ("script", "number"), [("q2_mlp.py", signal.SIGINT), ("q3_cnn.py", signal.SIGTERM)]
)
def test_stopped_while_training(start, tmp_path, script, number):
    flags = ["--epochs", FOREVER, "--batch-size", 300]
    process = start(script, *flags, preexec_fn=ignore_interrupt)
    printed = read_until(process.stdout, "epoch  3")
    process.send_signal(number)
    printed += process.stdout.readlines()
    assert process.stderr.read() == ""
    assert process.wait() == 130
    name = "q2_mlp" if script == "q2_mlp.py" else "q3_cnn_base"
    # Between an epoch that is saved and its line there is room for a signal.
    assert check_interrupted(tmp_path, name, printed) <= 1


@pytest.mark.parametrize("stopped", [False, True])
def test_reader_of_its_output_ends(start, tmp_path, stopped):
    """As in `python q2_mlp.py | head -1`, and by Ctrl-C in `python q2_mlp.py | tee log`."""
    process = start("q2_mlp.py", "--epochs", FOREVER)
    printed = read_until(process.stdout, "epoch  2")
    if stopped:
        process.send_signal(signal.SIGINT)
    process.stdout.close()
    errors = process.stderr.read().splitlines()
    assert process.wait() == (130 if stopped else 1)
    assert ["Broken pipe" in line for line in errors] == ([] if stopped else [True])
    check_interrupted(tmp_path, "q2_mlp", printed)


@pytest.mark.parametrize("script", ["q2_mlp.py", "q3_cnn.py"])
def test_killed_in_a_later_seed(start, tmp_path, script):
    process = start(script, "--epochs", 2, "--seeds", *range(FOREVER))
    printed = read_until(process.stdout, "seed  2  epoch  1")
    (path,) = tmp_path.glob("*.json")
    seeds = len(load(path)["runs"])
    while len(load(path)["runs"]) < seeds + 3:  # their lines are not kept back either
        time.sleep(0.01)
    process.kill()
    printed += process.stdout.readlines()
    assert check_interrupted(tmp_path, path.stem, printed, picture=False) <= 1


# --- nothing to read, nowhere to write ---


def test_no_data_and_no_network(tmp_path):
    proxies = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    folders = ["--data-dir", tmp_path / "data", "--plots-dir", tmp_path / "plots"]
    result = run_script("q3_cnn.py", *folders, **proxies, no_proxy=None, NO_PROXY=None)
    (line,) = result.stderr.splitlines()
    assert result.returncode == 1
    raw = str(tmp_path / "data" / "MNIST" / "raw")
    assert "Connection refused" in line
    assert raw in line
    assert result.stdout == f"Downloading MNIST to {raw}\n"
    assert names(tmp_path / "plots") == []


@pytest.mark.parametrize("epochs", [1, 30])
def test_disk_full(small_mnist, tmp_path, epochs):
    """Room for no PNG, and for the JSON of some 15 epochs."""
    resource = pytest.importorskip("resource")
    room = 4000  # bytes
    (tmp_path / "q2_mlp.png").write_text(OLD)
    result = run_script(
        "q2_mlp.py",
        *["--epochs", epochs, "--data-dir", small_mnist, "--plots-dir", tmp_path],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
    )
    assert result.returncode == 1
    line = result.stderr.splitlines()[-1]  # matplotlib may complain before about its cache
    assert "File too large" in line
    assert "Traceback" not in result.stderr
    assert "Exception" not in result.stderr
    assert (tmp_path / "q2_mlp.png").read_text() == OLD
    record = load(tmp_path / "q2_mlp.json")  # the last that was written whole
    assert record["interrupted"] is (epochs == 30)
    assert 1 <= len(record["runs"][0]["epochs"]) < 25
