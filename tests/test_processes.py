"""What only a process of its own can show: signals, a closed pipe, a full disk, bare folders."""

import contextlib
import ctypes
import os
import select
import signal
import struct
import subprocess
import sys
import threading

import pytest
from conftest import (
    check_png,
    copy_script,
    load,
    names,
    run_script,
    script_command,
    script_environment,
    write_mnist,
)

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and named pipes of POSIX")

FOREVER = 10_000  # epochs


def complaint(result):
    """Return the only line on stderr of a script that ended with exit code 1."""
    (line,) = result.stderr.splitlines()
    assert result.returncode == 1
    return line


@pytest.fixture
def start(small_mnist, tmp_path):
    """Return a function that starts a script which writes into tmp_path; end it after the test."""
    with contextlib.ExitStack() as processes:

        def start(script, *flags, **options):
            folders = ["--device", "cpu", "--data-dir", small_mnist, "--plots-dir", tmp_path]
            process = subprocess.Popen(
                script_command(script, *folders, *flags),
                env=script_environment(),
                **{"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True} | options,
            )
            processes.enter_context(process)
            processes.callback(process.kill)
            timer = threading.Timer(200, process.kill)
            timer.start()
            processes.callback(timer.cancel)
            return process

        yield start


def read_until(stream, text):
    """Return the lines of the stream up to the first that has this text."""
    lines = []
    for line in stream:
        lines.append(line)
        if text in line:
            return lines
    pytest.fail(f"ended before {text!r}: {''.join(lines)}")


# --- alone in a folder, called from another one ---


def test_q2_alone_and_in_poor_surroundings(tmp_path):
    """Data beside it; no home, no locale, a path that is not ASCII."""
    folder, elsewhere = tmp_path / "Übung 6 数字", tmp_path / "elsewhere"
    elsewhere.mkdir()
    script = copy_script("q2_mlp.py", folder)
    write_mnist(folder / "data")
    changes = {name: None for name in ("MPLCONFIGDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")}
    changes |= {name: None for name in os.environ if name.startswith("LC_") or name == "DISPLAY"}
    flags = ["--epochs", 2, "--seeds", 0, 1]
    result = run_script(script, *flags, cwd=elsewhere, HOME="/proc/nobody", LANG="C", **changes)
    assert result.returncode == 0, result.stderr
    # Matplotlib says where it keeps its fonts instead.
    assert all("matplotlib" in line.lower() for line in result.stderr.splitlines())
    assert names(elsewhere) == []
    assert names(folder) == ["data", "plots", "q2_mlp.py"]
    assert names(folder / "plots") == ["q2_mlp.json", "q2_mlp.png"]
    check_png(folder / "plots" / "q2_mlp.png")
    assert f"wrote {folder.resolve() / 'plots' / 'q2_mlp.json'}" in result.stdout


def test_q3_alone_with_the_data_elsewhere(small_mnist, tmp_path):
    folder, elsewhere = tmp_path / "alone", tmp_path / "elsewhere"
    elsewhere.mkdir()
    script = copy_script("q3_cnn.py", folder)
    data_dir = os.path.relpath(small_mnist, elsewhere)
    result = run_script(script, "--epochs", 1, "--data-dir", data_dir, cwd=elsewhere)
    assert (result.returncode, result.stderr) == (0, "")  # no progress bar either
    assert "\r" not in result.stdout
    assert names(elsewhere) == []
    assert names(folder) == ["plots", "q3_cnn.py"]
    assert len(names(folder / "plots")) == 10


def test_progress_bar_on_a_terminal(start):
    termios = pytest.importorskip("termios", reason="a terminal to print on needs POSIX")
    import fcntl

    ours, terminal = os.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("4H", 24, 80, 0, 0))  # rows, columns
    process = start("q2_mlp.py", "--epochs", 1, stdout=subprocess.DEVNULL, stderr=terminal)
    os.close(terminal)
    shown = b""
    with contextlib.suppress(OSError):  # Linux's way to say that the other side is closed
        while chunk := os.read(ours, 65536):
            shown += chunk
    os.close(ours)
    assert process.wait() == 0
    assert b"it/s" in shown


# --- signals ---


@pytest.mark.parametrize(
    ("script", "number"), [("q2_mlp.py", signal.SIGINT), ("q3_cnn.py", signal.SIGTERM)]
)
def test_stopped_while_training(start, tmp_path, script, number):
    process = start(script, "--epochs", FOREVER, "--batch-size", 300)
    printed = read_until(process.stdout, "epoch  3")
    process.send_signal(number)
    printed += process.stdout.readlines()
    assert process.stderr.read() == ""
    assert process.wait() == 130
    name = "q2_mlp" if script == "q2_mlp.py" else "q3_cnn_base"
    assert names(tmp_path) == [f"{name}.json", f"{name}.png"]
    record = load(tmp_path / f"{name}.json")
    assert record["interrupted"] is True
    (run,) = record["runs"]
    assert [epoch["epoch"] for epoch in run["epochs"]] == list(range(1, len(run["epochs"]) + 1))
    # A signal between the two may keep a line from being printed, never an epoch from being saved.
    assert len(run["epochs"]) >= sum("  epoch " in line for line in printed) >= 3
    assert printed[-1].endswith(", interrupted\n")
    check_png(tmp_path / f"{name}.png")


