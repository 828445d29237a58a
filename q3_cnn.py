# /// script
# requires-python = ">=3.10"
# dependencies = ["torch>=2.6", "torchvision>=0.21", "matplotlib>=3.8", "numpy>=1.26", "tqdm>=4.66"]
# ///
"""Question 3: a CNN on MNIST, plain and with three kinds of help.

    python q3_cnn.py --variant base       (b) trained as in question 2        99.08 ± 0.08 %
    python q3_cnn.py --variant reg        (c) with weight decay and dropout   99.23 ± 0.07 %
    python q3_cnn.py --variant bn_only    (d) with batch norm alone           99.20 ± 0.07 %
    python q3_cnn.py --variant bn         (d) with batch norm and tweaks      99.56 ± 0.05 %
    python q3_cnn.py                      all four, one after another

(Accuracy on the 10,000 test images at the last of 17 epochs, mean ± sample standard deviation of
10 seeds. Made by: python q3_cnn.py --seeds 0 1 2 3 4 5 6 7 8 9)

    pip install torch torchvision matplotlib numpy tqdm
    uv run q3_cnn.py                      does the installation by itself

With --validate it trains on 50,000 images and reports on the 10,000 held out of training; --help
tells the other flags. Reads MNIST from data/ beside this file, or downloads it there; writes
plots/q3_cnn_<variant>.png and .json, and the digits that bn has wrong; once all variants are there,
their comparison, and what the layers of base and bn_only receive.
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
import torch.nn.functional as F
import torchvision
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator
from torch import nn
from tqdm import tqdm

# ---------------------------------------------------------------- hyperparameters

# Plain SGD everywhere. What the other variants add to BASE was chosen with --validate.
BASE = {
    "epochs": 17,  # these three are those of question 2
    "batch_size": 64,
    "lr": 0.2,  # constant, or the peak of the one-cycle schedule
    "one_cycle": False,
    "batch_norm": False,
    "weight_decay": 0.0,
    "dropout": 0.0,  # probability, before both linear layers
    "affine": 0.0,  # strength of the random affine augmentation
    "deskew": False,  # digits are moved to the middle and straightened
    "normalize": False,  # pixels are centred and scaled
    "drop_last": False,  # the last batch of an epoch, which is smaller, is left out
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
}
HYPERPARAMETERS = {"base": BASE, "reg": REG, "bn_only": BN_ONLY, "bn": BN}
TITLES = {
    "base": "(b) CNN",
    "reg": "(c) weight decay and dropout",
    "bn_only": "(d) batch norm alone",
    "bn": "(d) batch norm and tweaks",
}

HELD_OUT = 10_000  # images that --validate reports on: as many as the test set has
EVAL_BATCH = 500  # images; for speed and memory: changes results by rounding only
START_IMAGES = 500  # training images that an untrained network is shown, as one batch
END_IMAGES = 2000  # training images that a trained network is shown
LAYER_BINS = (-3, 7, 50)  # lowest, highest, number of bins for the histograms of layer inputs
LAYERS = ["conv 1", "conv 2", "linear 1", "linear 2"]  # in the order of the network


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


def deskew(images):
    """Return images (N, 28, 28) uint8 with each digit in the middle and upright.

    With the pixels as masses, the centre of mass moves to the middle of the image, and the rows are
    shifted against each other by covariance(x, y) / variance(y), which leaves no covariance.
    LeCun and others (1998) deskewed MNIST by such moments. An empty image stays as it is.
    """
    identity = torch.eye(2, 3, device=images.device)
    # Where the pixels are, as affine_grid counts: from -1 to 1. x and y are (28, 28).
    places = F.affine_grid(identity.unsqueeze(0), (1, 1, 28, 28), align_corners=False)
    x = places[0, :, :, 0]
    y = places[0, :, :, 1]
    upright = torch.empty_like(images)
    # Small pieces need less memory.
    for pixels, result in zip(images.split(64), upright.split(64), strict=True):
        mass = pixels / pixels.sum((1, 2), keepdim=True).clamp(min=1)
        center_x = (mass * x).sum((1, 2), keepdim=True)
        center_y = (mass * y).sum((1, 2), keepdim=True)
        covariance = (mass * (x - center_x) * (y - center_y)).sum((1, 2))
        variance = (mass * (y - center_y) ** 2).sum((1, 2))
        # theta (B, 2, 3) leads from a pixel of the new image to its place in the old one.
        theta = identity.repeat(len(pixels), 1, 1)
        theta[:, 0, 1] = covariance / variance.clamp(min=1e-6)
        theta[:, 0, 2] = center_x.flatten()
        theta[:, 1, 2] = center_y.flatten()
        X = pixels.unsqueeze(1).float()
        grid = F.affine_grid(theta, X.shape, align_corners=False)
        X = F.grid_sample(X, grid, align_corners=False)
        result.copy_(X.round().squeeze(1))
    return upright


def as_seen(data, settings):
    """Return (images, labels) as a network of these settings sees them."""
    images, labels = data
    if settings["deskew"]:
        images = deskew(images)
    return images, labels


def random_affine(X, strength):
    """Return X (B, 1, 28, 28), each image under an affine map of its own near the identity.

    The six coefficients have uniform noise of up to ± strength; 0.1 moves corners by up to 4 px.
    """
    noise = strength * (2 * torch.rand(len(X), 2, 3, device=X.device) - 1)
    theta = torch.eye(2, 3, device=X.device) + noise
    grid = F.affine_grid(theta, X.shape, align_corners=False)
    return F.grid_sample(X, grid, align_corners=False)


def augment(dataloader, strength):
    """Yield the batches X, y with a random affine map of its own for each image."""
    for X, y in dataloader:
        yield random_affine(X, strength), y


def full_batches(dataloader, batch_size):
    """Yield the batches X, y that have batch_size images: all but the last, if it is smaller."""
    for X, y in dataloader:
        if len(y) == batch_size:
            yield X, y


# ---------------------------------------------------------------- model
class NeuralNetwork(nn.Module):
    """The CNN of the sheet: X (B, 1, 28, 28) to logits (B, 10)."""

    def __init__(self, batch_norm=False, dropout=0.0, normalize=False):
        super().__init__()
        if normalize:  # by mean and standard deviation of MNIST's training pixels
            self.normalize = torchvision.transforms.Normalize([0.1307], [0.3081])
        else:
            self.normalize = nn.Identity()
        if batch_norm:
            norms = [nn.BatchNorm2d(20), nn.BatchNorm2d(20), nn.BatchNorm1d(250)]
        else:
            norms = [nn.Identity(), nn.Identity(), nn.Identity()]
        self.stack = nn.Sequential(
            nn.Conv2d(1, 20, kernel_size=4, stride=1),  # 28 x 28 -> 25 x 25
            nn.ReLU(),
            norms[0],
            nn.Conv2d(20, 20, kernel_size=4, stride=2),  # -> 11 x 11
            nn.ReLU(),
            norms[1],
            nn.MaxPool2d(2),  # -> 5 x 5
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(20 * 5 * 5, 250),
            nn.ReLU(),
            norms[2],
            nn.Dropout(dropout),
            nn.Linear(250, 10),
        )

    def forward(self, X):
        return self.stack(self.normalize(X))


def new_network(settings, device):
    """Return an untrained network of these settings."""
    model = NeuralNetwork(
        batch_norm=settings["batch_norm"],
        dropout=settings["dropout"],
        normalize=settings["normalize"],
    )
    model = model.to(device)
    if device.type == "cpu":  # convolutions are faster with a pixel's channels side by side
        model = model.to(memory_format=torch.channels_last)
    return model


# ---------------------------------------------------------------- training
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


def new_scheduler(settings, optimizer, samples):
    """Return the schedule of the learning rate, stepped after each batch."""
    if not settings["one_cycle"]:
        return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1)  # the rate stays as it is
    steps_per_epoch = math.ceil(samples / settings["batch_size"])
    if settings["drop_last"]:
        steps_per_epoch = samples // settings["batch_size"]
    return torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        max_lr=settings["lr"],
        epochs=settings["epochs"],
        steps_per_epoch=steps_per_epoch,
        cycle_momentum=False,  # plain SGD has no momentum
    )


def train(settings, seed, train_data, test_data):
    """Train one network; yield it after each epoch, with (loss, accuracy) in training and test."""
    torch.manual_seed(seed)
    # A generator of its own: whatever else draws random numbers, the order of the images stays.
    generator = torch.Generator().manual_seed(seed)
    device = train_data[0].device
    model = new_network(settings, device)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(
        model.parameters(), lr=settings["lr"], weight_decay=settings["weight_decay"]
    )
    scheduler = new_scheduler(settings, optimizer, len(train_data[1]))
    for _ in range(settings["epochs"]):
        train_batches = batches(train_data, settings["batch_size"], generator)
        if settings["drop_last"]:
            train_batches = full_batches(train_batches, settings["batch_size"])
        if settings["affine"]:
            train_batches = augment(train_batches, settings["affine"])
        train_metrics = train_loop(train_batches, model, loss_fn, optimizer, scheduler)
        test_metrics = test_loop(batches(test_data, EVAL_BATCH), model, loss_fn)
        yield model, train_metrics, test_metrics


# ---------------------------------------------------------------- results
@torch.no_grad()
def predict(dataloader, model):
    """Return the probabilities (N, 10) that the model gives to the digits."""
    model.eval()
    return torch.cat([model(X).softmax(1) for X, _ in dataloader])


def wrong_images(model, data):
    """Return the indices of the images that the model has wrong, to compare variants by image."""
    predicted = predict(batches(data, EVAL_BATCH), model).argmax(1)
    return (predicted != data[1]).nonzero().flatten().tolist()


def record_layers(settings, seed, model, data, with_counts):
    """Return what each layer receives before training and after it, and how many channels are dead.

    Before training, on START_IMAGES images as one batch: batch norm uses the statistics of that
    batch, as in training, but nothing is dropped. After it, on END_IMAGES images, as in evaluation.
    "never_fires" counts the channels that a ReLU leaves at zero at every place of every image,
    "low_variance" those of hardly any running variance; both by the layer before the ReLU.
    """
    images, labels = data
    torch.manual_seed(seed)  # the network that this training began with
    untrained = new_network(settings | {"dropout": 0.0}, images.device)
    few = batches((images[:START_IMAGES], labels[:START_IMAGES]), START_IMAGES)
    start, _ = look_inside(untrained, few, with_counts)
    model.eval()
    many = batches((images[:END_IMAGES], labels[:END_IMAGES]), EVAL_BATCH)
    end, never_fires = look_inside(model, many, with_counts)
    norms = [layer for layer in model.stack if isinstance(layer, (nn.BatchNorm2d, nn.BatchNorm1d))]
    low_variance = {}
    for index, norm in enumerate(norms):
        low_variance[LAYERS[index]] = (norm.running_var < 1e-4).sum().item()
    return {"start": start, "end": end, "never_fires": never_fires, "low_variance": low_variance}


@torch.no_grad()
def look_inside(model, dataloader, with_counts):
    """Return a description of what each layer receives, and how many channels never fire."""
    sums = dict.fromkeys(LAYERS, 0)
    fires = dict.fromkeys(LAYERS[:-1], False)  # after the last layer there is no ReLU
    for X, _ in dataloader:
        X = model.normalize(X)
        index = -1
        for layer in model.stack:
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                index += 1
                sums[LAYERS[index]] += sums_and_counts(X)
            X = layer(X)
            if isinstance(layer, nn.ReLU):  # noted under the layer that it follows
                fired = (X > 0).transpose(0, 1).flatten(1)
                fires[LAYERS[index]] |= fired.any(1)
    inputs = {name: describe(sums[name], with_counts) for name in LAYERS}
    never_fires = {name: (~channels).sum().item() for name, channels in fires.items()}
    return inputs, never_fires


def sums_and_counts(X):
    """Return number, sum, sum of squares and counts in LAYER_BINS of the values of a tensor."""
    values = X.numpy(force=True).ravel()
    lowest, highest, bins = LAYER_BINS
    # What lies outside is counted in the outermost bins.
    counts, _ = np.histogram(values.clip(lowest, highest), bins, (lowest, highest))
    total = values.sum(dtype=np.float64)
    squares = np.square(values).sum(dtype=np.float64)
    return np.array([values.size, total, squares, *counts])


def describe(sums, with_counts):
    """Return mean, standard deviation and, if asked, the counts as the JSON has them."""
    number, total, squares, *counts = sums.tolist()
    mean = total / number
    variance = max(squares / number - mean**2, 0)  # rounding can make it negative
    description = {"mean": mean, "standard_deviation": math.sqrt(variance)}
    if with_counts:
        description["counts"] = [int(count) for count in counts]
    return description


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
            epochs[-1]["wrong"] = wrong_images(model, test_data)
            first = seed == args.seeds[0]  # the figure shows it; counts of all make a long file
            layers = record_layers(settings, seed, model, train_data, with_counts=first)
            record["runs"][-1]["layers"] = layers
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


def plot_comparison(records):
    """Return a figure of all variants, without the bands that would squash the curves."""
    split = records["base"]["split"]
    curves = {TITLES[variant]: (record, split) for variant, record in records.items()}
    seeds = len(records["base"]["seeds"])
    title = f"Q3: the four CNNs on the {split} images"
    if seeds > 1:
        title += f", {seeds} seeds"
    return plot(title, curves, bands=False)


def plot_layers(records):
    """Return a figure of what the last three layers receive, in base and in bn_only."""
    networks = {"without batch norm": records["base"], "with batch norm": records["bn_only"]}
    seed = records["base"]["runs"][0]["seed"]
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    figure.suptitle(f"Q3: what the layers receive in (b) and with batch norm alone, seed {seed}")
    axes = figure.subplots(2, 3, sharex=True, sharey=True)
    # Above 100 % is room for the legends.
    axes[0, 0].set(yscale="log", ylim=(0.01, 5000), yticks=[0.01, 0.1, 1, 10, 100])
    times = {"start": "before training", "end": "after training"}
    for row, when in enumerate(times):
        for column, layer in enumerate(LAYERS[1:]):
            ax = axes[row, column]
            for index, record in enumerate(networks.values()):
                inputs = record["runs"][0]["layers"][when][layer]
                plot_inputs(ax, inputs, STYLES[index])
            ax.set_title(f"input of {layer}, {times[when]}")
            ax.legend(loc="upper right", frameon=False)
            ax.minorticks_off()
            ax.grid(alpha=0.3)
    for ax in axes[1]:
        ax.set_xlabel("value; line: mean")
    for ax in axes[:, 0]:
        ax.set_ylabel("share of values (%)")
        ax.yaxis.set_major_formatter("{x:g}")
    handles, _ = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, list(networks), loc="outside lower center", ncols=2)
    return figure


def plot_inputs(ax, inputs, style):
    """Draw how the inputs of a layer are distributed, with a line at their mean."""
    lowest, highest, bins = LAYER_BINS
    edges = np.linspace(lowest, highest, bins + 1)
    share = 100 * np.array(inputs["counts"]) / sum(inputs["counts"])
    mean = round(inputs["mean"], 2) + 0.0  # makes 0.00 of -0.00
    label = f"mean {mean:.2f}, s.d. {inputs['standard_deviation']:.2f}"
    ax.stairs(share, edges, fill=True, color=style["color"], alpha=0.4, label=label)
    ax.axvline(inputs["mean"], **style)


def plot_wrong(title, model, data, seen_data):
    """Return a figure of the digits, 48 at most, that are wrong, the most confident first.

    Where the model sees something else than the images of data, that is drawn beside them.
    """
    images, labels = data
    seen_images, _ = seen_data
    probability, predicted = predict(batches(seen_data, EVAL_BATCH), model).max(1)
    wrong = (predicted != labels).nonzero().flatten()
    wrong = wrong[probability[wrong].argsort(descending=True)].tolist()
    figure = Figure(figsize=(10, 3.2), layout="constrained")
    figure.suptitle(f"{title}: {len(wrong)} of {len(labels):,} wrong (label→guess, probability)")
    axes = figure.subplots(4, 12).ravel()
    for ax in axes:
        ax.axis("off")
    for ax, i in zip(axes, wrong, strict=False):  # as many as there are places
        pictures = [images[i]]
        if not torch.equal(images[i], seen_images[i]):
            pictures.append(seen_images[i])
        ax.imshow(torch.hstack(pictures).numpy(force=True), cmap="gray_r")
        ax.set_title(f"{labels[i]}→{predicted[i]}, {probability[i]:.0%}", fontsize=9)
    return figure


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


def load_finished(args, all_settings):
    """Return the records of all variants; None unless all are whole and of these settings."""
    records = {}
    for variant, settings in all_settings.items():
        try:
            text = result_path(args, f"q3_cnn_{variant}", ".json").read_text()
            record = json.loads(text)
        except (OSError, ValueError):
            return None
        if record["interrupted"] or record["seeds"] != args.seeds:
            return None
        if record["hyperparameters"] != settings:
            return None
        records[variant] = record
    return records


def run_variant(variant, settings, args):
    """Train and record a variant; for bn, draw the digits that its last network has wrong."""
    title = f"Q3 {TITLES[variant]}"
    name = f"q3_cnn_{variant}"
    # Loaded for each variant anew, so that deskewed training images can take the place of the plain
    # ones in memory.
    train_data, test_data = load_data(args.data_dir, args.validate, args.device)
    train_data = as_seen(train_data, settings)
    seen_test = as_seen(test_data, settings)
    model = train_and_record(name, variant, title, settings, args, train_data, seen_test)
    if variant == "bn":
        figure = plot_wrong(f"{title}, seed {args.seeds[-1]}", model, test_data, seen_test)
        save_figure(args, "q3_cnn_bn_wrong", figure)
        print(f"wrote {result_path(args, 'q3_cnn_bn_wrong', '.png')}")


def main(argv=None):
    texts = [f"{variant}: {settings_text(row)}" for variant, row in HYPERPARAMETERS.items()]
    parser = new_parser("Train a CNN on MNIST.", "; ".join(texts))
    variants = [*HYPERPARAMETERS, "all"]
    variant_help = "base: question 3 (b); reg: (c); bn_only and bn: (d)"
    parser.add_argument("--variant", choices=variants, default="all", help=variant_help)
    yes_or_no = argparse.BooleanOptionalAction
    zero_to_one = in_range(float, 0, 1)
    parser.add_argument("--one-cycle", action=yes_or_no, help="let the rate rise to --lr and fall")
    parser.add_argument("--batch-norm", action=yes_or_no, help="batch norm after every ReLU")
    parser.add_argument("--weight-decay", type=zero_to_one, help="how much the weights shrink")
    parser.add_argument(
        "--dropout", type=in_range(float, 0, 0.99), help="probability, before both linear layers"
    )
    parser.add_argument(
        "--affine", type=zero_to_one, help="strength of the random affine augmentation"
    )
    parser.add_argument("--deskew", action=yes_or_no, help="straighten the digits")
    parser.add_argument("--normalize", action=yes_or_no, help="centre and scale the pixels")
    parser.add_argument("--drop-last", action=yes_or_no, help="leave out a last, smaller batch")
    args = parser.parse_args(argv)
    given = given_settings(args, BASE)
    all_settings = {variant: row | given for variant, row in HYPERPARAMETERS.items()}
    chosen_variants = [args.variant]
    if args.variant == "all":
        chosen_variants = list(all_settings)
    torch.set_num_threads(args.threads)
    args.device = choose_device(args.device)
    args.plots_dir.mkdir(parents=True, exist_ok=True)
    with matplotlib.style.context("default"):  # not those of the user's own matplotlibrc
        for variant in chosen_variants:
            run_variant(variant, all_settings[variant], args)
        records = load_finished(args, all_settings)
        if records:
            save_figure(args, "q3_cnn_comparison", plot_comparison(records))
            print(f"wrote {result_path(args, 'q3_cnn_comparison', '.png')}")
            save_figure(args, "q3_cnn_layers", plot_layers(records))
            print(f"wrote {result_path(args, 'q3_cnn_layers', '.png')}")


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
