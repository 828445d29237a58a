# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.6", "torchvision>=0.21", "matplotlib>=3.8", "numpy>=1.26", "tqdm>=4.66"]
# ///
"""Question 2: a 784-200-200-10 ReLU network on MNIST classifies 98.31 ± 0.04 % correctly.

(Accuracy on the 10,000 test images at the last of 17 epochs, mean ± sample standard deviation of
10 seeds. Made by: python q2_mlp.py --seeds 0 1 2 3 4 5 6 7 8 9. The loops are those of
https://pytorch.org/tutorials/beginner/basics/optimization_tutorial.html)
Reads MNIST from data/ beside this file, or downloads it there; writes figures and their JSON into
plots/. --validate reports on 10,000 training images held out; --help tells the other flags.
"""

import argparse
import json
import socket
import sys
import time
from functools import partial
from pathlib import Path

import matplotlib.style
import numpy as np
import torch
import torchvision
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator
from torch import Generator, nn
from torch.utils.data import DataLoader, TensorDataset
from tqdm import tqdm

# ---------------------------------------------------------------- hyperparameters
# Plain SGD. Batch size and rate were chosen with --validate, to suit question 3 (b) too.
HYPERPARAMETERS = {
    "epochs": 17,  # what time allows
    "batch_size": 64,
    "lr": 0.2,
}
LIMITS = {  # the lowest and the highest value that a flag takes
    "epochs": (1, 10_000),
    "batch_size": (1, 10_000),
    "lr": (1e-6, 1000),
    "threads": (1, 1024),
}
HELD_OUT = 10_000  # images that --validate reports on: as many as the test set has
EVAL_BATCH = 250  # images; for speed and memory: changes results by rounding only


# ---------------------------------------------------------------- data
class ImageDataset(TensorDataset):
    """Images (N, 28, 28) uint8 and labels (N,) int64; DataLoader gets whole batches, for speed."""

    def __getitems__(self, indices):
        """Return X (B, 1, 28, 28) float32 in [0, 1], as ToTensor makes it, and y (B,) int64."""
        images, labels = self.tensors
        X = images[indices].unsqueeze(1) / 255
        return X, labels[indices]


def load_mnist(data_dir, train, device):
    """Return the training or the test images of MNIST, on the device; exit if not to be had."""
    socket.setdefaulttimeout(30)  # seconds: a mirror that never answers would stop us for good
    first_labels = [5, 0, 4, 1, 9] if train else [7, 2, 1, 0, 4]
    try:
        mnist = torchvision.datasets.MNIST(data_dir, train=train, download=True)
        if mnist.targets[:5].tolist() != first_labels:  # FashionMNIST has the same file names
            raise ValueError(f"its first labels are not {first_labels}: another data set")
        return ImageDataset(mnist.data.to(device), mnist.targets.to(device))
    except Exception as error:  # a failed download and each kind of broken file raise their own
        sys.exit(
            f"Can't read MNIST or download it ({error!r}). Put its four files, unzipped, into "
            f"{data_dir / 'MNIST' / 'raw'}, or delete that folder to download them anew; "
            "--data-dir names the folder above MNIST."
        )


def load_data(data_dir, validate, device):
    """Return train_data and test_data; to validate, the last training images are the second."""
    train_data = load_mnist(data_dir, train=True, device=device)
    if not validate:
        return train_data, load_mnist(data_dir, train=False, device=device)
    images, labels = train_data.tensors
    held_out = ImageDataset(images[-HELD_OUT:], labels[-HELD_OUT:])
    return ImageDataset(images[:-HELD_OUT], labels[:-HELD_OUT]), held_out


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
progress = partial(tqdm, leave=False, disable=None)  # a bar on a terminal, none in a log file


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
        # Times len(y): the last batch is smaller. No .item() yet: a GPU would wait at every batch.
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
    torch.manual_seed(seed)  # of the initial weights
    train_dataloader = DataLoader(
        train_data,
        settings["batch_size"],
        shuffle=True,
        generator=Generator().manual_seed(seed),  # each loader its own: neither disturbs the other
        collate_fn=tuple,  # X and y come as a whole: nothing is left to stack
    )
    test_dataloader = DataLoader(test_data, EVAL_BATCH, generator=Generator(), collate_fn=tuple)
    model = NeuralNetwork().to(train_data.tensors[0].device)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=settings["lr"])
    for _ in range(settings["epochs"]):
        train_metrics = train_loop(progress(train_dataloader), model, loss_fn, optimizer)
        test_metrics = test_loop(progress(test_dataloader), model, loss_fn)
        yield model, train_metrics, test_metrics


