# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.6", "torchvision>=0.21", "matplotlib>=3.8", "numpy>=1.26", "tqdm>=4.66"]
# ///
"""Question 2: a 784-200-200-10 ReLU network on MNIST classifies 98.30 ± 0.05 % correctly.

(Accuracy on the 10,000 test images at the last of 17 epochs, mean ± sample standard deviation of
10 seeds. Made by: python q2_mlp.py --seeds 0 1 2 3 4 5 6 7 8 9)

    python q2_mlp.py                      train on 60,000 images, report on the 10,000 test images
    python q2_mlp.py --validate           train on 50,000, report on the 10,000 held out of training
    python q2_mlp.py --seeds 0 1 2        three runs, reported as mean and spread

    pip install torch torchvision matplotlib numpy tqdm
    uv run q2_mlp.py                      does the installation by itself

Reads MNIST from data/ beside this file, or downloads it there; writes plots/q2_mlp.png and .json
beside it. The loops are those of the PyTorch basics tutorial,
https://pytorch.org/tutorials/beginner/basics/optimization_tutorial.html
"""

import argparse
import io
import json
import math
import os
import platform
import signal
import socket
import sys
import time
from pathlib import Path

# A notebook passes its matplotlib backend on to what it starts, where it may be unknown.
os.environ.pop("MPLBACKEND", None)

import matplotlib.style
import numpy as np
import torch
import torchvision
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator
from torch import nn
from tqdm import tqdm

# ---------------------------------------------------------------- hyperparameters

# Plain SGD as in the tutorial. Batch size and rate were chosen with --validate to suit the CNN of
# question 3 (b) too; 17 epochs are what time allows.
HYPERPARAMETERS = {
    "epochs": 17,
    "batch_size": 64,
    "lr": 0.2,
}

HELD_OUT = 10_000  # images that --validate reports on: as many as the test set has
EVAL_BATCH = 500  # images; for speed and memory: changes results by rounding only


# ---------------------------------------------------------------- data
def load_mnist(data_dir, train, device):
    """Return images (N, 28, 28) uint8 and labels (N,) int64 of MNIST; exit if it can't be had."""
    raw = data_dir / "MNIST" / "raw"
    if not raw.exists():
        print(f"Downloading MNIST to {raw}")
    socket.setdefaulttimeout(30)  # seconds: a mirror that never answers would stop us for good
    first_labels = [5, 0, 4, 1, 9] if train else [7, 2, 1, 0, 4]
    try:
        mnist = torchvision.datasets.MNIST(data_dir, train=train, download=True)
        if mnist.data.shape != (len(mnist.targets), 28, 28) or mnist.targets.max() > 9:
            raise ValueError("not 28 x 28 pixels and one digit per image")
        if mnist.targets[:5].tolist() != first_labels:  # FashionMNIST has the same file names
            raise ValueError(f"its first labels are not {first_labels}: another data set")
    except Exception as error:  # a failed download and each kind of broken file raise their own
        sys.exit(
            f"Can't read MNIST or download it ({error!r}). Put train-images-idx3-ubyte, "
            "train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte into "
            f"{raw}, or name the folder above MNIST/raw with --data-dir. "
            f"To download everything anew, delete {raw}."
        )
    return mnist.data.to(device), mnist.targets.to(device)


def load_data(data_dir, validate, device):
    """Return train_data and test_data, each a pair of images (N, 28, 28) and labels (N,)."""
    images, labels = load_mnist(data_dir, train=True, device=device)
    if not validate:
        return (images, labels), load_mnist(data_dir, train=False, device=device)
    # The last training images are held out, and stand for the test set.
    train_data = (images[:-HELD_OUT], labels[:-HELD_OUT])
    test_data = (images[-HELD_OUT:], labels[-HELD_OUT:])
    return train_data, test_data


