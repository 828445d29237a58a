"""MNIST with a convolutional network (question 3 of the homework).

    pip install "torch>=2.6" torchvision matplotlib numpy tqdm
    python q3_cnn.py                      all four variants, one after another
    python q3_cnn.py --variant base       (b) trained as the network of question 2
    python q3_cnn.py --variant reg        (c) the same with weight decay and dropout
    python q3_cnn.py --variant bn_only    (d) the same as (b) with batch norm after every ReLU
    python q3_cnn.py --variant bn         (d) with that, a higher learning rate and other tweaks

Writes plots/q3_cnn_<variant>.png and .json beside this file; q3_cnn_bn_wrong.png, the digits that
bn has wrong; and once all variants are there, q3_cnn_comparison.png. With --validate it trains on
50,000 images and reports on the 10,000 held out of training; --seeds 0 1 2 gives mean and spread.
"""

import argparse
import json
import math
import os
import platform
import signal
import sys
import time
from itertools import zip_longest
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
import torchvision
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator
from torch import nn
from tqdm import tqdm

# ---------------------------------------------------------------- hyperparameters

# Plain SGD everywhere; the values were chosen with --validate.
BASE = {
    "epochs": 17,  # these three are those of question 2
    "batch_size": 64,
    "lr": 0.2,  # constant, or the peak of the one-cycle schedule
    "one_cycle": False,
    "batch_norm": False,
    "weight_decay": 0.0,
    "dropout": 0.0,  # probability, before both linear layers
    "affine": 0.0,  # strength of the random affine augmentation
}
REG = BASE | {"weight_decay": 1e-5, "dropout": 0.25}
BN_ONLY = BASE | {"batch_norm": True}
BN = BN_ONLY | {
    "lr": 0.5,  # the peak; base does not train at this rate if it is constant
    "one_cycle": True,
    "weight_decay": 5e-4,
    "affine": 0.1,
}
HYPERPARAMETERS = {"base": BASE, "reg": REG, "bn_only": BN_ONLY, "bn": BN}
TITLES = {
    "base": "(b) CNN",
    "reg": "(c) weight decay and dropout",
    "bn_only": "(d) batch norm alone",
    "bn": "(d) batch norm and tweaks",
}

HELD_OUT = 10_000  # images that --validate reports on: as many as the test set has
EVAL_BATCH = 500  # images; does not change the figures: large enough for speed, small for memory


# ---------------------------------------------------------------- data
def load_mnist(data_dir, train, device):
    """Return images (N, 28, 28) uint8 and labels (N,) int64 of MNIST; exit if it is broken."""
    try:
        mnist = torchvision.datasets.MNIST(data_dir, train=train, download=True)
        if mnist.data.shape != (len(mnist.targets), 28, 28) or mnist.targets.max() > 9:
            raise ValueError("not 28 x 28 pixels and one digit per image")
    except Exception as error:  # the network's and those of broken files are of many kinds
        sys.exit(
            f"Can't read MNIST or download it ({error!r}). Put train-images-idx3-ubyte, "
            "train-labels-idx1-ubyte, t10k-images-idx3-ubyte and t10k-labels-idx1-ubyte into "
            f"{data_dir / 'MNIST' / 'raw'}, or name the folder above MNIST/raw with --data-dir."
        )
    return mnist.data.to(device), mnist.targets.to(device)


def load_data(data_dir, validate, device):
    """Return (images, labels) to train on, and to report on: the test set, or held-out ones."""
    images, labels = load_mnist(data_dir, True, device)
    if validate:
        return (images[:-HELD_OUT], labels[:-HELD_OUT]), (images[-HELD_OUT:], labels[-HELD_OUT:])
    return (images, labels), load_mnist(data_dir, False, device)


def batches(data, batch_size, order=None):
    """Yield X (B, 1, 28, 28) float32 in [0, 1], as ToTensor makes it, and y (B,) int64."""
    images, labels = data
    order = torch.arange(len(labels)) if order is None else order
    # disable=None: a progress bar on a terminal, none in a log file.
    for index in tqdm(order.to(images.device).split(batch_size), leave=False, disable=None):
        yield images[index].unsqueeze(1) / 255, labels[index]