def test_killed_in_the_middle_of_a_file(start, tmp_path):
    """The temporary file is a pipe here: the script waits until somebody reads what it writes."""
    for kind in "json", "png":
        (tmp_path / f"q2_mlp.{kind}").write_text("the last good one")
    flags = ["--epochs", 600, "--batch-size", 600]  # makes more than a pipe holds
    process = start("q2_mlp.py", *flags, stdout=subprocess.DEVNULL)
    pipe = tmp_path / f"q2_mlp.json.{process.pid}"
    os.mkfifo(pipe)
    with open(pipe, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as file:
        assert select.select([file], [], [], 100)[0], "nothing is written to the pipe"
        assert os.read(file.fileno(), 100).startswith(b"{")
        process.kill()
        process.communicate()
    for kind in "json", "png":
        assert (tmp_path / f"q2_mlp.{kind}").read_text() == "the last good one"


# --- nothing to read, nowhere to write ---


def test_no_data_and_no_network(tmp_path):
    proxies = {"http_proxy": "http://127.0.0.1:9", "https_proxy": "http://127.0.0.1:9"}
    folders = ["--data-dir", tmp_path / "data", "--plots-dir", tmp_path / "plots"]
    result = run_script("q3_cnn.py", *folders, **proxies, no_proxy=None, NO_PROXY=None)
    line = complaint(result)
    assert "Connection refused" in line
    assert str(tmp_path / "data" / "MNIST" / "raw") in line
    for part in "train", "t10k":
        assert f"{part}-images-idx3-ubyte" in line
        assert f"{part}-labels-idx1-ubyte" in line
    assert "--data-dir" in line
    assert result.stdout == ""
    assert names(tmp_path / "plots") == []


def obey_permissions():
    """Take from root, in a process about to start, the right to write in spite of permissions."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(24, 1, 0, 0, 0)  # PR_CAPBSET_DROP, CAP_DAC_OVERRIDE


def test_plots_folder_that_is_read_only(small_mnist, tmp_path):
    tmp_path.chmod(0o555)
    try:
        if not subprocess.run(["test", "-w", tmp_path], preexec_fn=obey_permissions).returncode:
            pytest.skip("this root may write into read-only folders")
        folders = ["--data-dir", small_mnist, "--plots-dir", tmp_path]
        result = run_script("q2_mlp.py", *folders, preexec_fn=obey_permissions)
    finally:
        tmp_path.chmod(0o755)
    assert str(tmp_path) in complaint(result)
    assert result.stdout == ""


def test_plots_folder_that_is_a_file(small_mnist, tmp_path):
    (tmp_path / "file").write_text("")
    folders = ["--data-dir", small_mnist, "--plots-dir", tmp_path / "file"]
    result = run_script("q3_cnn.py", *folders)
    assert str(tmp_path / "file") in complaint(result)
    assert result.stdout == ""


@pytest.mark.parametrize("room", [100, 10_000])  # bytes: less than the JSON, less than the PNG
def test_disk_full(small_mnist, tmp_path, room):
    resource = pytest.importorskip("resource")
    for kind in "json", "png":
        (tmp_path / f"q2_mlp.{kind}").write_text("the last good one")
    result = run_script(
        "q2_mlp.py",
        *["--epochs", 1, "--data-dir", small_mnist, "--plots-dir", tmp_path],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
    )
    assert result.returncode == 1
    line = result.stderr.splitlines()[-1]  # matplotlib may complain before about its cache
    assert "File too large" in line
    assert "Traceback" not in result.stderr
    assert "Exception" not in result.stderr
    assert (tmp_path / "q2_mlp.png").read_text() == "the last good one"
    if room == 100:
        assert (tmp_path / "q2_mlp.json").read_text() == "the last good one"
    else:
        assert load(tmp_path / "q2_mlp.json")["interrupted"] is False


def test_standard_output_closed_early(start, tmp_path):
    process = start("q2_mlp.py", "--epochs", FOREVER)
    assert process.stdout.readline().startswith("Q2: ")
    process.stdout.close()
    (line,) = process.stderr.read().splitlines()
    assert "Broken pipe" in line
    assert process.wait() == 1
    assert names(tmp_path) == []