def batches(data, batch_size, generator=None):
    """Yield X (B, 1, 28, 28) float32 in [0, 1], as ToTensor makes it, and y (B,) int64.

    In place of the tutorial's DataLoader, which makes a picture and a tensor of each image anew:
    with it, an epoch of the MLP takes four times as long. With a generator, in a random order that
    it draws; without, in the order of the data.
    """
    images, labels = data
    if generator is None:
        order = torch.arange(len(labels))
    else:
        order = torch.randperm(len(labels), generator=generator)
    order = order.to(images.device)  # drawn on the CPU, so that it is the same on every device
    # disable=None: a progress bar on a terminal, none in a log file.
    for index in tqdm(order.split(batch_size), leave=False, disable=None):
        X = images[index].unsqueeze(1) / 255
        y = labels[index]
        yield X, y


# ---------------------------------------------------------------- model
class NeuralNetwork(nn.Module):
    """784-200-200-10 with ReLU: X (B, 1, 28, 28) to logits (B, 10), the z of question 1."""

    def __init__(self):
        super().__init__()
        self.flatten = nn.Flatten()
        self.linear_relu_stack = nn.Sequential(
            nn.Linear(28 * 28, 200),
            nn.ReLU(),
            nn.Linear(200, 200),
            nn.ReLU(),
            nn.Linear(200, 10),
        )

    def forward(self, X):
        return self.linear_relu_stack(self.flatten(X))


# ---------------------------------------------------------------- training
def train_loop(dataloader, model, loss_fn, optimizer):
    """Train for one epoch; return loss (nats) and accuracy (0 to 1), both means over its images."""
    model.train()
    size = 0
    train_loss = 0
    correct = 0
    for X, y in dataloader:
        logits = model(X)
        loss = loss_fn(logits, y)

        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

        size += len(y)
        # Times len(y), because the last batch is smaller than the others. The sum stays a tensor
        # until the end, because .item() would make a GPU wait at every batch.
        train_loss += loss.detach() * len(y)
        correct += (logits.argmax(1) == y).sum()
    return train_loss.item() / size, correct.item() / size


def test_loop(dataloader, model, loss_fn):
    """Return loss (nats) and accuracy (0 to 1), both means over all images."""
    model.eval()
    size = 0
    test_loss = 0
    correct = 0
    with torch.no_grad():
        for X, y in dataloader:
            logits = model(X)
            size += len(y)
            test_loss += loss_fn(logits, y) * len(y)
            correct += (logits.argmax(1) == y).sum()
    return test_loss.item() / size, correct.item() / size


def train(settings, seed, train_data, test_data):
    """Train one network; yield it after each epoch, with (loss, accuracy) in training and test."""
    torch.manual_seed(seed)
    # A generator of its own: whatever else draws random numbers, the order of the images stays.
    generator = torch.Generator().manual_seed(seed)
    device = train_data[0].device
    model = NeuralNetwork().to(device)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=settings["lr"])
    for _ in range(settings["epochs"]):
        train_batches = batches(train_data, settings["batch_size"], generator)
        train_metrics = train_loop(train_batches, model, loss_fn, optimizer)
        test_metrics = test_loop(batches(test_data, EVAL_BATCH), model, loss_fn)
        yield model, train_metrics, test_metrics


# ---------------------------------------------------------------- results
def new_record(variant, settings, args):
    """Return the record of a network as its JSON will have it, with no seed trained yet."""
    return {
        "script": Path(__file__).name,
        "variant": variant,
        "split": "validation" if args.validate else "test",
        "hyperparameters": settings,
        "parameters": None,  # counted once there is a network
        "environment": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "device": args.device,
            "processor": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
        },
        "interrupted": True,  # until all seeds are done
        "seeds": args.seeds,
        "runs": [],
    }


def epoch_metrics(split, epoch, train_metrics, test_metrics, seconds):
    """Return the metrics of an epoch as the JSON has them; exit if a loss is not finite."""
    train_loss, train_accuracy = train_metrics
    test_loss, test_accuracy = test_metrics
    if not math.isfinite(train_loss) or not math.isfinite(test_loss):
        sys.exit(f"Epoch {epoch}: the loss is no longer finite. Try a smaller --lr.")
    return {
        "epoch": epoch,
        "train_loss": train_loss,
        "train_accuracy": train_accuracy,
        f"{split}_loss": test_loss,
        f"{split}_accuracy": test_accuracy,
        "seconds": seconds,
    }


