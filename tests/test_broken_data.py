"""Data that is missing, can't be downloaded or is broken: said in one line, never trained on."""

import contextlib
import gzip
import json
import shutil
import signal
import socket
import subprocess
import threading

import numpy as np
import pytest
from conftest import (
    ROOT,
    complaint,
    read_only,
    run_script,
    script_command,
    script_environment,
    write_idx,
)

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
FILES = [TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS]


def proxied(address):
    """Return the changes of the environment that send every download through this proxy."""
    proxies = {"http_proxy": f"http://{address}", "https_proxy": f"http://{address}"}
    return {**proxies, "no_proxy": None, "NO_PROXY": None}


OFFLINE = proxied("127.0.0.1:9")  # nobody listens there


@contextlib.contextmanager
def proxy(answer, hangs=False):
    """Give the address of a proxy that answers any request with these bytes, and may hang then."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        connections = []

        def serve():
            with contextlib.suppress(OSError):  # until the server is closed
                while True:
                    connections.append(server.accept()[0])
                    connections[-1].recv(65536)
                    connections[-1].sendall(answer)
                    if not hangs:
                        connections.pop().close()

        threading.Thread(target=serve, daemon=True).start()
        yield "{}:{}".format(*server.getsockname())
        with contextlib.suppress(OSError):  # macOS refuses it
            server.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def raw(small_mnist, tmp_path):
    """Return the folder of a copy of the four files, to be broken."""
    shutil.copytree(small_mnist, tmp_path / "data")
    return tmp_path / "data" / "MNIST" / "raw"


@pytest.fixture
def run(run_forked, tmp_path):
    """Return a function that runs a script on the copy and checks that nothing was trained."""

    def run(*command, **changes):
        folders = ["--data-dir", tmp_path / "data", "--plots-dir", tmp_path / "plots"]
        result = run_forked(*(command or ["q2_mlp.py"]), *folders, **(OFFLINE | changes))
        assert result.stdout == ""
        assert list((tmp_path / "plots").iterdir()) == []
        return result

    return run


def check_missing(line, raw):
    """Check that the message names folder, files and flag."""
    assert line.startswith(f"Can't read MNIST from {raw} or download it")
    assert all(name in line for name in [*FILES, "--data-dir"])


# --- missing, and not to be had ---


@pytest.mark.parametrize("missing", [FILES, [TEST_LABELS]], ids=["all", "one"])
@pytest.mark.parametrize("script", ["q2_mlp.py", "q3_cnn.py"])
def test_missing_and_no_network(run, raw, script, missing):
    for name in missing:
        (raw / name).unlink()
    line = complaint(run(script))
    check_missing(line, raw)
    assert "Connection refused" in line


HTML = b"<html><body>Please log in.</body></html>"
ANSWERS = {
    "HTML page": b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(HTML), HTML),
    "half a page": b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\n%s" % HTML,
    "forbidden": b"HTTP/1.1 403 Forbidden\r\n\r\n",
    "redirected to itself": b"HTTP/1.1 302 Found\r\nLocation: /\r\n\r\n",
    "not HTTP": b"220 mail.example.org\r\n",
    "nothing": b"",
}


@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS)
def test_proxy_answers_with_something_else(run, raw, answer):
    (raw / TRAIN_IMAGES).unlink()
    with proxy(answer) as address:
        for _ in range(2):  # what the first download left behind does not help the second
            result = run(**proxied(address))
            *progress, line = result.stderr.splitlines()
            assert result.returncode == 1
            assert all("B/s]" in text for text in progress if text)
            check_missing(line, raw)


@pytest.mark.parametrize("address", ["127.0.0.1:port", "[", "\n"])
def test_malformed_proxy(run, raw, address):
    (raw / TRAIN_IMAGES).unlink()
    check_missing(complaint(run(**proxied(address))), raw)


# The script's seconds are hundredths here.
HURRY = """
import runpy, socket, sys
set_timeout = socket.setdefaulttimeout
socket.setdefaulttimeout = lambda seconds: set_timeout(seconds / 100)
del sys.argv[0]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


@pytest.mark.parametrize("answer", ["nothing", "half a page"])
def test_mirror_hangs(run, raw, tmp_path, answer):
    (raw / TRAIN_IMAGES).unlink()
    (tmp_path / "hurry.py").write_text(HURRY)
    with proxy(ANSWERS[answer], hangs=True) as address:
        result = run(tmp_path / "hurry.py", ROOT / "q2_mlp.py", **proxied(address))
    assert result.returncode == 1
    line = result.stderr.splitlines()[-1]  # after the progress bar
    check_missing(line, raw)
    assert "timed out" in line