# ---------------------------------------------------------------- model
class NeuralNetwork(nn.Module):
    """The CNN of the sheet: X (B, 1, 28, 28) to logits (B, 10)."""

    def __init__(self, batch_norm=False, dropout=0.0):
        super().__init__()
        norm2d = nn.BatchNorm2d if batch_norm else nn.Identity
        norm1d = nn.BatchNorm1d if batch_norm else nn.Identity
        self.stack = nn.Sequential(
            nn.Conv2d(1, 20, kernel_size=4, stride=1),  # 28 x 28 -> 25 x 25
            nn.ReLU(),
            norm2d(20),
            nn.Conv2d(20, 20, kernel_size=4, stride=2),  # -> 11 x 11
            nn.ReLU(),
            norm2d(20),
            nn.MaxPool2d(2),  # -> 5 x 5
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(20 * 5 * 5, 250),
            nn.ReLU(),
            norm1d(250),
            nn.Dropout(dropout),
            nn.Linear(250, 10),
        )

    def forward(self, X):
        return self.stack(X)


# ---------------------------------------------------------------- training
def train_loop(dataloader, model, loss_fn, optimizer, scheduler):
    """Train for one epoch; return the mean loss (nats) and the accuracy while it went on."""
    model.train()
    size, train_loss, correct = 0, 0, 0
    for X, y in dataloader:
        logits = model(X)
        loss = loss_fn(logits, y)

        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()

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
    """Return X (B, 1, 28, 28), each image under an affine map of its own near the identity.

    The six coefficients have uniform noise of up to ± strength; 0.1 moves corners by up to 4 px.
    """
    noise = strength * (2 * torch.rand(len(X), 2, 3, device=X.device) - 1)
    theta = torch.eye(2, 3, device=X.device) + noise
    grid = F.affine_grid(theta, X.shape, align_corners=False)
    return F.grid_sample(X, grid, align_corners=False)


def train(settings, seed, train_data, test_data, split):
    """Train one network; return it, its figures per epoch, and an exit code, 0 if all went well."""
    torch.manual_seed(seed)
    shuffle = torch.Generator().manual_seed(seed)  # its own: nothing else draws from it
    model = NeuralNetwork(settings["batch_norm"], settings["dropout"]).to(train_data[0].device)
    if train_data[0].device.type == "cpu":  # there convolutions are mostly faster so
        model = model.to(memory_format=torch.channels_last)
    loss_fn = nn.CrossEntropyLoss()
    lr, weight_decay = settings["lr"], settings["weight_decay"]
    optimizer = torch.optim.SGD(model.parameters(), lr=lr, weight_decay=weight_decay)
    if settings["one_cycle"]:
        steps = settings["epochs"] * math.ceil(len(train_data[1]) / settings["batch_size"])
        scheduler = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, steps, cycle_momentum=False)
    else:
        scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1)  # stays at lr
    epochs = []
    try:
        for epoch in range(1, settings["epochs"] + 1):
            start = time.perf_counter()
            order = torch.randperm(len(train_data[1]), generator=shuffle)
            loader = batches(train_data, settings["batch_size"], order)
            if settings["affine"]:
                loader = ((random_affine(X, settings["affine"]), y) for X, y in loader)
            train_loss, train_accuracy = train_loop(loader, model, loss_fn, optimizer, scheduler)
            test_loss, test_accuracy = test_loop(batches(test_data, EVAL_BATCH), model, loss_fn)
            seconds = time.perf_counter() - start
            if not math.isfinite(train_loss + test_loss):
                print(f"seed {seed}, epoch {epoch}: the loss is not finite, try a smaller --lr")
                return model, epochs, 1
            metrics = {"epoch": epoch, "train_loss": train_loss, "train_accuracy": train_accuracy}
            metrics |= {f"{split}_loss": test_loss, f"{split}_accuracy": test_accuracy}
            epochs.append(metrics | {"seconds": seconds})
            line = f"seed {seed:2}  epoch {epoch:2}  {seconds:5.1f} s"
            line += f"  train loss {train_loss:.4f}  train accuracy {train_accuracy:7.2%}"
            print(f"{line}  {split} loss {test_loss:.4f}  {split} accuracy {test_accuracy:7.2%}")
        # Which images are wrong, so that variants can be compared image by image.
        predicted = predict(batches(test_data, EVAL_BATCH), model).argmax(1)
        epochs[-1]["wrong"] = (predicted != test_data[1]).nonzero().flatten().tolist()
    except KeyboardInterrupt:
        return model, epochs, 130
    return model, epochs, 0


@torch.inference_mode()
def predict(dataloader, model):
    """Return the probabilities (N, 10) that the model gives to the digits."""
    model.eval()
    return torch.cat([model(X).softmax(1) for X, _ in dataloader])


