"""MNIST with a 784-200-200-10 ReLU network (question 2 of the homework).

    python q2_mlp.py                      train on 60,000 images, report on the 10,000 test images
    python q2_mlp.py --validate           train on 50,000, report on the 10,000 held out of training
    python q2_mlp.py --seeds 0 1 2 3 4    five runs, reported as mean and spread

Writes plots/q2_mlp.png and plots/q2_mlp.json beside this file. The loops are those of the PyTorch
basics tutorial, https://pytorch.org/tutorials/beginner/basics/optimization_tutorial.html
"""

# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.6", "torchvision>=0.21", "matplotlib>=3.8", "numpy>=1.26", "tqdm>=4.66"]
# ///

import argparse
import contextlib
import ctypes
import io
import json
import math
import os
import platform
import signal
import socket
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from http.client import HTTPException
from itertools import zip_longest
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # draws into files, so that no display is needed
import matplotlib.pyplot as plt
import numpy as np
import torch
import torchvision
from matplotlib.ticker import FixedLocator, MaxNLocator, NullLocator
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from tqdm import tqdm

# ---------------------------------------------------------------- hyperparameters

# One row per variant; chosen with --validate, see the README. What a row leaves out is off.
HYPERPARAMETERS = {
    "base": {"epochs": 20, "batch_size": 64, "lr": 0.1},  # those of question 2
    "reg": {"epochs": 20, "batch_size": 64, "lr": 0.1, "weight_decay": 1e-4, "dropout": 0.5},
    "bn": {
        "epochs": 40,
        "batch_size": 128,
        "lr": 0.1,  # the peak of the one-cycle schedule
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "dropout": 0.1,
        "label_smoothing": 0.05,
        "rotation": 10,  # largest random turn, degrees
        "shift": 2,  # pixels
        "scale": 0.1,
        "shear": 5,  # degrees
        "averaging": 0,
        "batch_norm": True,
        "one_cycle": True,
    },
}

HELD_OUT = 10_000  # with --validate: as many images as the test set has
EVAL_BATCH_SIZE = 500  # no effect on the figures: large enough to be fast, small enough for memory

# ---------------------------------------------------------------- data


def check_idx(path, shape):
    """Exit unless the file is a whole IDX file of bytes in `shape`, whose first entry is any count.

    The format is that of the MNIST page: a magic number that ends in the number of dimensions,
    the size of each as a big-endian 32-bit integer, then the values.
    """
    header = [int(number) for number in np.fromfile(path, dtype=">u4", count=1 + len(shape))]
    magic = 0x0800 + len(shape)
    size = 4 * len(header) + math.prod(header[1:])
    if header[:1] != [magic] or header[2:] != list(shape[1:]) or path.stat().st_size != size:
        sys.exit(f"{path} is broken. Delete it, and the next run downloads it again.")


def load_mnist(data_dir, train, device):
    """Return images (N, 28, 28) uint8 and labels (N,) int64 of one part of MNIST, on `device`.

    Exits with a message if the files are not there and can't be downloaded, or are broken.
    """
    raw = Path(data_dir) / "MNIST" / "raw"
    part = "train" if train else "t10k"
    images, labels = raw / f"{part}-images-idx3-ubyte", raw / f"{part}-labels-idx1-ubyte"
    for path, shape in (images, (None, 28, 28)), (labels, (None,)):
        if path.exists():  # torchvision downloads what is missing, but trusts what is there
            check_idx(path, shape)
    socket.setdefaulttimeout(10)  # seconds, so that a mirror that hangs is given up
    try:
        with contextlib.redirect_stdout(None):
            dataset = torchvision.datasets.MNIST(data_dir, train=train, download=True)
    except (OSError, RuntimeError, HTTPException) as error:
        sys.exit(
            f"MNIST is not in {raw} and can't be downloaded ({error}). Put the files "
            "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and "
            "t10k-labels-idx1-ubyte there, or name the folder above MNIST/raw with --data-dir."
        )
    if len(dataset.data) != len(dataset.targets) or dataset.targets.max() > 9:
        sys.exit(
            f"{labels} does not fit {images}: it must hold one digit from 0 to 9 for each image. "
            "Delete both, and the next run downloads them again."
        )
    return dataset.data.to(device), dataset.targets.to(device)