def test_interrupted_download(raw, tmp_path):
    (raw / TRAIN_IMAGES).unlink()
    folders = ["--data-dir", tmp_path / "data", "--plots-dir", tmp_path / "plots"]
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(60)
        process = subprocess.Popen(
            script_command("q2_mlp.py", *folders),
            env=script_environment(**proxied("{}:{}".format(*server.getsockname()))),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        with server.accept()[0]:
            process.send_signal(signal.SIGINT)
            assert process.communicate(timeout=60) == (b"", None)
    assert process.returncode == -signal.SIGINT


# --- broken ---


def read(path):
    """Return the array of an IDX file."""
    data = path.read_bytes()
    shape = np.frombuffer(data, ">u4", data[3], offset=4)
    return np.frombuffer(data, np.uint8, offset=4 + 4 * data[3]).reshape(shape)


BREAKS = {
    "empty": lambda data: b"",
    "3 bytes": lambda data: data[:3],
    "5 bytes": lambda data: data[:5],
    "nothing after the header": lambda data: data[: 4 + 4 * data[3]],
    "truncated": lambda data: data[:-1],
    "too long": lambda data: data + b"\0",
    "wrong type of numbers": lambda data: b"\0\0\x0d" + data[3:],
    "wrong number of dimensions": lambda data: data[:3] + b"\2" + data[4:],
    "count too high": lambda data: data[:7] + bytes([data[7] + 1]) + data[8:],
    "count 0": lambda data: data[:4] + bytes(4) + data[8 : 4 + 4 * data[3]],
    "gzipped": gzip.compress,
    "a web page": lambda data: HTML,
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("change", BREAKS.values(), ids=BREAKS)
def test_broken_file(run, raw, name, change):
    path = raw / name
    path.write_bytes(change(path.read_bytes()))
    message = f"{path} is broken. Delete it, and the next run downloads it again."
    assert complaint(run()) == message


def test_images_of_another_size(run, raw):
    write_idx(raw / TRAIN_IMAGES, np.zeros((600, 14, 56), np.uint8))
    assert f"{raw / TRAIN_IMAGES} is broken." in complaint(run())


def test_broken_file_in_a_process_of_its_own(raw, tmp_path):
    (raw / TEST_LABELS).write_bytes(b"")
    folders = ["--data-dir", tmp_path / "data", "--plots-dir", tmp_path / "plots"]
    assert f"{raw / TEST_LABELS} is broken." in complaint(run_script("q3_cnn.py", *folders))


def test_folder_in_place_of_a_file(run, raw):
    (raw / TRAIN_IMAGES).unlink()
    (raw / TRAIN_IMAGES).mkdir()
    line = complaint(run())
    check_missing(line, raw)
    assert f"Is a directory: '{raw / TRAIN_IMAGES}'" in line


@pytest.mark.parametrize("labels", [TRAIN_LABELS, TEST_LABELS])
@pytest.mark.parametrize("change", [lambda y: y[:-1], lambda y: np.append(y, y[:1])])
def test_images_and_labels_of_different_length(run, raw, labels, change):
    write_idx(raw / labels, change(read(raw / labels)))
    message = f"{raw / labels}: not one digit per image. Delete both files to download them again."
    assert complaint(run()) == message


@pytest.mark.parametrize("labels", [TRAIN_LABELS, TEST_LABELS])
def test_label_above_9(run, raw, labels):
    digits = read(raw / labels).copy()
    digits[-1] = 10
    write_idx(raw / labels, digits)
    message = f"{raw / labels}: not one digit per image. Delete both files to download them again."
    assert complaint(run()) == message


def swap(raw, *pairs):
    for one, other in pairs:
        (raw / one).rename(raw / "aside")
        (raw / other).rename(raw / one)
        (raw / "aside").rename(raw / other)


def test_train_and_test_files_swapped(run, raw):
    swap(raw, (TRAIN_IMAGES, TEST_IMAGES), (TRAIN_LABELS, TEST_LABELS))
    message = f"The train and t10k files in {raw.parent.parent} are swapped."
    assert message in complaint(run())


def test_train_and_test_images_swapped(run, raw):
    swap(raw, (TRAIN_IMAGES, TEST_IMAGES))
    assert "not one digit per image" in complaint(run())


def test_images_and_labels_swapped(run, raw):
    swap(raw, (TRAIN_IMAGES, TRAIN_LABELS))
    assert f"{raw / TRAIN_IMAGES} is broken." in complaint(run())


# --- good, and not to be written to ---


def test_read_only_data_folder(raw, tmp_path):
    flags = ["--epochs", 1, "--data-dir", tmp_path / "data", "--plots-dir", tmp_path / "plots"]
    with read_only(raw, raw.parent, tmp_path / "data") as preexec_fn:
        result = run_script("q2_mlp.py", *flags, preexec_fn=preexec_fn)
    assert (result.returncode, result.stderr) == (0, "")
    assert json.loads((tmp_path / "plots" / "q2_mlp.json").read_text())["runs"]