def train_seeds(name, variant, title, settings, args, train_data, test_data):
    """Train once per seed, write metrics and plot even if cut short; return the last network."""
    split, runs = ("validation" if args.validate else "test"), []
    print(f"{title} on {args.device}: {settings}")
    for seed in args.seeds:
        model, epochs, exit_code = train(settings, seed, train_data, test_data, split)
        if epochs:
            runs.append({"seed": seed, "epochs": epochs})
        if exit_code:
            break
    if runs:
        versions = {package.__name__: package.__version__ for package in (torch, torchvision)}
        machine = {"device": args.device, "threads": torch.get_num_threads()}
        record = {
            "script": Path(__file__).name,
            "variant": variant,
            "split": split,
            "hyperparameters": settings,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "environment": {"python": platform.python_version()} | versions | machine,
            "interrupted": exit_code != 0,
            "seeds": args.seeds,
            "runs": runs,
        }
        save(args, name + ".json", record)
        title += f": {final_metrics(record)}"
        lines = [("train (running average)", record, "train"), (split, record, split)]
        save(args, name + ".png", plot(title, lines))
        print(title)
    if exit_code:
        sys.exit(exit_code)
    return model


def save(args, name, content):
    """Write a record or a figure into the plots folder, whole or not at all."""
    path = args.plots_dir / (name.replace(".", "_validate.") if args.validate else name)
    part = path.with_name(f"{path.name}.{os.getpid()}")
    if path.suffix == ".json":
        part.write_text(json.dumps(content, indent=1))
    else:
        content.savefig(part, format="png", dpi=150)
    part.replace(path)  # at once: neither a reader nor a kill meets half a file
    print(f"wrote {path}")


# ---------------------------------------------------------------- plots
# Told apart in grey by the line, and by colour-blind readers by the colour (Okabe, Ito 2008).
STYLES = (".--", "#0072B2"), (".-", "#D55E00"), (".-.", "#009E73"), (".:", "black")


def final_metrics(record):
    """Return the figures of the last epoch, never the best: mean ± sample standard deviation."""
    split, last = record["split"], [run["epochs"][-1] for run in record["runs"]]
    accuracy = [100 * epoch[f"{split}_accuracy"] for epoch in last]
    loss = np.mean([epoch[f"{split}_loss"] for epoch in last])
    spread = f" ± {np.std(accuracy, ddof=1):.2f} %, {len(last)} seeds" if len(last) > 1 else " %"
    text = f"{split} loss {loss:.4f}, accuracy {np.mean(accuracy):.2f}{spread}"
    return text + (", interrupted" if record["interrupted"] else "")