# ---------------------------------------------------------------- results
def train_and_record(path, record, seed, train_data, test_data):
    """Train one network; record, save and print each epoch; return the network."""
    split = record["split"]
    start = time.perf_counter()
    epochs = train(record["hyperparameters"], seed, train_data, test_data)  # each turn trains one
    for epoch, (model, train_metrics, test_metrics) in enumerate(epochs, start=1):
        place = f"seed {seed} epoch {epoch:2}"
        train_loss, train_accuracy = train_metrics
        test_loss, test_accuracy = test_metrics
        if not np.isfinite(train_loss + test_loss):
            sys.exit(f"{record['title']}, {place}: the loss is not finite. Try a smaller --lr.")
        metrics = {
            "seed": seed,
            "epoch": epoch,
            "train_loss": train_loss,
            "train_accuracy": train_accuracy,
            f"{split}_loss": test_loss,
            f"{split}_accuracy": test_accuracy,
            "seconds": time.perf_counter() - start,
        }
        record["epochs"].append(metrics)
        record["parameters"] = sum(p.numel() for p in model.parameters())
        # Whole or not at all, and before the line is printed: an epoch that was seen is saved.
        draft = path.with_suffix(".part")
        draft.write_text(json.dumps(record, indent=1))
        draft.replace(path)
        train_text = f"train loss {train_loss:.4f} accuracy {train_accuracy:7.2%}"
        test_text = f"{split} loss {test_loss:.4f} accuracy {test_accuracy:7.2%}"
        print(f"{place}  {train_text}  {test_text}  {metrics['seconds']:5.1f} s", flush=True)
        start = time.perf_counter()  # saving and printing are not the epoch's
    return model


def run(name, variant, title, settings, args, train_data, test_data):
    """Train one network per seed, record them and draw their curves; return the last one."""
    record = {
        "script": Path(__file__).name,
        "variant": variant,
        "title": title,
        "split": args.split,
        "hyperparameters": settings,
        "seeds": args.seeds,
        "environment": {
            "python": sys.version.split()[0],
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "device": args.device,
            "processor": torch.backends.cpu.get_cpu_capability(),
            "threads": args.threads,
        },
        "epochs": [],
    }
    path = args.plots_dir / f"{name}.json"
    print(f"{title} on {args.device}: {settings}", flush=True)
    try:
        for seed in args.seeds:
            model = train_and_record(path, record, seed, train_data, test_data)
    finally:  # after Ctrl-C, too
        if record["epochs"]:
            curves = {"train (running mean)": (record, "train"), args.split: (record, args.split)}
            plot(path.with_suffix(".png"), f"{title}\n{final_metrics(record)}", curves)
    print(f"{title}, {final_metrics(record)}\nwrote {path} and .png")
    return model


def final_metrics(record):
    """Return the metrics of the last epoch, never the best, as text: mean ± sample deviation."""
    split = record["split"]
    last = max(metrics["epoch"] for metrics in record["epochs"])
    finals = [metrics for metrics in record["epochs"] if metrics["epoch"] == last]
    loss = np.mean([metrics[f"{split}_loss"] for metrics in finals])
    accuracy = [100 * metrics[f"{split}_accuracy"] for metrics in finals]
    text = f"epoch {last}: {split} loss {loss:.4f}, accuracy {np.mean(accuracy):.2f}"
    if len(finals) > 1:
        text += f" ± {np.std(accuracy, ddof=1):.2f}"
    return f"{text} %, seeds: {len(finals)}"


# ---------------------------------------------------------------- plots
TICKS = [0.1, 0.5, 0.8, 0.9, 0.97, 0.99, 0.997, 0.999, 0.9999]  # far enough apart to be read


