"""MNIST with a convolutional network (question 3 of the homework).

    python q3_cnn.py                      all three variants, one after another
    python q3_cnn.py --variant base       (b) trained as the network of question 2
    python q3_cnn.py --variant reg        (c) with weight decay and dropout
    python q3_cnn.py --variant bn         (d) with batch norm after every ReLU, and other tweaks
    python q3_cnn.py --epochs 40          longer than by default: perhaps better for reg and bn

Writes plots/q3_cnn_<variant>.png and .json beside this file; q3_cnn_bn_wrong.png, the digits that
bn has wrong; and once all three variants are there, q3_cnn_comparison.png. With --validate it
trains on 50,000 images and reports on the 10,000 held out of training; --seeds 0 1 2 3 4 gives mean
and spread.
"""

# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.6", "torchvision>=0.21", "matplotlib>=3.8", "numpy>=1.26", "tqdm>=4.66"]
# ///

import argparse
import contextlib
import ctypes
import io
import itertools
import json
import math
import os
import platform
import signal
import socket
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import matplotlib

matplotlib.use("Agg")  # draws into files, so that no display is needed
import matplotlib.pyplot as plt
import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator
from torch import nn
from tqdm import tqdm

# ---------------------------------------------------------------- hyperparameters

# One row per variant. base and reg were chosen with --validate; bn began as a known recipe, and no
# single change of it was clearly better there (tables in the README). What a row does not name is
# off.
HYPERPARAMETERS = {
    "base": {"epochs": 18, "batch_size": 64, "lr": 0.2},  # those of question 2
    "reg": {"epochs": 18, "batch_size": 64, "lr": 0.2, "weight_decay": 1e-5, "dropout": 0.25},
    "bn": {
        "batch_norm": True,
        "epochs": 18,  # more may be better, but all three should take ten minutes at most
        "batch_size": 128,
        "lr": 0.1,  # where the one-cycle schedule has its peak
        "one_cycle": True,
        "momentum": 0.9,  # Nesterov's
        "weight_decay": 5e-4,
        "dropout": 0.1,
        "label_smoothing": 0.05,
        "affine": 1.0,  # strength of the random affine maps: 1 is 10 degrees, 2 pixels, ...
    },
}
TITLES = {"base": "CNN", "reg": "CNN with weight decay and dropout", "bn": "CNN with batch norm"}

HELD_OUT = 10_000  # images that --validate reports on: as many as the test set has
EVAL_BATCH_SIZE = 500  # does not change the figures: large enough for speed, small for memory

# ---------------------------------------------------------------- data


def check_idx(path, shape):
    """Exit unless `path` is a whole IDX file of bytes, one or more entries of that shape.

    Format: 0x0800 + number of dimensions, the size of each (big-endian 32-bit integers), the bytes.
    """
    header = np.fromfile(path, ">u4", 2 + len(shape)).tolist()
    expected = [0x0801 + len(shape), *header[1:2], *shape]
    size = 8 + 4 * len(shape) + math.prod(header[1:])
    if header != expected or 0 in header or path.stat().st_size != size:
        sys.exit(f"{path} is broken. Delete it, and the next run downloads it again.")


def load_mnist(data_dir, train, device):
    """Return images (N, 28, 28) uint8 and labels (N,) int64 of one part of MNIST, on `device`.

    Exits with a message if a file is broken, or is missing and can't be downloaded.
    """
    raw, part = data_dir / "MNIST" / "raw", "train" if train else "t10k"
    images, labels = raw / f"{part}-images-idx3-ubyte", raw / f"{part}-labels-idx1-ubyte"
    socket.setdefaulttimeout(10)  # seconds: a mirror that hangs is given up
    try:
        for path, shape in (images, [28, 28]), (labels, []):
            if path.exists():  # torchvision trusts what is there
                check_idx(path, shape)
        with contextlib.redirect_stdout(None):  # the reason is in the message below
            mnist = torchvision.datasets.MNIST(data_dir, train=train, download=True)
    except Exception as error:  # of many kinds, the network's and those of broken files
        sys.exit(
            f"Can't read MNIST from {raw} or download it ({' '.join(str(error).split())}). Put "
            "train-images-idx3-ubyte, train-labels-idx1-ubyte, t10k-images-idx3-ubyte and "
            "t10k-labels-idx1-ubyte there, or name the folder above MNIST/raw with --data-dir."
        )
    if len(mnist.data) != len(mnist.targets) or mnist.targets.max() > 9:
        sys.exit(f"{labels}: not one digit per image. Delete both files to download them again.")
    return mnist.data.to(device), mnist.targets.to(device)


