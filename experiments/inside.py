"""What batch norm does inside the CNN of question 3. Three parts, each named to be run:

    python experiments/inside.py apart        batch norm taken apart, at several constant rates
    python experiments/inside.py curvature    the largest curvature of the loss, and its direction
    python experiments/inside.py layers       what the layers receive, and its picture, layers.png

The first two write into results/inside.json, the third into results/layers.json, and train only
what is missing there. Losses are means in nats, accuracies fractions, null where the loss is not
finite. The first two train on 50,000 images and judge on the 10,000 held out, the third trains on
all 60,000. The test set is never read.
"""

import argparse
import copy
import itertools
import json
import sys
from functools import partial
from pathlib import Path

import matplotlib.style
import numpy as np
import torch
from matplotlib.figure import Figure
from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh
from torch import Generator, nn
from torch.optim.lr_scheduler import ConstantLR
from torch.utils.data import DataLoader

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for the script
import q3_cnn  # noqa: E402

INSIDE = ROOT / "experiments" / "results" / "inside.json"
LAYERS = ROOT / "experiments" / "results" / "layers.json"
SEEDS = {"apart": range(5), "curvature": range(3), "layers": range(10)}
KINDS = ["none", "centred", "scaled", "both", "before", "pixels", "kaiming"]
STEPS = [25, 50, 100, 200]  # after which curvature looks; an epoch has 782
PROBE = 1000  # training images: with 500, single images move the curvature of batch norm by half
NAMES = ["conv 1", "conv 2", "linear 1", "linear 2"]  # the layers, in the order of the network
EDGES = np.linspace(-3, 7, 51)  # of the bins for the histograms of what layers receive
PICTURED = {"base": "(b)", "bn_only": "(b) with batch norm"}  # the variants with histograms
BATCH_SIZE = q3_cnn.BASE["batch_size"]
loss_fn = nn.CrossEntropyLoss()


# ---------------------------------------------------------------- batch norm taken apart
class HalfBatchNorm(nn.Module):
    """Half of batch norm: X less the mean of each channel, or over its standard deviation.

    kind is "centred" or "scaled"; X is (B, C) or (B, C, H, W), shape (C,) or (C, 1, 1). As in batch
    norm, mean and variance are the batch's in training, running averages in evaluation, and each
    channel has a learnt scale and shift. Scaled, the mean stays in, but the deviation is from it.
    """

    def __init__(self, kind, *shape):
        super().__init__()
        self.kind = kind
        self.weight = nn.Parameter(torch.ones(shape))
        self.bias = nn.Parameter(torch.zeros(shape))
        self.register_buffer("running_mean", torch.zeros(shape))
        self.register_buffer("running_var", torch.ones(shape))

    def forward(self, X):
        mean, var = self.running_mean, self.running_var
        if self.training:
            dims = [0, *range(2, X.dim())]
            mean = X.mean(dims, keepdim=True)[0]
            var = X.var(dims, correction=0, keepdim=True)[0]
            n = X.numel() / X.shape[1]
            self.running_mean.lerp_(mean.detach(), 0.1)  # the momentum of nn.BatchNorm
            self.running_var.lerp_(var.detach() * n / (n - 1), 0.1)  # unbiased, as there
        if self.kind == "centred":
            return self.weight * (X - mean) + self.bias
        return self.weight / (var + 1e-5).sqrt() * X + self.bias


def network(kind, seed):
    """Return the CNN of (b), X (B, 1, 28, 28) to logits (B, 10), with a normalisation of KINDS.

    centred, scaled: half of batch norm after every ReLU; both: all of it. before: batch norm before
    every ReLU. pixels: of the pixels alone. kaiming: initialised as He and others (2015) do.
    """
    torch.manual_seed(seed)
    changes = {"batch_norm": kind in ("both", "before"), "normalize": kind == "pixels"}
    model = q3_cnn.NeuralNetwork(q3_cnn.BASE | changes)
    stack = model.stack
    for i, layer in enumerate(list(stack)):
        if isinstance(layer, nn.ReLU):
            shape = (20, 1, 1) if i < 5 else (250,)
            if kind in ("centred", "scaled"):
                stack[i + 1] = HalfBatchNorm(kind, *shape)
            elif kind == "before":
                stack[i], stack[i + 1] = stack[i + 1], layer
        elif kind == "kaiming" and isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return model.to(memory_format=torch.channels_last)


