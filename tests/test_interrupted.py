"""Runs that are stopped, killed, disturbed or short of room: what was measured is kept, whole."""

import argparse
import contextlib
import json
import os
import re
import select
import signal
import subprocess
import threading
import time

import matplotlib.image
import pytest
from conftest import (
    complaint,
    copy_script,
    read_only,
    run_script,
    script_command,
    script_environment,
    write_mnist,
)

import q2_mlp

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals and named pipes of POSIX")

FOREVER = 10**9  # epochs


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture
def start(small_mnist, tmp_path):
    """Return a function that starts a script which writes into tmp_path; end it after the test."""
    with contextlib.ExitStack() as processes:

        def start(script, *flags, data_dir=small_mnist):
            process = subprocess.Popen(
                script_command(script, *flags, "--data-dir", data_dir, "--plots-dir", tmp_path),
                env=script_environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
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


def block(process, path):
    """Make the temporary file of this process a pipe: it waits until somebody reads what it writes.

    With that the moments while it saves can be tested without depending on speed.
    """
    pipe = path.with_name(f"{path.name}.{process.pid}")
    os.mkfifo(pipe)
    return pipe


@contextlib.contextmanager
def opened_when_written(pipe):
    """Give the pipe as a file, once the process has begun to write."""
    with open(pipe, "rb", opener=lambda path, flags: os.open(path, flags | os.O_NONBLOCK)) as file:
        assert select.select([file], [], [], 100)[0], f"nothing is written to {pipe.name}"
        os.set_blocking(file.fileno(), True)
        yield file


def check_interrupted(folder, name, printed):
    """Check that JSON and PNG are whole and have the finished epochs; there is nothing else."""
    record = json.loads((folder / f"{name}.json").read_text())
    assert record["interrupted"] is True
    (run,) = record["runs"]
    assert [epoch["epoch"] for epoch in run["epochs"]] == list(range(1, len(run["epochs"]) + 1))
    # A signal between the two may keep a line from being printed, never an epoch from being saved.
    assert len(run["epochs"]) >= sum("  epoch " in line for line in printed) > 0
    last = run["epochs"][-1]
    (final,) = (line for line in printed if line.startswith("test accuracy"))
    assert final.startswith(f"test accuracy {100 * last['test_accuracy']:.2f} %")
    assert final.endswith(", interrupted\n")
    assert matplotlib.image.imread(folder / f"{name}.png").std() > 0.01


# --- Ctrl-C and SIGTERM ---


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_in_an_epoch(start, tmp_path, number, code):
    process = start("q2_mlp.py", "--epochs", FOREVER)
    printed = read_until(process.stdout, "epoch  3")
    process.send_signal(number)
    printed += process.stdout.readlines()
    assert process.stderr.read() == "Interrupted: saving the finished epochs.\n"
    assert process.wait() == code
    check_interrupted(tmp_path, "q2_mlp", printed)
    assert names(tmp_path) == ["q2_mlp.json", "q2_mlp.png"]


def test_interrupted_in_the_second_variant(start, tmp_path):
    process = start("q3_cnn.py", "--epochs", 15)
    printed = read_until(process.stdout, "wrote")
    printed = read_until(process.stdout, "epoch  1")
    process.send_signal(signal.SIGINT)
    printed += process.stdout.readlines()
    assert process.wait() == 130
    assert json.loads((tmp_path / "q3_cnn_base.json").read_text())["interrupted"] is False
    check_interrupted(tmp_path, "q3_cnn_reg", printed)
    assert names(tmp_path) == [
        f"q3_cnn_{variant}.{kind}" for variant in ("base", "reg") for kind in ("json", "png")
    ]


def test_interrupted_in_the_first_epoch_leaves_the_last_files(start, tmp_path):
    for kind in "json", "png":
        (tmp_path / f"q3_cnn_bn.{kind}").write_text("the last good one")
    data = write_mnist(tmp_path / "data", train=20_000)
    process = start("q3_cnn.py", "--variant", "bn", data_dir=data)
    read_until(process.stdout, "CNN with batch norm")
    process.send_signal(signal.SIGINT)
    assert process.stdout.read() == ""
    assert process.wait() == 130
    for kind in "json", "png":
        assert (tmp_path / f"q3_cnn_bn.{kind}").read_text() == "the last good one"
    assert names(tmp_path) == ["data", "q3_cnn_bn.json", "q3_cnn_bn.png"]


def test_second_ctrl_c_ends_at_once(start, tmp_path):
    process = start("q2_mlp.py", "--epochs", FOREVER)
    block(process, tmp_path / "q2_mlp.png")  # nobody reads: it would save forever
    read_until(process.stdout, "epoch  1")
    process.send_signal(signal.SIGINT)
    read_until(process.stderr, "Interrupted")
    process.send_signal(signal.SIGINT)
    assert process.stderr.read() == ""
    assert process.wait() == -signal.SIGINT


def test_ctrl_c_while_a_finished_run_is_saved(start, tmp_path):
    process = start("q2_mlp.py", "--epochs", 1)
    pipe = block(process, tmp_path / "q2_mlp.png")
    with opened_when_written(pipe) as file:
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        assert file.read().startswith(b"\x89PNG")
    assert process.stderr.read() == ""
    assert process.wait() == 0
    assert json.loads((tmp_path / "q2_mlp.json").read_text())["interrupted"] is False


# --- files are replaced whole ---


def test_killed_in_the_middle_of_a_file(start, tmp_path):
    for kind in "json", "png":
        (tmp_path / f"q2_mlp.{kind}").write_text("the last good one")
    process = start("q2_mlp.py", "--epochs", 1)
    pipe = block(process, tmp_path / "q2_mlp.png")
    with opened_when_written(pipe) as file:
        file.read(100)
        process.kill()
        process.wait()
    for kind in "json", "png":
        assert (tmp_path / f"q2_mlp.{kind}").read_text() == "the last good one"


def check_same_run(folder, record, tmp_path):
    """Check that the PNG in the folder is drawn from this record."""
    args = argparse.Namespace(plots_dir=tmp_path, validate=False)
    q2_mlp.save(args, "drawn again", q2_mlp.plot(record))
    assert (folder / "q2_mlp.png").read_bytes() == (tmp_path / "drawn again.png").read_bytes()


def test_two_runs_at_once(start, run_forked, small_mnist, tmp_path, tmp_path_factory):
    """The one saves while the other is between its two files: no mixture, before and after."""
    first = start("q2_mlp.py", "--epochs", 1, "--seeds", 1)
    pipe = block(first, tmp_path / "q2_mlp.json")
    deadline = time.monotonic() + 100
    while len(names(tmp_path)) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    folders = ["--data-dir", small_mnist, "--plots-dir", tmp_path]
    assert run_forked("q2_mlp.py", "--epochs", 1, "--seeds", 2, *folders).returncode == 0
    record = json.loads((tmp_path / "q2_mlp.json").read_text())
    assert record["runs"][0]["seed"] == 2
    check_same_run(tmp_path, record, tmp_path_factory.mktemp("again"))

    with opened_when_written(pipe) as file:
        record = json.loads(file.read())
    assert first.wait() == 0
    assert record["runs"][0]["seed"] == 1
    check_same_run(tmp_path, record, tmp_path_factory.mktemp("again"))
    assert names(tmp_path) == ["q2_mlp.json", "q2_mlp.png"]


# --- a loss that is not finite ---


@pytest.mark.parametrize(
    ("script", "flags", "name"),
    [
        ("q2_mlp.py", [], "q2_mlp"),
        ("q3_cnn.py", ["--variant", "base"], "q3_cnn_base"),
        ("q3_cnn.py", ["--variant", "reg"], "q3_cnn_reg"),
        ("q3_cnn.py", ["--variant", "bn"], "q3_cnn_bn"),
    ],
)
def test_diverged_in_the_first_epoch(run_forked, small_mnist, tmp_path, script, flags, name):
    (tmp_path / f"{name}.json").write_text("the last good one")
    folders = ["--data-dir", small_mnist, "--plots-dir", tmp_path]
    result = run_forked(script, *flags, "--lr", 1e6, *folders)
    line = complaint(result)
    assert line.startswith("Training diverged, try a smaller --lr: seed  0  epoch  1  ")
    assert "loss nan" in line
    assert "epoch" not in result.stdout.split("\n", 1)[1]
    assert names(tmp_path) == [f"{name}.json"]
    assert (tmp_path / f"{name}.json").read_text() == "the last good one"


def test_diverged_later(run_forked, small_mnist, tmp_path):
    # One step per epoch: the second has huge weights, and the loss before it is still finite.
    flags = ["--lr", 1e6, "--batch-size", 600, "--seeds", 4, 5]
    folders = ["--data-dir", small_mnist, "--plots-dir", tmp_path]
    result = run_forked("q2_mlp.py", *flags, *folders)
    assert re.search(r"diverged.* seed  4 +epoch +\d+ .* loss nan", complaint(result))
    check_interrupted(tmp_path, "q2_mlp", result.stdout.splitlines(keepends=True))


def test_only_the_test_loss_is_not_finite(run_forked, small_mnist, tmp_path):
    # The only training loss is that before the only step.
    flags = ["--lr", 1e38, "--batch-size", 600, "--epochs", 1]
    folders = ["--data-dir", small_mnist, "--plots-dir", tmp_path]
    line = complaint(run_forked("q2_mlp.py", *flags, *folders))
    assert re.search(r"diverged.* train loss 2\..* test loss nan", line)


# --- nowhere to write ---


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/plots"])
def test_plots_folder_that_cannot_be(run_forked, small_mnist, tmp_path, place):
    (tmp_path / "file").write_text("")
    folders = ["--data-dir", small_mnist, "--plots-dir", tmp_path / place]
    result = run_forked("q2_mlp.py", *folders)
    start = f"Can't write into the folder {tmp_path / place} of --plots-dir: "
    assert complaint(result).startswith(start)
    assert result.stdout == ""


def test_plots_folder_that_is_read_only(small_mnist, tmp_path):
    folders = ["--data-dir", small_mnist, "--plots-dir", tmp_path]
    with read_only(tmp_path) as preexec_fn:
        result = run_script("q2_mlp.py", *folders, preexec_fn=preexec_fn)
    line = complaint(result)
    assert line.startswith(f"Can't write into the folder {tmp_path} of --plots-dir: ")
    assert "Permission denied" in line
    assert result.stdout == ""


def test_disk_full_before_training(small_mnist, tmp_path):
    resource = pytest.importorskip("resource")
    folders = ["--data-dir", small_mnist, "--plots-dir", tmp_path]
    result = run_script(
        "q2_mlp.py",
        *folders,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000)),
    )
    assert result.returncode == 1
    assert result.stdout == ""
    line = result.stderr.splitlines()[-1]  # matplotlib may complain before about its cache
    assert line.startswith(f"Can't write into the folder {tmp_path} of --plots-dir: ")
    assert "File too large" in line