def load_data(parser, args, batch_size):
    """Return two pairs (images, labels): to train on, `batch_size` or more, and to report on.

    With --validate the latter are the last training images, and the test set is not read.
    """
    images, labels = load_mnist(args.data_dir, True, args.device)
    if args.validate:
        if len(labels) <= HELD_OUT:
            sys.exit(f"--validate needs more than the {len(labels)} images in {args.data_dir}.")
        train_data = images[:-HELD_OUT], labels[:-HELD_OUT]
        test_data = images[-HELD_OUT:], labels[-HELD_OUT:]
    else:
        train_data, test_data = (images, labels), load_mnist(args.data_dir, False, args.device)
        if len(labels) < len(test_data[1]):
            sys.exit(f"The train and t10k files in {args.data_dir} are swapped. Delete all four.")
    if batch_size > len(train_data[1]):
        parser.error(f"argument --batch-size: there are only {len(train_data[1])} training images")
    return train_data, test_data


def batches(data, batch_size, order=None):
    """Yield X (B, 1, 28, 28) float32 in [0, 1], as ToTensor makes it, and y (B,) int64.

    `order` is a permutation of the indices; without it, images come as they are stored.
    """
    images, labels = data
    order = torch.arange(len(labels)) if order is None else order
    # disable=None: a progress bar on a terminal, none in a log file.
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


def train_loop(dataloader, model, loss_fn, optimizer):
    """Train for one epoch; return the mean loss (nats) and the accuracy while it went on."""
    model.train()
    size, train_loss, correct = 0, 0, 0
    for X, y in dataloader:
        logits = model(X)
        loss = loss_fn(logits, y)

        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

        # Sums stay on the device: an .item() here would make a GPU wait at every batch.
        size += len(y)
        train_loss += loss.detach() * len(y)
        correct += (logits.argmax(1) == y).sum()
    return train_loss.item() / size, correct.item() / size


@torch.inference_mode()
def test_loop(dataloader, model, loss_fn):
    """Return the mean loss (nats) and the accuracy over all samples."""
    model.eval()
    size, test_loss, correct = 0, 0, 0
    for X, y in dataloader:
        logits = model(X)
        size += len(y)
        # Weighted: a mean of batch means would count the samples of a small last batch for more.
        test_loss += loss_fn(logits, y) * len(y)
        correct += (logits.argmax(1) == y).sum()
    return test_loss.item() / size, correct.item() / size


def random_affine(X, strength):
    """Return X (B, 1, 28, 28) with each image turned, moved, zoomed and sheared at random.

    At strength 1 by up to 10 degrees, 2 pixels each way, 10 % and 5 degrees, all uniform.
    """

    def uniform(limit):
        return strength * limit * (2 * torch.rand(len(X), device=X.device) - 1)

    angle, slant = uniform(math.radians(10)), uniform(math.radians(5)).tan()
    zoom = 1 + uniform(0.1)
    right, down = uniform(2 / 14), uniform(2 / 14)  # the grid's unit is half an image, 14 pixels
    cos, sin = angle.cos() / zoom, angle.sin() / zoom
    # Maps places of the result to places of X, so that the images move and turn the other way.
    theta = torch.stack([cos, slant * cos - sin, right, sin, slant * sin + cos, down], dim=1)
    grid = F.affine_grid(theta.view(-1, 2, 3), X.shape, align_corners=False)
    return F.grid_sample(X, grid, align_corners=False)


