"""MNIST with a 784-200-200-10 ReLU network (question 2 of the homework).

    pip install "torch>=2.6" torchvision matplotlib numpy tqdm
    python q2_mlp.py                      train on 60,000 images, report on the 10,000 test images
    python q2_mlp.py --validate           train on 50,000, report on the 10,000 held out of training
    python q2_mlp.py --seeds 0 1 2 3 4    five runs, reported as mean and spread

Writes plots/q2_mlp.png and plots/q2_mlp.json beside this file. The loops are those of the PyTorch
basics tutorial, https://pytorch.org/tutorials/beginner/basics/optimization_tutorial.html
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
import torchvision
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator
from torch import nn
from tqdm import tqdm

# ---------------------------------------------------------------- hyperparameters

# Plain SGD as in the tutorial; the values were chosen with --validate.
HYPERPARAMETERS = {"epochs": 17, "batch_size": 64, "lr": 0.2}

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


def train(settings, seed, train_data, test_data, split):
    """Train one network; return it, its figures per epoch, and an exit code, 0 if all went well."""
    torch.manual_seed(seed)
    shuffle = torch.Generator().manual_seed(seed)  # its own: nothing else draws from it
    model = NeuralNetwork().to(train_data[0].device)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=settings["lr"])
    epochs = []
    try:
        for epoch in range(1, settings["epochs"] + 1):
            start = time.perf_counter()
            order = torch.randperm(len(train_data[1]), generator=shuffle)
            loader = batches(train_data, settings["batch_size"], order)
            train_loss, train_accuracy = train_loop(loader, model, loss_fn, optimizer)
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
    except KeyboardInterrupt:
        return model, epochs, 130
    return model, epochs, 0


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


# ---------------------------------------------------------------- command line
FLAGS = {  # type, lowest, highest, meaning
    "epochs": (int, 1, 10_000, "passes over the training images"),
    "batch_size": (int, 2, 10_000, "images per step"),
    "lr": (float, 1e-6, 1000, "learning rate"),
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
    parser = argparse.ArgumentParser(description="Train a 784-200-200-10 network on MNIST.")
    args, given = parse_arguments(parser, argv, HYPERPARAMETERS)
    data = load_data(args.data_dir, args.validate, args.device)
    train_seeds("q2_mlp", None, "Q2: MLP 784-200-200-10", HYPERPARAMETERS | given, args, *data)


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