def load_data(parser, args):
    """Return (images, labels) to train on and (images, labels) to report on.

    With --validate the latter are the last training images, and the test set is not read.
    """
    images, labels = load_mnist(args.data_dir, True, args.device)
    if args.validate:
        if len(labels) <= HELD_OUT:
            sys.exit(f"--validate needs more than {HELD_OUT} training images, not {len(labels)}.")
        train_data = images[:-HELD_OUT], labels[:-HELD_OUT]
        test_data = images[-HELD_OUT:], labels[-HELD_OUT:]
    else:
        train_data, test_data = (images, labels), load_mnist(args.data_dir, False, args.device)
        if len(test_data[1]) > len(labels):
            sys.exit(
                f"In {args.data_dir} the test files (t10k-*) hold more images than the training "
                "files: they are swapped. Delete all four, and the next run downloads them again."
            )
    if args.batch_size and args.batch_size > len(train_data[1]):
        parser.error(f"argument --batch-size: at most {len(train_data[1])}, the training images")
    return train_data, test_data


def batches(data, batch_size, order=None):
    """Yield X (B, 1, 28, 28) float32 in [0, 1], what ToTensor makes of the images, and y (B,).

    The images are taken in `order`, a permutation of their indices, else as they come.
    """
    images, labels = data
    order = torch.arange(len(labels)) if order is None else order
    # On a terminal only: disable=None.
    for index in tqdm(order.to(images.device).split(batch_size), leave=False, disable=None):
        yield images[index].unsqueeze(1) / 255, labels[index]


# ---------------------------------------------------------------- model


class NeuralNetwork(nn.Module):
    """The CNN of the sheet; X (B, 1, 28, 28) to logits (B, 10).

    With `batch_norm` a batch normalisation follows each ReLU; with `dropout` that share of the
    inputs of both linear layers is zeroed in training.
    """

    def __init__(self, batch_norm=False, dropout=0.0):
        super().__init__()
        norm2d = nn.BatchNorm2d if batch_norm else nn.Identity
        norm1d = nn.BatchNorm1d if batch_norm else nn.Identity
        self.convolutions = nn.Sequential(
            nn.Conv2d(1, 20, kernel_size=4, stride=1),  # 28 x 28 -> 25 x 25
            nn.ReLU(),
            norm2d(20),
            nn.Conv2d(20, 20, kernel_size=4, stride=2),  # -> 11 x 11
            nn.ReLU(),
            norm2d(20),
            nn.MaxPool2d(2),  # -> 5 x 5
        )
        self.linears = nn.Sequential(
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(20 * 5 * 5, 250),
            nn.ReLU(),
            norm1d(250),
            nn.Dropout(dropout),
            nn.Linear(250, 10),
        )

    def forward(self, X):
        return self.linears(self.convolutions(X))


# ---------------------------------------------------------------- training


def train_loop(batches, model, loss_fn, optimizer):
    """Train for one epoch; return the mean loss (nats) and the accuracy while it went on."""
    model.train()
    size, train_loss, correct = 0, 0, 0
    for X, y in batches:
        logits = model(X)
        loss = loss_fn(logits, y)

        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

        # The sums stay on the device: .item() here would make a GPU wait for every batch.
        size += len(y)
        train_loss += loss.detach() * len(y)
        correct += (logits.argmax(1) == y).sum()
    return train_loss.item() / size, correct.item() / size


@torch.inference_mode()
def test_loop(batches, model, loss_fn):
    """Return the mean loss (nats) and the accuracy over the samples of all batches."""
    model.eval()
    size, test_loss, correct = 0, 0, 0
    for X, y in batches:
        logits = model(X)
        size += len(y)
        # Weighted by its size: a mean of batch means would count a small last batch too much.
        test_loss += loss_fn(logits, y) * len(y)
        correct += (logits.argmax(1) == y).sum()
    return test_loss.item() / size, correct.item() / size


def random_affine(X, rotation, shift, scale, shear):
    """Return X (B, 1, H, W) with each image turned, moved, zoomed and sheared at random.

    Each amount is uniform between minus and plus its limit: `rotation` and `shear` in degrees,
    `shift` in pixels, `scale` as a share of the size. What comes in from outside is black.
    """

    def uniform(limit):
        return limit * (2 * torch.rand(len(X), device=X.device) - 1)

    angle, slant = uniform(math.radians(rotation)), uniform(math.radians(shear)).tan()
    zoom = 1 + uniform(scale)
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    right, down = uniform(2 * shift / X.shape[3]), uniform(2 * shift / X.shape[2])
    rows = [cos, slant * cos - sin, right, sin, slant * sin + cos, down]
    theta = torch.stack(rows, dim=1).view(-1, 2, 3)
    grid = F.affine_grid(theta, X.shape, align_corners=False)
    return F.grid_sample(X, grid, align_corners=False)