def train(run, settings, train_data, test_data, device):
    """Train one network from the seed of `run`; yield the figures of train and test per epoch.

    At the end `run` gets the images that the network has wrong: [index, label, prediction].
    """
    use = defaultdict(int, settings)  # what is not named is 0: off
    torch.manual_seed(run["seed"])
    shuffle = torch.Generator().manual_seed(run["seed"])  # its own: nothing else draws from it
    model = NeuralNetwork(use["batch_norm"], use["dropout"]).to(device)
    one_thread = torch.get_num_threads() == 1
    if torch.device(device).type == "cpu" and (one_thread or not use["batch_norm"]):
        # Half the time of a convolution, but several times that of batch norm's backward where
        # threads share it. On other devices it was not tried.
        model = model.to(memory_format=torch.channels_last)
    loss_fn = nn.CrossEntropyLoss(label_smoothing=use["label_smoothing"])
    test_loss_fn = nn.CrossEntropyLoss()  # never smoothed, so that the variants can be compared
    options = {key: use[key] for key in ("lr", "momentum", "weight_decay")}
    optimizer = torch.optim.SGD(model.parameters(), **options, nesterov=use["momentum"] > 0)
    if use["one_cycle"]:
        steps = use["epochs"] * math.ceil(len(train_data[1]) / use["batch_size"])
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=use["lr"], total_steps=steps, cycle_momentum=False
        )
        # A hook, because the rate changes at every step, and train_loop stays that of question 2.
        optimizer.register_step_post_hook(lambda *_: scheduler.step())
    for _ in range(use["epochs"]):
        order = torch.randperm(len(train_data[1]), generator=shuffle)
        train_batches = batches(train_data, use["batch_size"], order)
        if use["affine"]:
            train_batches = ((random_affine(X, use["affine"]), y) for X, y in train_batches)
        train_figures = train_loop(train_batches, model, loss_fn, optimizer)
        yield train_figures, test_loop(batches(test_data, EVAL_BATCH_SIZE), model, test_loss_fn)
    run["wrong"] = wrong_images(batches(test_data, EVAL_BATCH_SIZE), model)


@torch.inference_mode()
def wrong_images(dataloader, model):
    """Return [index, label, prediction] for each image that the model has wrong."""
    model.eval()
    pairs = torch.cat([torch.stack([y, model(X).argmax(1)], dim=1) for X, y in dataloader]).tolist()
    return [[i, label, guess] for i, (label, guess) in enumerate(pairs) if label != guess]