def plot(title, lines):
    """Return a figure of loss and accuracy per epoch, with a line for each (label, record, part).

    Of several seeds, the line is the median, and a band reaches from the lowest to the highest.
    """
    figure = Figure(figsize=(10, 3.7), layout="constrained")
    figure.suptitle(title)
    loss_ax, accuracy_ax = figure.subplots(1, 2)
    loss_ax.set_yscale("log")
    loss_ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    # Spaced by the logarithm of the error: 99 and 99.5 % differ. The 0.01 keeps 100 % finite.
    spacing = (lambda y: -np.log10(np.maximum(100.01 - y, 1e-3)), lambda t: 100.01 - 10**-t)
    accuracy_ax.set_yscale("function", functions=spacing)
    accuracy_ax.set_yticks([10, 50, 80, 90, 95, 97, 98, 99, 99.5, 99.8, 99.9, 100])
    for (label, record, part), (style, color) in zip(lines, STYLES, strict=False):
        for ax, key, unit in (loss_ax, "loss", 1), (accuracy_ax, "accuracy", 100):
            runs = [[epoch[f"{part}_{key}"] for epoch in run["epochs"]] for run in record["runs"]]
            values = unit * np.array(list(zip_longest(*runs, fillvalue=np.nan)))  # (epochs, seeds)
            epochs = range(1, len(values) + 1)
            ax.plot(epochs, np.nanmedian(values, axis=1), style, color=color, label=label)
            low, high = np.nanmin(values, axis=1), np.nanmax(values, axis=1)
            ax.fill_between(epochs, low, high, color=color, alpha=0.15, linewidth=0)
    for ax, name in (loss_ax, "average loss (nats)"), (accuracy_ax, "accuracy (%)"):
        ax.set(title=name, xlabel="epoch (of several seeds: median, lowest to highest)")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.minorticks_off()
        ax.grid(alpha=0.3)
    figure.legend(*loss_ax.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def plot_wrong(title, model, data):
    """Return a figure of the images, 50 at most, that are wrong, the most confident first."""
    probability, predicted = predict(batches(data, EVAL_BATCH), model).max(1)
    wrong = [i for i in probability.argsort(descending=True).tolist() if predicted[i] != data[1][i]]
    figure = Figure(figsize=(10, 5), layout="constrained")
    figure.suptitle(f"{title}: {len(wrong)} of {len(data[1]):,} wrong (label → guess, probability)")
    axes = figure.subplots(5, 10).ravel()
    for ax in axes:
        ax.axis("off")
    for ax, i in zip(axes, wrong, strict=False):
        ax.imshow(data[0][i].numpy(force=True), cmap="gray_r")
        ax.set_title(f"{data[1][i]} → {predicted[i]}, {probability[i]:.0%}", fontsize=9)
    return figure


def compare(args, rows):
    """Draw all variants in one figure, if their results are whole and of these settings."""
    split, lines = "validation" if args.validate else "test", []
    for variant, settings in rows.items():
        path = args.plots_dir / f"q3_cnn_{variant}{'_validate' * args.validate}.json"
        try:
            record = json.loads(path.read_text())
        except (OSError, ValueError):
            record = {}
        wanted = {"hyperparameters": settings, "seeds": args.seeds, "interrupted": False}
        if not wanted.items() <= record.items():
            print(f"No comparison: {path} is missing, incomplete, or of other settings or seeds.")
            return
        lines.append((TITLES[variant], record, split))
    save(args, "q3_cnn_comparison.png", plot(f"Q3: the CNNs on the {split} images", lines))


# ---------------------------------------------------------------- command line
FLAGS = {  # type, lowest, highest, meaning
    "epochs": (int, 1, 10_000, "passes over the training images"),
    "batch_size": (int, 2, 10_000, "images per step"),
    "lr": (float, 1e-6, 1000, "learning rate"),
    "one_cycle": (int, 0, 1, "1: one-cycle schedule with lr as its peak, 0: constant lr"),
    "batch_norm": (int, 0, 1, "1: batch norm after every ReLU, 0: none"),
    "weight_decay": (float, 0, 1, "weight decay"),
    "dropout": (float, 0, 0.99, "dropout probability before both linear layers"),
    "affine": (float, 0, 1, "strength of the random affine augmentation"),
}


def parse_arguments(parser, argv, defaults):
    """Return the arguments, and those hyperparameters among them that were given, as a dict."""
    here, devices, add = Path(__file__).resolve().parent, ["cpu"], parser.add_argument
    if torch.accelerator.is_available():
        devices = [torch.accelerator.current_accelerator().type, "cpu"]
    for key, (kind, _, _, meaning) in FLAGS.items():
        flag = "--" + key.replace("_", "-")
        add(flag, type=kind, metavar="X", help=f"{meaning} (default: {defaults[key]})")
    add("--seeds", type=int, nargs="+", default=[0], metavar="S", help="one run each (default: 0)")
    add("--validate", action="store_true", help="report on held-out training images")
    add("--device", choices=["auto", *devices], default="auto", help="(default: auto)")
    add("--data-dir", type=Path, default=here / "data", help="(default: data beside the script)")
    add("--plots-dir", type=Path, default=here / "plots", help="(default: plots beside the script)")
    args = parser.parse_args(argv)
    args.device = devices[0] if args.device == "auto" else args.device
    given = {key: getattr(args, key) for key in FLAGS if getattr(args, key) is not None}
    for key, value in given.items():
        _, lowest, highest, _ = FLAGS[key]
        if not lowest <= value <= highest:
            flag = "--" + key.replace("_", "-")
            parser.error(f"argument {flag}: {value} is not from {lowest} to {highest}")
    args.plots_dir.mkdir(parents=True, exist_ok=True)
    if not os.access(args.plots_dir, os.W_OK):  # better now than after the training
        raise PermissionError(f"can't write into {args.plots_dir}")
    return args, given


def main(argv=None):
    parser = argparse.ArgumentParser(description="Train a CNN on MNIST.")
    choices = [*HYPERPARAMETERS, "all"]
    parser.add_argument("--variant", choices=choices, default="all", help="(default: all)")
    defaults = {
        key: ", ".join(f"{name} {row[key]:g}" for name, row in HYPERPARAMETERS.items())
        for key in FLAGS
    }
    args, given = parse_arguments(parser, argv, defaults)
    rows = {variant: row | given for variant, row in HYPERPARAMETERS.items()}
    train_data, test_data = load_data(args.data_dir, args.validate, args.device)
    for variant in rows if args.variant == "all" else [args.variant]:
        name, title = f"q3_cnn_{variant}", f"Q3 {TITLES[variant]}"
        model = train_seeds(name, variant, title, rows[variant], args, train_data, test_data)
        if variant == "bn":
            title += f", seed {args.seeds[-1]}"
            save(args, "q3_cnn_bn_wrong.png", plot_wrong(title, model, test_data))
    compare(args, rows)


if __name__ == "__main__":
    for number in signal.SIGINT, signal.SIGTERM:
        signal.signal(number, signal.default_int_handler)
    sys.stdout.reconfigure(line_buffering=True)  # so that a log file can be watched
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        sys.exit(f"Can't go on: {error}")