def print_epoch(seed, split, metrics):
    """Print the metrics of an epoch in columns."""
    loss = metrics[f"{split}_loss"]
    accuracy = metrics[f"{split}_accuracy"]
    print(
        f"seed {seed:2}  epoch {metrics['epoch']:2}"
        f"  train loss {metrics['train_loss']:.4f}"
        f"  train accuracy {metrics['train_accuracy']:7.2%}"
        f"  {split} loss {loss:.4f}"
        f"  {split} accuracy {accuracy:7.2%}"
        f"  {metrics['seconds']:5.1f} s"
    )


def train_and_record(name, variant, title, settings, args, train_data, test_data):
    """Train once per seed, write the record after each epoch; return the last network.

    However it ends, what was finished is in the JSON and in the plot. name: that of both files.
    """
    record = new_record(variant, settings, args)
    split = record["split"]
    print(f"{title} on {args.device}: {settings_text(settings)}")
    try:
        for seed in args.seeds:
            epochs = []
            start = time.perf_counter()
            for model, train_metrics, test_metrics in train(settings, seed, train_data, test_data):
                seconds = time.perf_counter() - start
                epoch = len(epochs) + 1
                metrics = epoch_metrics(split, epoch, train_metrics, test_metrics, seconds)
                epochs.append(metrics)
                if epoch == 1:  # not earlier, because every run in a record has a last epoch
                    record["runs"].append({"seed": seed, "epochs": epochs})
                    record["parameters"] = sum(p.numel() for p in model.parameters())
                save_record(args, name, record)
                print_epoch(seed, split, metrics)
                start = time.perf_counter()  # saving and printing are not the epoch's
        record["interrupted"] = False
    finally:  # nothing is printed here: standard output may be what failed
        if record["runs"]:
            save_record(args, name, record)
            save_figure(args, name, plot_run(title, record))
    print(f"{title}: {final_metrics(record)}")
    print(f"wrote {result_path(args, name, '.json')} and .png")
    return model


def result_path(args, name, suffix):
    """Return where a result is written; those on held-out images have names of their own."""
    if args.validate:
        name = f"{name}_validate"
    return args.plots_dir / f"{name}{suffix}"


def save(path, content):
    """Write bytes to a file, whole or not at all: nobody ever finds half a file."""
    part = path.with_name(f"{path.name}.{os.getpid()}")  # two processes may write to one folder
    part.write_bytes(content)
    part.replace(path)


def save_record(args, name, record):
    save(result_path(args, name, ".json"), json.dumps(record, indent=1).encode())


def save_figure(args, name, figure):
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=220)
    save(result_path(args, name, ".png"), picture.getvalue())


def final_metrics(record):
    """Return the metrics of the last epoch, never the best, as text: mean ± sample deviation."""
    split = record["split"]
    # A seed that was interrupted before the last epoch of the others has no final metrics.
    longest = max(len(run["epochs"]) for run in record["runs"])
    last_epochs = [run["epochs"][-1] for run in record["runs"] if len(run["epochs"]) == longest]
    loss = np.mean([epoch[f"{split}_loss"] for epoch in last_epochs])
    accuracy = [100 * epoch[f"{split}_accuracy"] for epoch in last_epochs]
    text = f"{split} loss {loss:.4f}, accuracy {np.mean(accuracy):.2f}"
    if len(accuracy) > 1:
        text += f" ± {np.std(accuracy, ddof=1):.2f} %, {len(accuracy)} seeds"
    else:
        text += " %"
    if record["interrupted"]:
        text += ", interrupted"
    return text