def train(run, settings, train_data, test_data, device):
    """Train one network from the seed in `run`; yield the figures of train and test per epoch."""
    on = defaultdict(float, settings)  # what the variant leaves out is 0: off
    torch.manual_seed(run["seed"])
    shuffle = torch.Generator().manual_seed(run["seed"])  # its own: nothing else draws from it
    model = NeuralNetwork(on["batch_norm"], on["dropout"]).to(device)
    if not on["batch_norm"] or torch.get_num_threads() == 1:
        # Makes the convolutions faster, but batch norm with several threads slower.
        model = model.to(memory_format=torch.channels_last)
    loss_fn = nn.CrossEntropyLoss(label_smoothing=on["label_smoothing"])
    optimizer = torch.optim.SGD(
        model.parameters(),
        lr=on["lr"],
        momentum=on["momentum"],
        nesterov=on["momentum"] > 0,
        weight_decay=on["weight_decay"],
    )
    if on["one_cycle"]:
        steps = math.ceil(len(train_data[1]) / on["batch_size"])
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, on["lr"], epochs=on["epochs"], steps_per_epoch=steps, cycle_momentum=False
        )
        # As hooks of the optimizer, so that the loop stays that of question 2.
        optimizer.register_step_post_hook(lambda *_: scheduler.step())
    tested = model
    if on["averaging"]:
        tested = AveragedModel(
            model, multi_avg_fn=get_ema_multi_avg_fn(on["averaging"]), use_buffers=True
        )
        optimizer.register_step_post_hook(lambda *_: tested.update_parameters(model))
    affine = [on[key] for key in ("rotation", "shift", "scale", "shear")]
    for _ in range(on["epochs"]):
        order = torch.randperm(len(train_data[1]), generator=shuffle)
        train_batches = batches(train_data, on["batch_size"], order)
        if any(affine):
            train_batches = ((random_affine(X, *affine), y) for X, y in train_batches)
        train_figures = train_loop(train_batches, model, loss_fn, optimizer)
        test_batches = batches(test_data, EVAL_BATCH_SIZE)
        yield train_figures, test_loop(test_batches, tested, nn.CrossEntropyLoss())


def run_seeds(record, args, train_data, test_data):
    """Train once per seed, print a line per epoch, and save what was measured, however it ends."""
    settings, split = record["hyperparameters"], record["split"]
    name = Path(record["script"]).stem + (f"_{record['variant']}" if record["variant"] else "")
    print(f"{name} on {args.device}: {record['parameters']:,} parameters, {settings}", flush=True)
    try:
        for seed in args.seeds:
            run = {"seed": seed, "epochs": []}
            record["runs"].append(run)
            start = time.perf_counter()
            for train_figures, test_figures in train(
                run, settings, train_data, test_data, args.device
            ):
                epoch = {"epoch": len(run["epochs"]) + 1}
                epoch["train_loss"], epoch["train_accuracy"] = train_figures
                epoch[f"{split}_loss"], epoch[f"{split}_accuracy"] = test_figures
                epoch["seconds"] = time.perf_counter() - start
                if not math.isfinite(train_figures[0] + test_figures[0]):
                    sys.exit(
                        f"The loss is not finite in epoch {epoch['epoch']} (train loss "
                        f"{train_figures[0]}): training diverged. Try a smaller --lr."
                    )
                run["epochs"].append(epoch)
                print(
                    f"seed {seed}  epoch {epoch['epoch']:3}/{settings['epochs']}  "
                    f"train loss {epoch['train_loss']:.4f}  "
                    f"train accuracy {100 * epoch['train_accuracy']:6.2f} %  "
                    f"{split} loss {epoch[f'{split}_loss']:.4f}  "
                    f"{split} accuracy {100 * epoch[f'{split}_accuracy']:6.2f} %  "
                    f"{epoch['seconds']:5.1f} s",
                    flush=True,
                )
                start = time.perf_counter()
        record["interrupted"] = False
    finally:
        record["runs"] = [run for run in record["runs"] if run["epochs"]]
        if record["runs"]:
            print(f"{name}: {final_figures(record)}", flush=True)
            suffix = "_validate" if args.validate else ""
            contents = {".json": json.dumps(record, indent=1).encode(), ".png": plot_run(record)}
            save(args.plots_dir / f"{name}{suffix}", contents)


