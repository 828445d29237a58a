"""Data that is broken or not to be had: said in one line, never trained on."""

import contextlib
import gzip
import socket
import threading
import time
import urllib.request

import pytest
from conftest import SCRIPTS, call, write_mnist

import q2_mlp
import q3_cnn

TRAIN_IMAGES, TRAIN_LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"
TEST_IMAGES, TEST_LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
FILES = [TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS]
HTML = b"<html><body>Please log in.</body></html>"


@pytest.fixture
def raw(tmp_path):
    """Return the folder of four small files, to be broken."""
    return write_mnist(tmp_path / "data", train=40, test=20) / "MNIST" / "raw"


def check_refused(raw, script):
    """Check that the script trains nothing, and says in one line what is missing where."""
    data_dir, plots_dir = raw.parent.parent, raw.parent.parent.parent / "plots"
    message, printed = call(script, data_dir, plots_dir, "--epochs", 1)
    assert isinstance(message, str)  # Python writes it to stderr and exits with 1
    assert len(message.splitlines()) == 1
    assert all(name in message for name in [f"delete {raw}", "--data-dir", *FILES])
    assert printed == []
    assert list(plots_dir.iterdir()) == []
    return message


def without_images(data):
    return data[:4] + bytes(4) + data[8:16]


def first_labels_of_fashion(data):
    return data[:8] + bytes([9, 0, 0, 3, 0]) + data[13:]


@pytest.mark.parametrize(
    ("name", "change"),
    [
        (TEST_LABELS, lambda data: b""),
        (TEST_IMAGES, lambda data: data[:-1]),
        (TRAIN_LABELS, gzip.compress),
        (TRAIN_LABELS, lambda data: HTML),
        (TRAIN_IMAGES, without_images),
        (TRAIN_IMAGES, lambda data: data[:8] + b"\0\0\0\16\0\0\0\70" + data[16:]),  # 14 x 56
        (TRAIN_LABELS, lambda data: data[:-1] + b"\n"),  # 10
        (TRAIN_LABELS, first_labels_of_fashion),
        (TEST_LABELS, first_labels_of_fashion),
    ],
)
def test_broken_file(raw, name, change):
    good = (raw / name).read_bytes()
    (raw / f"{name}.gz").write_bytes(gzip.compress(good))  # torchvision does not unpack it again
    (raw / name).write_bytes(change(good))
    check_refused(raw, q2_mlp)
    check_refused(raw, q3_cnn)


def swap(raw, one, other):
    (raw / one).rename(raw / "aside")
    (raw / other).rename(raw / one)
    (raw / "aside").rename(raw / other)


@SCRIPTS
def test_files_swapped(raw, script):
    swap(raw, TRAIN_IMAGES, TRAIN_LABELS)
    check_refused(raw, script)
    swap(raw, TRAIN_IMAGES, TRAIN_LABELS)
    swap(raw, TRAIN_IMAGES, TEST_IMAGES)
    swap(raw, TRAIN_LABELS, TEST_LABELS)
    check_refused(raw, script)


@contextlib.contextmanager
def proxy(answer):
    """Give the address of a proxy that answers any request with these bytes, or not in 2 s."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve():
            with contextlib.suppress(OSError):  # until the server is closed
                while True:
                    connection, _ = server.accept()
                    connection.recv(65536)
                    if answer is None:
                        time.sleep(2)
                    else:
                        connection.sendall(answer)
                    connection.close()

        threading.Thread(target=serve, daemon=True).start()
        yield "http://{}:{}".format(*server.getsockname())
        with contextlib.suppress(OSError):  # macOS refuses it
            server.shutdown(socket.SHUT_RDWR)


ANSWERS = [
    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(HTML), HTML),
    b"HTTP/1.1 403 Forbidden\r\n\r\n",
    None,
]


def test_download_gets_something_else_or_nothing(raw, monkeypatch):
    (raw / TRAIN_IMAGES).unlink()
    limit = socket.setdefaulttimeout
    monkeypatch.setattr(socket, "setdefaulttimeout", lambda seconds: limit(seconds / 100))
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    for answer in ANSWERS:
        limit(None)  # not for the proxy
        with proxy(answer) as address:
            monkeypatch.setenv("http_proxy", address)
            monkeypatch.setenv("https_proxy", address)
            urllib.request.install_opener(None)  # which keeps the proxy of its first use
            check_refused(raw, q2_mlp)
            # What the first left behind does not help the second.
            message = check_refused(raw, q3_cnn)
            assert "refused" not in message
            assert ("timed out" in message) == (answer is None)
    limit(None)
    urllib.request.install_opener(None)