# ---------------------------------------------------------------- plots
# The line tells curves apart in grey print, the colour (Okabe, Ito 2008) to the colour-blind.
STYLES = [
    {"linestyle": "--", "color": "#0072B2"},
    {"linestyle": "-", "color": "#D55E00"},
    {"linestyle": "-.", "color": "#009E73"},
    {"linestyle": ":", "color": "black"},
]
ACCURACY_TICKS = [10, 50, 80, 90, 95, 98, 99, 99.5, 99.9, 100]


def plot_run(title, record):
    """Return a figure of one record: loss and accuracy per epoch, in training and test."""
    split = record["split"]
    curves = {
        "train (running average)": (record, "train"),
        split: (record, split),
    }
    return plot(f"{title}: {final_metrics(record)}", curves)


def plot(title, curves, bands=True):
    """Return a figure of loss and accuracy per epoch; curves: label to (record, "train" or split).

    A curve is the median of the seeds, its band reaches from the lowest to the highest.
    """
    figure = Figure(figsize=(6.4, 2.7), layout="constrained")
    figure.suptitle(title, fontsize="medium")
    loss_ax, accuracy_ax = figure.subplots(1, 2)
    loss_ax.set_title("average loss", fontsize="medium")
    loss_ax.set(ylabel="nats", yscale="log")
    loss_ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    accuracy_ax.set_title("accuracy (log scale of the error)", fontsize="medium")
    accuracy_ax.set_ylabel("%")
    accuracy_ax.set_yscale("function", functions=(accuracy_to_height, height_to_accuracy))
    accuracy_ax.set_yticks(ACCURACY_TICKS)
    xlabel = "epoch"
    for index, (label, (record, part)) in enumerate(curves.items()):
        if len(record["runs"]) > 1:
            xlabel = "epoch; median of seeds"
            if bands:
                xlabel = "epoch; median and range of seeds"
        losses = values_per_epoch(record, f"{part}_loss")
        accuracies = 100 * values_per_epoch(record, f"{part}_accuracy")
        plot_curve(loss_ax, losses, label, STYLES[index], bands)
        plot_curve(accuracy_ax, accuracies, label, STYLES[index], bands)
    for ax in (loss_ax, accuracy_ax):
        ax.set_xlabel(xlabel)
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.minorticks_off()
        ax.grid(alpha=0.3)
    handles, labels = loss_ax.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2)
    return figure


def accuracy_to_height(accuracy):
    """Space accuracies (%) by the logarithm of the error, so that 99 and 99.5 % differ."""
    # 100.01 instead of 100, because log(0) is infinite; np.maximum, because an axis may go on
    # above 100 %.
    return -np.log10(np.maximum(100.01 - accuracy, 1e-3))


def height_to_accuracy(height):
    return 100.01 - 10**-height


def values_per_epoch(record, key):
    """Return a metric as (epochs, seeds); an epoch that a seed did not reach is nan."""
    runs = record["runs"]
    epochs = max(len(run["epochs"]) for run in runs)
    values = np.full((epochs, len(runs)), np.nan)
    for column, run in enumerate(runs):
        for row, epoch in enumerate(run["epochs"]):
            values[row, column] = epoch[key]
    return values


def plot_curve(ax, values, label, style, band):
    """Draw the median over the seeds of values (epochs, seeds), and a band around it."""
    epochs = range(1, len(values) + 1)
    ax.plot(epochs, np.nanmedian(values, axis=1), marker=".", label=label, **style)
    if band:
        lowest = np.nanmin(values, axis=1)
        highest = np.nanmax(values, axis=1)
        ax.fill_between(epochs, lowest, highest, color=style["color"], alpha=0.15, linewidth=0)


# ---------------------------------------------------------------- command line
def in_range(kind, lowest, highest):
    """Return a function for argparse's type=: text to an int or float from lowest to highest."""

    def parse(text):
        value = kind(text)
        if not lowest <= value <= highest:
            raise argparse.ArgumentTypeError(f"{value} is not from {lowest} to {highest}")
        return value

    parse.__name__ = kind.__name__  # argparse says "invalid int value" by it
    return parse


def folder(text):
    """Return a path; a shell leaves the ~ of --data-dir=~/data as it is."""
    return Path(text).expanduser()