def test_disk_full_after_training(start, tmp_path):
    resource = pytest.importorskip("resource")
    if not hasattr(resource, "prlimit"):
        pytest.skip("needs Linux's prlimit")
    for kind in "json", "png":
        (tmp_path / f"q2_mlp.{kind}").write_text("the last good one")
    process = start("q2_mlp.py", "--epochs", FOREVER)
    read_until(process.stdout, "epoch  1")
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1000, 1000))
    process.terminate()
    assert any(line.startswith("test accuracy") for line in process.stdout)
    line = process.stderr.readlines()[-1]
    assert line.startswith(f"Can't write {tmp_path / 'q2_mlp'}.*: [Errno 27] File too large")
    assert process.wait() == 1
    for kind in "json", "png":
        assert (tmp_path / f"q2_mlp.{kind}").read_text() == "the last good one"
    assert names(tmp_path) == ["q2_mlp.json", "q2_mlp.png"]


# --- surroundings ---


def test_standard_output_closed_early(start):
    process = start("q2_mlp.py", "--epochs", FOREVER)
    assert process.stdout.readline().startswith("MLP 784-200-200-10 on ")
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == -signal.SIGPIPE


@pytest.mark.parametrize("home", [None, "/proc/nobody"])
def test_poor_surroundings(tmp_path, home):
    """No home, no MPLCONFIGDIR, no locale, a path that is not ASCII, a read-only working folder."""
    folder, elsewhere = tmp_path / "Übung 6 数字", tmp_path / "elsewhere"
    elsewhere.mkdir()
    script = copy_script("q2_mlp.py", folder)
    write_mnist(folder / "data")
    changes = {name: None for name in ("MPLCONFIGDIR", "XDG_CONFIG_HOME", "XDG_CACHE_HOME")}
    changes |= {name: None for name in os.environ if name.startswith("LC_") or name == "DISPLAY"}
    with read_only(elsewhere) as preexec_fn:
        result = run_script(
            script,
            "--epochs",
            1,
            cwd=elsewhere,
            preexec_fn=preexec_fn,
            HOME=home,
            LANG="C",
            **changes,
        )
    assert result.returncode == 0, result.stderr
    # Matplotlib says where it keeps its fonts instead.
    assert all("matplotlib" in line.lower() for line in result.stderr.splitlines())
    assert names(folder / "plots") == ["q2_mlp.json", "q2_mlp.png"]
    assert str(folder / "plots" / "q2_mlp.json") in result.stdout