def stop(signum, frame):
    """End the training at the first Ctrl-C or SIGTERM, so that it saves, and all at the second."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    print("\nInterrupted: saving the finished epochs.", file=sys.stderr, flush=True)
    sys.exit(128 + signum)


# ---------------------------------------------------------------- plots


def last_epochs(record, key):
    """Return `key` at the last epoch, never the best one, of each run that got furthest."""
    length = max(len(run["epochs"]) for run in record["runs"])
    return [run["epochs"][-1][key] for run in record["runs"] if len(run["epochs"]) == length]


def final_figures(record):
    """Return the final figures in words: with several seeds mean ± sample standard deviation."""
    split = record["split"]
    accuracies = [100 * value for value in last_epochs(record, f"{split}_accuracy")]
    loss = statistics.mean(last_epochs(record, f"{split}_loss"))
    text = f"{split} accuracy {statistics.mean(accuracies):.2f} %"
    if len(accuracies) > 1:
        text += f" ± {statistics.stdev(accuracies):.2f} ({len(accuracies)} seeds, "
        text += f"{min(accuracies):.2f} to {max(accuracies):.2f})"
    text += f", {split} loss {loss:.4f}"
    return text + (" (interrupted)" if record["interrupted"] else "")


def draw(ax, record, key, color, linestyle, label, scale=lambda value: value):
    """Draw `key` over the epochs: the mean of the runs, and a band from lowest to highest."""
    columns = zip_longest(*([epoch[key] for epoch in run["epochs"]] for run in record["runs"]))
    curves = [[scale(value) for value in column if value is not None] for column in columns]
    epochs = range(1, len(curves) + 1)
    mean = [statistics.mean(values) for values in curves]
    marker = "o" if len(curves) == 1 else None  # a line through one point can't be seen
    ax.plot(epochs, mean, color=color, linestyle=linestyle, marker=marker, label=label)
    ax.fill_between(epochs, list(map(min, curves)), list(map(max, curves)), color=color, alpha=0.2)


def accuracy_axis(ax):
    """Label an axis of errors in % with accuracies: a log scale parts 99 % from 99.5 %."""
    ax.set_yscale("log")
    ax.invert_yaxis()
    ax.set_ylabel("accuracy (%), spaced by the log of the error")
    ax.yaxis.set_major_locator(FixedLocator([0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50]))
    ax.yaxis.set_major_formatter(lambda error, _: f"{100 - error:g}")
    ax.yaxis.set_minor_locator(NullLocator())


def error_percent(accuracy):
    """Return the error in %, at least 0.01 so that a log axis can show it."""
    return max(100 * (1 - accuracy), 0.01)


def plot_run(record):
    """Return the PNG of a record: loss and accuracy per epoch, train and test."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4.4), layout="constrained")
    for part, color, linestyle, label in (
        ("train", "tab:blue", "--", "train (running average during the epoch)"),
        (record["split"], "tab:orange", "-", f"{record['split']} (after the epoch)"),
    ):
        draw(left, record, f"{part}_loss", color, linestyle, label)
        draw(right, record, f"{part}_accuracy", color, linestyle, label, error_percent)
    left.set_ylabel("average loss (nats)")
    accuracy_axis(right)
    for ax in left, right:
        ax.set_xlabel("epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(alpha=0.3)
    left.legend()
    figure.suptitle(f"{record['title']}: {final_figures(record)}", fontsize=11)
    return png(figure)


def png(figure):
    """Return the figure as the bytes of a PNG file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150)
    plt.close(figure)
    return buffer.getvalue()


def save(path, contents):
    """Write `contents`, bytes by suffix, beside each other at `path` + suffix, whole or not at all.

    Exits with a message if a file can't be written; what was there before is then still whole.
    """
    parts = {
        Path(f"{path}{suffix}.{os.getpid()}.part"): Path(f"{path}{suffix}") for suffix in contents
    }
    try:
        for part, content in zip(parts, contents.values(), strict=True):
            part.write_bytes(content)
        for part, file in parts.items():
            os.replace(part, file)  # in one step: a reader, or a kill, never meets half a file
    except OSError as error:
        for part in parts:
            part.unlink(missing_ok=True)
        sys.exit(f"Can't write {path}.*: {error}")
    print("wrote " + ", ".join(map(str, parts.values())), flush=True)


# ---------------------------------------------------------------- command line


def checked(kind, allowed, test):
    """Return an argparse type: a `kind` that passes `test`, or a message that says what is allowed."""

    def parse(text):
        with contextlib.suppress(ValueError):
            if test(value := kind(text)):
                return value
        raise argparse.ArgumentTypeError(f"{text!r} is not {allowed}")

    return parse


COUNT = checked(int, "a whole number from 1 on", lambda n: n >= 1)
RATE = checked(float, "a finite number above 0", lambda x: 0 < x < math.inf)
SEED = checked(int, "a whole number from 0 to 2**63 - 1", lambda n: 0 <= n < 2**63)


def device(name):
    """Return the torch device of that name; "auto" is the accelerator if there is one."""
    devices = ["cpu"]
    if torch.accelerator.is_available():
        devices.append(torch.accelerator.current_accelerator().type)
    if name != "auto" and name not in devices:
        raise argparse.ArgumentTypeError(f"{name!r} is not one of auto, {', '.join(devices)}")
    return torch.device(devices[-1] if name == "auto" else name)


def parse_arguments(parser):
    """Add the flags that are no hyperparameters, parse, and check what can be known by now."""
    here = Path(__file__).resolve().parent
    parser.add_argument(
        "--seeds", type=SEED, nargs="+", default=[0], metavar="S", help="one run each"
    )
    parser.add_argument(
        "--validate", action="store_true", help="report on held-out training images"
    )
    parser.add_argument("--device", type=device, default="auto", help="auto, cpu, cuda, ...")
    parser.add_argument("--data-dir", type=Path, default=here / "data", help="has MNIST/raw in it")
    parser.add_argument("--plots-dir", type=Path, default=here / "plots", help="for PNG and JSON")
    args = parser.parse_args()
    if len(set(args.seeds)) < len(args.seeds):
        parser.error("argument --seeds: each seed once")
    try:
        args.plots_dir.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=args.plots_dir).close()
    except OSError as error:
        sys.exit(
            f"Can't write into {args.plots_dir} ({error}): name another folder with --plots-dir."
        )
    return args


def keep_freed_memory():
    """Let freed blocks under 32 MiB stay with the process, where the C library is glibc.

    Otherwise each step maps its activations anew, and page faults take a third of its time.
    """
    with contextlib.suppress(OSError):  # other systems don't have this file
        glibc = ctypes.CDLL("libc.so.6")
        glibc.mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD
        glibc.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD


def new_record(variant, title, settings, args):
    """Return what the JSON of a run says, before the first epoch."""
    return {
        "script": Path(__file__).name,
        "variant": variant,
        "title": title,
        "split": "validation" if args.validate else "test",
        "hyperparameters": settings,
        "parameters": sum(p.numel() for p in NeuralNetwork().parameters()),
        "environment": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "device": args.device.type,
            "threads": torch.get_num_threads(),
        },
        "interrupted": True,  # until the last epoch is done
        "runs": [],
    }


def main():
    parser = argparse.ArgumentParser(
        description="Train a 784-200-200-10 ReLU network on MNIST; write its figures into plots/.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    for flag, kind, text in (
        ("--epochs", COUNT, "passes over the training images"),
        ("--batch-size", COUNT, "images per step"),
        ("--lr", RATE, "learning rate"),
    ):
        default = HYPERPARAMETERS[flag[2:].replace("-", "_")]
        parser.add_argument(flag, type=kind, default=default, metavar="N", help=text)
    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    if hasattr(signal, "SIGPIPE"):  # not on Windows
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head -1` ends it without a traceback
    keep_freed_memory()
    args = parse_arguments(parser)
    train_data, test_data = load_data(parser, args)
    settings = {key: getattr(args, key) for key in HYPERPARAMETERS}
    record = new_record(None, "MLP 784-200-200-10", settings, args)
    run_seeds(record, args, train_data, test_data)


if __name__ == "__main__":
    main()