def new_parser(description, settings_help):
    """Return a parser with the flags of both scripts; settings_help: hyperparameters as text."""
    parser = argparse.ArgumentParser(
        description=description,
        epilog=f"A hyperparameter without its flag keeps the value it has here. {settings_help}",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
        argument_default=argparse.SUPPRESS,  # so that args has only those that were given
    )
    parser.add_argument("--epochs", type=in_range(int, 1, 10_000), help="passes over the images")
    # At least 2, because batch norm (question 3) can't train on one image.
    parser.add_argument("--batch-size", type=in_range(int, 2, 10_000), help="images per step")
    parser.add_argument("--lr", type=in_range(float, 1e-6, 1000), help="learning rate")

    seed = in_range(int, 0, 2**63 - 1)
    parser.add_argument("--seeds", type=seed, nargs="+", default=[0], help="one run each")
    parser.add_argument(
        "--validate",
        action="store_true",
        default=False,  # not left out of args, as the hyperparameters are
        help="report on 10,000 held-out training images, and never read the test set",
    )
    # Two threads need three quarters of the time for a CNN, but longer beside a busy process.
    threads = in_range(int, 1, 1024)
    parser.add_argument("--threads", type=threads, default=1, help="processors to compute on")
    devices = ["auto", "cpu"]
    if torch.accelerator.is_available():
        devices.append(torch.accelerator.current_accelerator().type)
    parser.add_argument("--device", choices=devices, default="auto", help="where to compute")
    here = Path(__file__).resolve().parent
    parser.add_argument("--data-dir", type=folder, default=here / "data", help="where MNIST is")
    parser.add_argument("--plots-dir", type=folder, default=here / "plots", help="for the results")
    return parser


def settings_text(settings):
    """Return the hyperparameters for people to read."""
    return ", ".join(f"{key} {value}" for key, value in settings.items())


def given_settings(args, settings):
    """Return those hyperparameters that have a flag on the command line."""
    given = {}
    for key in settings:
        if key in args:
            given[key] = getattr(args, key)
    return given


def choose_device(name):
    """Return the device to train on: auto is the accelerator if one operation works on it."""
    if name != "auto":
        return name
    if not torch.accelerator.is_available():
        return "cpu"
    device = torch.accelerator.current_accelerator().type
    try:
        torch.ones(1, device=device).sum().item()
    except RuntimeError as error:  # a GPU too old for this torch, or one without free memory
        reason = str(error).splitlines()[0]
        print(f"Training on the CPU, because {device} does not work: {reason}")
        return "cpu"
    return device


def main(argv=None):
    parser = new_parser("Train a 784-200-200-10 network on MNIST.", settings_text(HYPERPARAMETERS))
    args = parser.parse_args(argv)
    settings = HYPERPARAMETERS | given_settings(args, HYPERPARAMETERS)
    torch.set_num_threads(args.threads)
    args.device = choose_device(args.device)
    args.plots_dir.mkdir(parents=True, exist_ok=True)
    train_data, test_data = load_data(args.data_dir, args.validate, args.device)
    title = "Q2: MLP 784-200-200-10"
    with matplotlib.style.context("default"):  # not those of the user's own matplotlibrc
        train_and_record("q2_mlp", None, title, settings, args, train_data, test_data)


if __name__ == "__main__":
    # Ctrl-C (SIGINT) and kill (SIGTERM) raise KeyboardInterrupt, so that what is finished is saved.
    # SIGINT has a line too, because a shell makes what it starts with & ignore it.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    if hasattr(sys.stdout, "reconfigure"):  # a notebook's output is no file
        # Each line is written at once, so that a log can be watched; a letter that its encoding
        # lacks is written as an escape.
        sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)  # what a shell expects after Ctrl-C
    except OSError as error:
        try:
            sys.stdout.flush()
        except OSError:  # it is what failed, and would fail again when Python ends
            sys.stdout = None
        sys.exit(f"Can't go on: {error}")