def begin(train_data, kind, rate, seed):
    """Return a network, the batches of an epoch, and a function that trains on some of these.

    All as q3_cnn.train has it for (b); the function returns what q3_cnn.train_loop does.
    """
    model = network(kind, seed)
    order = Generator().manual_seed(seed)
    batches = DataLoader(train_data, BATCH_SIZE, shuffle=True, generator=order, collate_fn=tuple)
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    scheduler = ConstantLR(optimizer, factor=1)
    more = {"model": model, "loss_fn": loss_fn, "optimizer": optimizer, "scheduler": scheduler}
    return model, iter(batches), partial(q3_cnn.train_loop, **more)


def judge(model, test_data):
    """Return the accuracy on held-out images, None if the loss is not finite."""
    dataloader = DataLoader(test_data, q3_cnn.EVAL_BATCH, collate_fn=tuple)
    loss, accuracy = q3_cnn.test_loop(dataloader, model, loss_fn)
    return accuracy if np.isfinite(loss) else None


def train_apart(train_data, test_data, kind, rate, seed):
    """Train for an epoch; return train loss and accuracy, this also before the last batch."""
    model, batches, train = begin(train_data, kind, rate, seed)
    last = len(train_data) % BATCH_SIZE  # images: 16 of 50,000, whose step moves a network far
    before = len(train_data) - last
    loss, _ = train(itertools.islice(batches, before // BATCH_SIZE))
    accuracy = judge(model, test_data)
    last_loss, _ = train(batches)
    return {
        "train_loss": (loss * before + last_loss * last) / len(train_data),
        "before_last_accuracy": accuracy,
        "validation_accuracy": judge(model, test_data),
    }


# ---------------------------------------------------------------- curvature
def hessian(model, X, y):
    """Return the Hessian (P, P) of the loss, as what it makes of a vector (P,).

    P is the number of parameters, in the order of model.parameters(). The Hessian times v is the
    gradient of (gradient · v) (Pearlmutter, 1994).
    """
    parameters = list(model.parameters())
    gradients = torch.autograd.grad(loss_fn(model(X), y), parameters, create_graph=True)
    gradient = torch.cat([part.flatten() for part in gradients])

    def product(v):
        along = gradient @ torch.from_numpy(v)
        parts = torch.autograd.grad(along, parameters, retain_graph=True, materialize_grads=True)
        return torch.cat([part.flatten() for part in parts]).numpy()

    return LinearOperator((len(gradient), len(gradient)), product, dtype=np.float32)


def sharpest(matrix, tolerance=0.05):
    """Return the largest eigenvalue λ of a symmetric matrix (P, P), and its eigenvector v (P,).

    Largest means most positive: a negative one may be larger by absolute value. By the restarted
    Lanczos iteration of ARPACK, until the residual |A v - λ v| is below the tolerance, times |λ|.
    """
    start = torch.randn(matrix.shape[0], generator=Generator().manual_seed(0)).numpy()
    # ncv: vectors kept; scipy's 20 would double the time, since 5 to 10 products are enough.
    values, vectors = eigsh(matrix, k=1, which="LA", v0=start, tol=tolerance, ncv=8)
    return values[0].item(), torch.from_numpy(vectors[:, 0])


def look(model, train_data):
    """Return the largest curvature of the loss, and the share of its direction along the mean.

    That is: of the squared length of the direction in the weights of linear 1, the share along the
    mean of the layer's input, which has 500 numbers; a random direction would have 1 / 500. In
    training mode, on a copy: with the statistics of these images, and no running average moves.
    """
    model = copy.deepcopy(model).train()
    images, labels = train_data[:PROBE]
    X = images.unsqueeze(1) / 255
    curvature, vector = sharpest(hessian(model, X, labels))
    index = next(i for i, layer in enumerate(model.stack) if isinstance(layer, nn.Linear))
    mean = model.stack[:index](model.prepare(X)).mean(0)
    nn.utils.vector_to_parameters(vector, model.parameters())  # the copy becomes the direction
    weight = model.stack[index].weight
    along = (weight @ mean).square().sum() / mean.square().sum()
    return curvature, (along / weight.square().sum()).item()


def follow(train_data, kind, rate, seed):
    """Train and look() after each of STEPS, or once if the rate is 0; return the highest look."""
    model, batches, train = begin(train_data, kind, rate, seed)
    found = {"step": None, "curvature": None, "mean_share": None}
    done = 0
    for step in STEPS if rate else [0]:
        if step:
            found["train_loss"], _ = train(itertools.islice(batches, step - done))
            done = step
        try:
            curvature, share = look(model, train_data)
        except ArpackError:  # the network has diverged: its Hessian is not finite
            break
        if found["curvature"] is None or curvature > found["curvature"]:
            found |= {"step": step, "curvature": curvature, "mean_share": share}
    return found


# ---------------------------------------------------------------- layers
@torch.no_grad()
def receive(model, X, with_counts):
    """Return what each layer receives of X, and how many channels are dead.

    never_fires counts the channels that a ReLU leaves at zero at every place of every image,
    low_variance those of hardly any running variance; both by the name of the layer before.
    """
    inputs, never_fires, low_variance = {}, {}, {}
    names = iter(NAMES)
    X = model.prepare(X)
    for layer in model.stack:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            name = next(names)
            inputs[name] = {"mean": X.mean().item(), "standard_deviation": X.std().item()}
            if with_counts:  # the outermost bins count what lies outside
                values = X.clamp(EDGES[0], EDGES[-1]).numpy()
                inputs[name]["counts"] = np.histogram(values, EDGES)[0].tolist()
        X = layer(X)
        if isinstance(layer, nn.ReLU):
            fires = (X > 0).transpose(0, 1).flatten(1).any(1)
            never_fires[name] = (~fires).sum().item()
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            low_variance[name] = (layer.running_var < 1e-4).sum().item()
    return inputs, never_fires, low_variance


def train_layers(train_data, variant, seed):
    """Train a variant as q3_cnn.py does; return what its layers receive before and after.

    Before training of 500 images as one batch: batch norm uses the statistics of that batch, as in
    training, but nothing is dropped or distorted. After it of 2,000, as in evaluation.
    """
    settings = q3_cnn.HYPERPARAMETERS[variant]
    with_counts = variant in PICTURED and seed == 0
    some = q3_cnn.ImageDataset(*train_data[:2000])
    X = some.tensors[0].unsqueeze(1) / 255
    torch.manual_seed(seed)  # the network that this training begins with
    untrained = q3_cnn.NeuralNetwork(settings | {"dropout": 0.0, "affine": 0.0})
    start, _, _ = receive(untrained, X[:500], with_counts)
    epochs = list(q3_cnn.train(settings, seed, train_data, some))
    model, _, _ = epochs[-1]
    end, never_fires, low_variance = receive(model.eval(), X, with_counts)
    return {"start": start, "end": end, "never_fires": never_fires, "low_variance": low_variance}


def plot_layers(path, record):
    """Draw what the last three layers receive in the PICTURED variants, of the first seed."""
    figure = Figure(figsize=(10, 4.2), layout="constrained")
    figure.suptitle("What the layers receive in (b) and with batch norm alone, seed 0")
    axes = figure.subplots(2, 3, sharex=True, sharey=True)
    times = {"start": "before training", "end": "after training"}
    for row, when in zip(axes, times, strict=True):
        for ax, name in zip(row, NAMES[1:], strict=True):
            for variant, style in zip(PICTURED, ("--", "-"), strict=True):
                inputs = record[variant][0][when][name]
                mean = round(inputs["mean"], 2) + 0.0  # makes 0.00 of -0.00
                label = f"mean {mean:.2f}, s.d. {inputs['standard_deviation']:.2f}"
                share = 100 * np.array(inputs["counts"]) / sum(inputs["counts"])
                patch = ax.stairs(share, EDGES, fill=True, alpha=0.4, label=label)
                ax.axvline(mean, linestyle=style, color=patch.get_facecolor()[:3])
            ax.set(title=f"input of {name}, {times[when]}", yscale="log", ylim=(0.01, 5000))
            ax.set_yticks([0.01, 0.1, 1, 10, 100])  # above is room for the legend
            ax.yaxis.set_major_formatter("{x:g}")
            ax.minorticks_off()
            ax.grid(alpha=0.3)
            ax.legend(loc="upper right", frameon=False)
    handles, _ = ax.get_legend_handles_labels()
    figure.legend(handles, PICTURED.values(), loc="outside lower center", ncols=2)
    axes[1, 1].set_xlabel("value; line: mean")
    figure.supylabel("share of values (%)", fontsize="medium")
    figure.savefig(path, dpi=220)


# ---------------------------------------------------------------- the runs
def measure_missing(path, part, job, measure):
    """Measure a job and save its run, unless the JSON has one."""
    if any(job.items() <= run.items() for run in json.loads(path.read_text()).get(part, [])):
        return
    text = json.dumps(job | measure(**job))
    run = json.loads(text, parse_constant=lambda _: None)  # null for nan and infinity
    record = json.loads(path.read_text())  # anew: another part may have written meanwhile
    record.setdefault(part, []).append(run)
    save(path, record)
    print(part, job, flush=True)


def save(path, record):
    """Write JSON with a line per run."""
    parts = []
    for name, value in record.items():
        text = json.dumps(value)
        if isinstance(value, list) and isinstance(value[0], dict):
            text = "[\n" + ",\n".join(json.dumps(run) for run in value) + "\n]"
        parts.append(f'"{name}": {text}')
    path.write_text("{\n" + ",\n".join(parts) + "\n}\n")


def main():
    parser = argparse.ArgumentParser(description="What batch norm does inside the CNN.")
    parser.add_argument("part", choices=SEEDS)
    parser.add_argument("--seeds", type=int, nargs="+", help="default: those of the results")
    parser.add_argument("--data-dir", type=Path, default=ROOT / "data")
    args = parser.parse_args()
    torch.set_num_threads(1)
    seeds = args.seeds or SEEDS[args.part]
    if args.part == "layers":
        train_data = q3_cnn.load_mnist(args.data_dir, train=True, device="cpu")
        for seed, variant in itertools.product(seeds, q3_cnn.HYPERPARAMETERS):
            measure = partial(train_layers, train_data, variant)
            measure_missing(LAYERS, variant, {"seed": seed}, measure)
        with matplotlib.style.context("default"):
            plot_layers(ROOT / "experiments" / "layers.png", json.loads(LAYERS.read_text()))
        return
    train_data, test_data = q3_cnn.load_data(args.data_dir, validate=True, device="cpu")
    kinds, rates = KINDS, [0.2, 0.5, 1.0, 2.0, 3.0]
    measure = partial(train_apart, train_data, test_data)
    if args.part == "curvature":
        kinds, rates = KINDS[:4], [0.0, 0.1, 0.2, 0.5, 1.0]
        measure = partial(follow, train_data)
    for seed, kind, rate in itertools.product(seeds, kinds, rates):
        measure_missing(INSIDE, args.part, {"kind": kind, "rate": rate, "seed": seed}, measure)


if __name__ == "__main__":
    main()