def train_seeds(record, args, train_data, test_data):
    """Train once per seed, print a line per epoch, and save, also when interrupted or diverged."""
    if hasattr(signal, "SIGPIPE"):  # not on Windows
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head -1` ends it without a traceback
    handle_signals(stop)
    settings, split = record["hyperparameters"], record["split"]
    print(f"{record['title']} on {args.device}: {settings}", flush=True)
    try:
        for seed in args.seeds:
            record["runs"].append(run := {"seed": seed, "epochs": []})
            start = time.perf_counter()
            for figures in train(run, settings, train_data, test_data, args.device):
                epoch = {"epoch": len(run["epochs"]) + 1}
                line = f"seed {seed:2}  epoch {epoch['epoch']:2}"
                for part, (loss, accuracy) in zip(("train", split), figures, strict=True):
                    epoch |= {f"{part}_loss": loss, f"{part}_accuracy": accuracy}
                    line += f"  {part} loss {loss:.4f}  {part} accuracy {100 * accuracy:6.2f} %"
                epoch["seconds"] = time.perf_counter() - start
                line += f"  {epoch['seconds']:5.1f} s"
                if not math.isfinite(epoch["train_loss"] + epoch[f"{split}_loss"]):
                    sys.exit(f"Training diverged, try a smaller --lr: {line}")
                run["epochs"].append(epoch)
                print(line, flush=True)
                start = time.perf_counter()
        handle_signals(signal.SIG_IGN)  # it only saves from here
        record["interrupted"] = False
    finally:
        record["runs"] = [run for run in record["runs"] if run["epochs"]]
        if record["runs"]:
            print(final_figures(record), flush=True)
            save(args, record["name"], plot(record), record)


def handle_signals(action):
    """Let Ctrl-C and SIGTERM do `action`."""
    signal.signal(signal.SIGINT, action)
    signal.signal(signal.SIGTERM, action)


def stop(signum, frame):
    """End the training at the first Ctrl-C or SIGTERM, so that it saves; the second ends all."""
    handle_signals(signal.SIG_DFL)
    tqdm.write("Interrupted: saving the finished epochs.", file=sys.stderr)  # not into its bar
    sys.exit(128 + signum)


def save(args, name, figure, record=None):
    """Write name.png, and name.json if there is a record, each whole or not at all."""
    path = args.plots_dir / (name + "_validate" * args.validate)
    png = io.BytesIO()
    figure.savefig(png, dpi=150)
    contents = {f"{path}.png": png.getvalue()}
    if record:
        contents[f"{path}.json"] = json.dumps(record, indent=1).encode()
    try:
        for file, content in contents.items():
            Path(f"{file}.{os.getpid()}").write_bytes(content)
        for file in contents:  # at once, so that neither a reader nor a kill meets half a file
            os.replace(f"{file}.{os.getpid()}", file)
    except OSError as error:
        for file in contents:
            Path(f"{file}.{os.getpid()}").unlink(missing_ok=True)
        sys.exit(f"Can't write {path}.*: {error}")
    print("wrote", ", ".join(contents), flush=True)


# ---------------------------------------------------------------- plots


def curves(record, key):
    """Return `key` per run and epoch (R, E), nan from where a run was interrupted."""
    runs = [[epoch[key] for epoch in run["epochs"]] for run in record["runs"]]
    return np.array(list(itertools.zip_longest(*runs, fillvalue=np.nan))).T


def final_figures(record):
    """Return the figures of the last epoch, never the best: mean ± sample standard deviation."""
    split, length = record["split"], max(len(run["epochs"]) for run in record["runs"])
    runs = [run for run in record["runs"] if len(run["epochs"]) == length]  # none cut short
    accuracy = np.array([run["epochs"][-1][f"{split}_accuracy"] for run in runs])
    loss = np.array([run["epochs"][-1][f"{split}_loss"] for run in runs])
    spread = f" ± {100 * accuracy.std(ddof=1):.2f}" if len(runs) > 1 else ""
    text = f"{split} accuracy {100 * accuracy.mean():.2f}{spread} %, {split} loss {loss.mean():.4f}"
    text += f", seed {', '.join(str(run['seed']) for run in runs)}"
    return text + ", interrupted" * record["interrupted"]


def draw(axes, record, part, **style):
    """Draw loss and error of `part`: the mean of the runs, and a band from lowest to highest."""
    loss, error = curves(record, f"{part}_loss"), 100 - 100 * curves(record, f"{part}_accuracy")
    error = np.maximum(error, 0.01)  # one test image: a log axis has no 0
    epochs = range(1, loss.shape[1] + 1)
    for ax, values in zip(axes, (loss, error), strict=True):
        ax.plot(epochs, np.nanmean(values, axis=0), marker=".", **style)
        low, high = np.nanmin(values, axis=0), np.nanmax(values, axis=0)
        ax.fill_between(epochs, low, high, color=style["color"], alpha=0.2, linewidth=0)
        if len(values) > 1 or not ax.get_xlabel():
            ax.set_xlabel("epoch" + " (band: lowest to highest seed)" * (len(values) > 1))
        ax.xaxis.set_major_locator(MaxNLocator(integer=True))
        ax.grid(alpha=0.3)
    axes[0].set_ylabel("average loss (nats)")
    # An accuracy axis would not part 99 % from 99.5 %.
    axes[1].set(ylabel="error = 100 % - accuracy (%), at least 0.01", yscale="log")
    axes[1].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes[1].yaxis.set_minor_locator(NullLocator())
    axes[1].yaxis.set_major_formatter("{x:g}")


def plot(record):
    """Return the figure of a record: loss and error per epoch, train and test."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.5), layout="constrained")
    label = "train (running average during the epoch, as trained)"
    draw(axes, record, "train", label=label, color="tab:blue", linestyle="--")
    label = f"{record['split']} (after the epoch)"
    draw(axes, record, record["split"], label=label, color="tab:orange", linestyle="-")
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.suptitle(f"{record['title']}\n{final_figures(record)}")
    return figure


def plot_comparison(records):
    """Return the figure that compares the variants after each epoch: loss and error."""
    figure, axes = plt.subplots(1, 2, figsize=(10, 4.8), layout="constrained")
    colors, lines = ("tab:blue", "tab:orange", "black"), ("--", "-", ":")
    for record, color, line in zip(records, colors, lines, strict=True):
        label = f"{record['variant']}: {final_figures(record)}"
        draw(axes, record, record["split"], label=label, color=color, linestyle=line)
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center")
    figure.suptitle(f"The three CNNs on the {records[0]['split']} images, after each epoch")
    return figure


def plot_wrong(record, images):
    """Return the figure of the images, 50 at most, that the first seed's network has wrong."""
    run = record["runs"][0]
    figure, axes = plt.subplots(5, 10, figsize=(10, 6.5), layout="constrained")
    for ax in axes.flat:
        ax.axis("off")
    for ax, (index, label, guess) in zip(axes.flat, run["wrong"], strict=False):
        ax.imshow(images[index].cpu(), cmap="gray_r")
        ax.set_title(f"{label}, not {guess}", fontsize=9)
    text = f"seed {run['seed']} has {len(run['wrong'])} of {len(images):,} {record['split']} images"
    figure.suptitle(f"{record['title']}: {text} wrong (label, not prediction)")
    return figure


# ---------------------------------------------------------------- command line


def checked(kind, allowed, holds):
    """Return an argparse type: a `kind` for which `holds`, else a message that says `allowed`."""

    def parse(text):
        with contextlib.suppress(ValueError):
            if holds(value := kind(text)):
                return value
        raise argparse.ArgumentTypeError(f"{text!r} is not {allowed}")

    return parse


COUNT = checked(int, "a whole number from 1", lambda n: n >= 1)
RATE = checked(float, "a number above 0, at most 1e38", lambda x: 0 < x <= 1e38)
SHARE = checked(float, "a number from 0 to below 1", lambda x: 0 <= x < 1)
STRENGTH = checked(float, "a number from 0 to below 10", lambda x: 0 <= x < 10)
AMOUNT = checked(float, "a number from 0 to 1e38", lambda x: 0 <= x <= 1e38)
SEED = checked(int, "a whole number from 0 to 2**63 - 1", lambda n: 0 <= n < 2**63)

FLAGS = {
    "epochs": (COUNT, "passes over the training images"),
    "batch_size": (COUNT, "images per step"),
    "lr": (RATE, "learning rate"),
    "momentum": (SHARE, "Nesterov momentum"),
    "weight_decay": (AMOUNT, "weight decay"),
    "dropout": (SHARE, "share of the inputs of both linear layers that is zeroed in training"),
    "label_smoothing": (SHARE, "share of the label spread over all digits"),
    "affine": (STRENGTH, "strength of the random affine maps of the images"),
}


def torch_device(name):
    """Return the torch device of that name; "auto" is the accelerator where there is one."""
    devices = ["cpu"]
    if torch.accelerator.is_available():
        devices.append(torch.accelerator.current_accelerator().type)
    if name not in ["auto", *devices]:
        raise argparse.ArgumentTypeError(f"{name!r} is not one of auto, {', '.join(devices)}")
    return torch.device(devices[-1] if name == "auto" else name)


def keep_freed_memory():
    """Let freed blocks below 16 MiB stay with the process, where the C library is glibc.

    Otherwise every step maps its larger activations anew, and page faults take up to a seventh of
    its time, measured on two cores.
    """
    with contextlib.suppress(OSError):  # other systems have no such library
        glibc = ctypes.CDLL("libc.so.6")
        glibc.mallopt(-3, 16 << 20)  # M_MMAP_THRESHOLD
        glibc.mallopt(-1, 1 << 30)  # M_TRIM_THRESHOLD


def parse_arguments(parser):
    """Add the flags that are not hyperparameters, and parse; make the plots folder, or exit."""
    here = Path(__file__).resolve().parent
    add = parser.add_argument
    add("--seeds", type=SEED, nargs="+", default=[0], metavar="S", help="one run each (default: 0)")
    add("--validate", action="store_true", help="report on held-out training images")
    add("--device", type=torch_device, default="auto", help="cpu, cuda, mps, ... (default: auto)")
    add("--data-dir", type=Path, default=here / "data", help="(default: data beside the script)")
    add("--plots-dir", type=Path, default=here / "plots", help="(default: plots beside the script)")
    args = parser.parse_args()
    if len(set(args.seeds)) < len(args.seeds):
        parser.error("argument --seeds: every seed may stand there once")
    try:
        args.plots_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=args.plots_dir) as file:
            file.write(bytes(1 << 20))  # more than a usual run writes: finds a full disk now
    except OSError as error:
        sys.exit(f"Can't write into the folder {args.plots_dir} of --plots-dir: {error}")
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # while it loads or downloads, no traceback
    return args


def new_record(name, variant, title, settings, model, args):
    """Return the content of a JSON file, before the first epoch."""
    versions = {"torch": torch.__version__, "torchvision": torchvision.__version__}
    return {
        "script": Path(__file__).name,
        "name": name,
        "variant": variant,
        "title": title,
        "split": "validation" if args.validate else "test",
        "hyperparameters": settings,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "environment": {"python": platform.python_version(), **versions}
        | {"device": args.device.type, "threads": torch.get_num_threads()},
        "interrupted": True,  # until the last epoch is done
        "runs": [],
    }


def variant_settings(parser, args, variant):
    """Return the row of the variant with the values of the command line."""
    given = {key: getattr(args, key) for key in FLAGS if getattr(args, key) is not None}
    for key in given:
        if key not in HYPERPARAMETERS[variant]:
            users = " and ".join(name for name, row in HYPERPARAMETERS.items() if key in row)
            flag = "--" + key.replace("_", "-")
            parser.error(f"argument {flag}: not for variant {variant}, only for {users}")
    return HYPERPARAMETERS[variant] | given


def main():
    parser = argparse.ArgumentParser(description="Train a CNN on MNIST and plot its figures.")
    parser.add_argument(
        "--variant", choices=[*HYPERPARAMETERS, "all"], default="all", help="(default: all)"
    )
    for key, (kind, meaning) in FLAGS.items():
        defaults = (f"{row[key]} ({name})" for name, row in HYPERPARAMETERS.items() if key in row)
        help = f"{meaning} (default: {', '.join(defaults)})"
        flag = "--" + key.replace("_", "-")
        parser.add_argument(flag, type=kind, metavar="X", help=help)
    args = parse_arguments(parser)
    keep_freed_memory()
    variants = [*HYPERPARAMETERS] if args.variant == "all" else [args.variant]
    rows = {variant: variant_settings(parser, args, variant) for variant in variants}
    batch_size = max(settings["batch_size"] for settings in rows.values())
    train_data, test_data = load_data(parser, args, batch_size)
    if "bn" in rows and (len(train_data[1]) - 1) % rows["bn"]["batch_size"] == 0:
        parser.error("argument --batch-size: leaves 1 image for the last batch, too few for bn")
    for variant, settings in rows.items():
        model = NeuralNetwork(settings.get("batch_norm"), settings.get("dropout", 0))
        record = new_record(f"q3_cnn_{variant}", variant, TITLES[variant], settings, model, args)
        train_seeds(record, args, train_data, test_data)
        if variant == "bn":
            save(args, "q3_cnn_bn_wrong", plot_wrong(record, test_data[0]))
    suffix = "_validate" * args.validate
    files = [args.plots_dir / f"q3_cnn_{variant}{suffix}.json" for variant in HYPERPARAMETERS]
    if all(file.exists() for file in files):  # the variants may have been run one by one
        records = [json.loads(file.read_text()) for file in files]
        save(args, "q3_cnn_comparison", plot_comparison(records))


if __name__ == "__main__":
    main()