def plot(path, title, curves, ticks=TICKS):
    """Draw loss and accuracy per epoch, medians and quartiles; curves: label to (record, part)."""
    figure = Figure(figsize=(6.4, 2.7), layout="constrained")
    figure.suptitle(title, fontsize="medium")
    loss_ax, accuracy_ax = figure.subplots(1, 2)
    for (label, (record, part)), style in zip(curves.items(), ["--", "-", "-.", ":"], strict=False):
        for ax, metric in ((loss_ax, "loss"), (accuracy_ax, "accuracy")):
            values = quartiles(record, f"{part}_{metric}")
            if metric == "accuracy":
                values = values.clip(1e-3, 0.99999)  # the logit of 0 and 1 is infinite
            lower, median, upper = values
            epochs = range(1, len(median) + 1)
            (line,) = ax.plot(epochs, median, style, marker=".", label=label)
            ax.fill_between(epochs, lower, upper, color=line.get_color(), alpha=0.2, linewidth=0)
    loss_ax.set(ylabel="average loss (nats)", yscale="log")
    loss_ax.yaxis.set(major_locator=LogLocator(subs=(1, 2, 5)), major_formatter="{x:g}")
    accuracy_ax.set(ylabel="accuracy (%)", yscale="logit")
    accuracy_ax.yaxis.set_major_locator(FixedLocator(ticks))
    accuracy_ax.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}")
    for ax in (loss_ax, accuracy_ax):
        ax.set_xlabel("epoch (median and quartiles)" if len(record["seeds"]) > 1 else "epoch")
        ax.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        ax.minorticks_off()
        ax.grid(alpha=0.3)
    figure.legend(*loss_ax.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    figure.savefig(path, dpi=220)


def quartiles(record, key):
    """Return lower quartile, median and upper quartile over the seeds of a metric, (3, epochs)."""
    per_epoch = {}
    for metrics in record["epochs"]:
        per_epoch.setdefault(metrics["epoch"], []).append(metrics[key])
    return np.transpose([np.percentile(values, [25, 50, 75]) for values in per_epoch.values()])


# ---------------------------------------------------------------- command line
def parse(parser, settings, argv):
    """Return the flags, in range and ready for use; a hyperparameter without its flag is None."""
    for key, value in settings.items():
        flag = f"--{key.replace('_', '-')}"
        if isinstance(value, bool):
            parser.add_argument(flag, action=argparse.BooleanOptionalAction)
        else:
            parser.add_argument(flag, type=type(value), help="from {} to {}".format(*LIMITS[key]))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="one run each")
    parser.add_argument("--validate", action="store_true", help="report on held-out images")
    parser.add_argument("--threads", type=int, default=1, help="more than 1 is seldom faster")
    devices = ["cpu"]
    if torch.accelerator.is_available():
        devices.insert(0, torch.accelerator.current_accelerator().type)
    parser.add_argument("--device", choices=devices, default=devices[0])
    here = Path(__file__).resolve().parent
    parser.add_argument("--data-dir", type=Path, default=here / "data")
    parser.add_argument("--plots-dir", type=Path, default=here / "plots")
    args = parser.parse_args(argv)
    for key, (lowest, highest) in LIMITS.items():
        value = getattr(args, key)
        if value is not None and not lowest <= value <= highest:  # nan is in no range
            parser.error(f"--{key.replace('_', '-')}: {value} is not from {lowest} to {highest}")
    if min(args.seeds) < 0 or max(args.seeds) >= 2**63 or len(set(args.seeds)) < len(args.seeds):
        parser.error("--seeds: not all different, or not from 0 to 9223372036854775807")
    try:
        torch.ones(1, device=args.device).sum().item()
    except RuntimeError as error:  # a GPU too old for this torch, or one without free memory
        print(f"Training on the CPU: {args.device} does not work ({str(error).splitlines()[0]})")
        args.device = "cpu"
    torch.set_num_threads(args.threads)
    args.data_dir = args.data_dir.expanduser()  # a shell leaves the ~ of --data-dir=~/data
    args.plots_dir = args.plots_dir.expanduser()
    args.split = "validation" if args.validate else "test"
    if args.validate:
        args.plots_dir /= "validation"
    args.plots_dir.mkdir(parents=True, exist_ok=True)
    return args


def main(argv=None):
    parser = argparse.ArgumentParser(description=f"Train an MLP on MNIST: {HYPERPARAMETERS}")
    args = parse(parser, HYPERPARAMETERS, argv)
    given = {key: getattr(args, key) for key in HYPERPARAMETERS if getattr(args, key) is not None}
    train_data, test_data = load_data(args.data_dir, args.validate, args.device)
    with matplotlib.style.context("default"):  # not those of the user's own matplotlibrc
        settings = HYPERPARAMETERS | given
        run("q2_mlp", None, "Q2: MLP 784-200-200-10", settings, args, train_data, test_data)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)  # what a shell expects after Ctrl-C
