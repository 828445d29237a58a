# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.6", "torchvision>=0.21", "matplotlib>=3.8", "numpy>=1.26", "tqdm>=4.66"]
# ///
"""Question 3: a CNN on MNIST, plain and with three kinds of help.

    python q3_cnn.py --variant base       (b) trained as in question 2        98.94 ± 0.29 %
    python q3_cnn.py --variant reg        (c) with weight decay and dropout   99.23 ± 0.07 %
    python q3_cnn.py --variant bn_only    (d) with batch norm alone           99.20 ± 0.07 %
    python q3_cnn.py --variant bn         (d) with batch norm and tweaks      99.58 ± 0.03 %
    python q3_cnn.py                      all four, one after another

(Accuracy on the 10,000 test images at the last of 17 epochs, mean ± sample standard deviation of
10 seeds. Made by: python q3_cnn.py --seeds 0 1 2 3 4 5 6 7 8 9)

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
import torch.nn.functional as F
import torchvision
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, LogLocator, MaxNLocator
from torch import Generator, nn
from torch.optim.lr_scheduler import ConstantLR, OneCycleLR
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import Normalize
from tqdm import tqdm

# ---------------------------------------------------------------- hyperparameters
# Plain SGD everywhere. What the other variants add to BASE was chosen with --validate.
BASE = {
    "epochs": 17,  # these three are those of question 2
    "batch_size": 64,
    "lr": 0.2,  # constant, or the peak of the one-cycle schedule
    "one_cycle": False,  # the rate rises to lr for 30 % of all steps, then falls to almost 0
    "batch_norm": False,  # after every ReLU
    "weight_decay": 0.0,  # this times each parameter is added to its gradient
    "dropout": 0.0,  # probability, before both linear layers
    "affine": 0.0,  # strength of the random affine augmentation
    "deskew": False,  # digits are moved to the middle and straightened
    "normalize": False,  # pixels are centred and scaled, by mean and deviation of the training set
    "drop_last": False,  # the last batch of an epoch, which is smaller, is left out
    "average_shifts": False,  # in evaluation, logits are averaged over shifts by one pixel
}
REG = BASE | {"weight_decay": 1e-5, "dropout": 0.25}
BN_ONLY = BASE | {"batch_norm": True}
BN = BASE | {
    "lr": 0.5,  # the peak; at a constant rate of 0.5, most seeds of base learn nothing
    "one_cycle": True,
    "batch_norm": True,
    "weight_decay": 5e-4,
    "affine": 0.1,
    "deskew": True,
    "normalize": True,
    "drop_last": True,
    "average_shifts": True,
}
HYPERPARAMETERS = {"base": BASE, "reg": REG, "bn_only": BN_ONLY, "bn": BN}
TITLES = {
    "base": "(b) CNN",
    "reg": "(c) weight decay and dropout",
    "bn_only": "(d) batch norm alone",
    "bn": "(d) batch norm and tweaks",
}
LIMITS = {  # the lowest and the highest value that a flag takes
    "epochs": (1, 10_000),
    "batch_size": (2, 10_000),  # batch norm can't train on one image; no last batch has just one
    "lr": (1e-6, 1000),
    "weight_decay": (0, 1),
    "dropout": (0, 0.99),
    "affine": (0, 1),
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
class Deskew(nn.Module):
    """Each digit of X (B, 1, 28, 28) in the middle and upright, as LeCun and others (1998) did."""

    def forward(self, X):
        # Where the middles of the pixels are, as affine_grid counts: the image is from -1 to 1.
        x = (torch.arange(28, device=X.device) + 0.5) / 14 - 1
        y = x.unsqueeze(1)
        # The pixels are masses: their centre moves to the middle, and the rows are shifted against
        # each other until x and y have no covariance.
        mass = X / X.sum((2, 3), keepdim=True).clamp(min=1e-6)
        center_x = (mass * x).sum((2, 3), keepdim=True)
        center_y = (mass * y).sum((2, 3), keepdim=True)
        covariance = (mass * (x - center_x) * (y - center_y)).sum((2, 3))
        variance = (mass * (y - center_y) ** 2).sum((2, 3))
        # theta (B, 2, 3) leads from a pixel of the new image to its place in the old one.
        theta = torch.eye(2, 3, device=X.device).repeat(len(X), 1, 1)
        theta[:, 0, 1] = (covariance / variance.clamp(min=1e-6)).flatten()
        theta[:, 0, 2] = center_x.flatten()
        theta[:, 1, 2] = center_y.flatten()
        grid = F.affine_grid(theta, X.shape, align_corners=False)
        return F.grid_sample(X, grid, align_corners=False)


class RandomAffine(nn.Module):
    """In training mode, each image of X (B, 1, 28, 28) under an affine map of its own."""

    def __init__(self, strength):
        super().__init__()
        self.strength = strength

    def forward(self, X):
        if not self.training:
            return X
        # A map for each image, where torchvision's RandomAffine has one for a batch: uniform noise
        # on its six coefficients. A strength of 0.1 moves corners by up to 4.2 px in x and in y.
        noise = self.strength * (2 * torch.rand(len(X), 2, 3, device=X.device) - 1)
        theta = torch.eye(2, 3, device=X.device) + noise
        grid = F.affine_grid(theta, X.shape, align_corners=False)
        return F.grid_sample(X, grid, align_corners=False)


class NeuralNetwork(nn.Module):
    """The CNN of the sheet with what its settings add: X (B, 1, 28, 28) to logits (B, 10)."""

    def __init__(self, settings):
        super().__init__()
        batch_norm = settings["batch_norm"]
        self.average_shifts = settings["average_shifts"]
        self.prepare = nn.Sequential(
            Deskew() if settings["deskew"] else nn.Identity(),
            RandomAffine(settings["affine"]) if settings["affine"] else nn.Identity(),
            Normalize([0.1307], [0.3081]) if settings["normalize"] else nn.Identity(),
        )
        self.stack = nn.Sequential(
            nn.Conv2d(1, 20, kernel_size=4, stride=1),  # 28 x 28 -> 25 x 25
            nn.ReLU(),
            nn.BatchNorm2d(20) if batch_norm else nn.Identity(),
            nn.Conv2d(20, 20, kernel_size=4, stride=2),  # -> 11 x 11
            nn.ReLU(),
            nn.BatchNorm2d(20) if batch_norm else nn.Identity(),
            nn.MaxPool2d(2),  # -> 5 x 5
            nn.Flatten(),
            nn.Dropout(settings["dropout"]),
            nn.Linear(20 * 5 * 5, 250),
            nn.ReLU(),
            nn.BatchNorm1d(250) if batch_norm else nn.Identity(),
            nn.Dropout(settings["dropout"]),
            nn.Linear(250, 10),
        )

    def forward(self, X):
        X = self.prepare(X)
        if self.training or not self.average_shifts:
            return self.stack(X)
        # The image and its shifts by a pixel (after Deskew, which would undo them), one after
        # another: all at once need more memory. Normalize has made the background another than 0.
        X = F.pad(X, (1, 1, 1, 1), mode="replicate")
        corners = ((1, 1), (0, 1), (2, 1), (1, 0), (1, 2))
        return sum(self.stack(X[:, :, i : i + 28, j : j + 28]) for i, j in corners) / len(corners)


# ---------------------------------------------------------------- training
progress = partial(tqdm, leave=False, disable=None)  # a bar on a terminal, none in a log file


def train_loop(dataloader, model, loss_fn, optimizer, scheduler):
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
        scheduler.step()

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
    torch.manual_seed(seed)  # of the initial weights, dropout and the affine maps
    train_dataloader = DataLoader(
        train_data,
        settings["batch_size"],
        shuffle=True,
        drop_last=settings["drop_last"],
        generator=Generator().manual_seed(seed),  # each loader its own: neither disturbs the other
        collate_fn=tuple,  # X and y come as a whole: nothing is left to stack
    )
    test_dataloader = DataLoader(test_data, EVAL_BATCH, generator=Generator(), collate_fn=tuple)
    device = train_data.tensors[0].device
    model = NeuralNetwork(settings).to(device)
    if device.type == "cpu":  # convolutions are faster with a pixel's channels side by side
        model = model.to(memory_format=torch.channels_last)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=settings["lr"], weight_decay=settings["weight_decay"]
    )
    if settings["one_cycle"]:
        steps = settings["epochs"] * len(train_dataloader)
        scheduler = OneCycleLR(optimizer, settings["lr"], steps, cycle_momentum=False)
    else:
        scheduler = ConstantLR(optimizer, factor=1)  # the rate stays as it is
    for _ in range(settings["epochs"]):
        train_metrics = train_loop(progress(train_dataloader), model, loss_fn, optimizer, scheduler)
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
        if epoch == record["hyperparameters"]["epochs"]:
            wrong = predict(model, test_data).argmax(1) != test_data.tensors[1]
            record["wrong"][seed] = wrong.nonzero().flatten().tolist()  # their places in the data
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
        "wrong": {},
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


@torch.no_grad()
def predict(model, data):
    """Return the probabilities (N, 10) that the model gives to the digits."""
    model.eval()
    dataloader = DataLoader(data, EVAL_BATCH, generator=Generator(), collate_fn=tuple)
    return torch.cat([model(X).softmax(1) for X, _ in dataloader])


def load_records(args, all_settings):
    """Return the records of all variants, if all are whole and of these settings and seeds."""
    records = {}
    for variant, settings in all_settings.items():
        path = args.plots_dir / f"q3_cnn_{variant}.json"
        try:
            record = json.loads(path.read_text())
            whole = len(record["epochs"]) == settings["epochs"] * len(args.seeds)
            same = record["hyperparameters"] == settings and record["seeds"] == args.seeds
        except (OSError, ValueError, KeyError, TypeError):  # not there, or of another layout
            return None
        if not (whole and same):
            return None
        records[variant] = record
    return records


# ---------------------------------------------------------------- plots
TICKS = [0.1, 0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.995, 0.999, 0.9999]  # far enough apart to be read
CLOSE_TICKS = [0.1, 0.5, 0.9, 0.98, 0.985, 0.99, 0.992, 0.994, 0.996, 0.998]  # in the comparison


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


def plot_wrong(path, title, model, data):
    """Draw the digits, 48 at most, that the model misreads, the most confident guess first."""
    images, labels = data.tensors
    probability, predicted = predict(model, data).max(1)
    wrong = (predicted != labels).nonzero().flatten()
    wrong = wrong[probability[wrong].argsort(descending=True)].tolist()
    figure = Figure(figsize=(10, 4), layout="constrained")
    figure.suptitle(f"{title}: {len(wrong)} of {len(labels):,} wrong (label→guess, probability)")
    axes = figure.subplots(4, 12).ravel()
    for ax in axes:
        ax.axis("off")
    for ax, i in zip(axes, wrong, strict=False):  # as many as there are places
        ax.imshow(images[i].numpy(force=True), cmap="gray_r")
        ax.set_title(f"{labels[i]}→{predicted[i]}, {probability[i]:.0%}", fontsize=10.5)
    figure.savefig(path, dpi=220)


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
    parser = argparse.ArgumentParser(description=f"Train a CNN on MNIST: {HYPERPARAMETERS}")
    parser.add_argument("--variant", choices=[*HYPERPARAMETERS, "all"], default="all")
    args = parse(parser, BASE, argv)
    given = {key: getattr(args, key) for key in BASE if getattr(args, key) is not None}
    all_settings = {variant: row | given for variant, row in HYPERPARAMETERS.items()}
    variants = list(all_settings) if args.variant == "all" else [args.variant]
    train_data, test_data = load_data(args.data_dir, args.validate, args.device)
    with matplotlib.style.context("default"):  # not those of the user's own matplotlibrc
        for variant in variants:
            name = f"q3_cnn_{variant}"
            title = f"Q3 {TITLES[variant]}"
            settings = all_settings[variant]
            model = run(name, variant, title, settings, args, train_data, test_data)
            if variant == "bn":
                path = args.plots_dir / "q3_cnn_bn_wrong.png"
                plot_wrong(path, f"{title}, seed {args.seeds[-1]}", model, test_data)
                print(f"wrote {path}")
        records = load_records(args, all_settings)
        if records:
            curves = {TITLES[variant]: (record, args.split) for variant, record in records.items()}
            title = f"Q3: the four CNNs on the {args.split} images, seeds: {len(args.seeds)}"
            path = args.plots_dir / "q3_cnn_comparison.png"
            plot(path, title, curves, CLOSE_TICKS)
            print(f"wrote {path}")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(130)  # what a shell expects after Ctrl-C
