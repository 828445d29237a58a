"""What batch norm does inside the CNN, judged on the 10,000 held-out training images.

    python experiments/inside.py                    the parts, and how many runs are missing
    python experiments/inside.py rates              train what results/inside.json does not have
    python experiments/inside.py rates epochs --workers 2

rates: batch norm taken apart, in the network of (b), for one epoch at several constant rates.
epochs: the same networks at the rate of (b), for as many epochs as (b) has. Both also give the
held-out loss before the last step of an epoch, whose batch of 16 images moves a network far.
curvature: the largest curvature of the loss before training and in the first 200 steps, in which
layer it lies, and how much of each layer's input lies in one direction.
statistics: the held-out loss of networks with batch norm, by what stands for the mean and the
variance when they are evaluated.
silent: in which recipes of (d) channels die.

results/inside.json has a line per run. A run is known by its part, settings and seed: an
interrupted part goes on where it was. Losses are means over samples in nats, accuracies fractions;
both are null where the loss is not finite. The test set is never read.
"""

import argparse
import contextlib
import copy
import json
import math
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import islice
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import update_bn
from torchvision.transforms import Normalize
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "experiments" / "results" / "inside.json"
sys.path.insert(0, str(ROOT))  # for the script
import q3_cnn  # noqa: E402

RATE = 0.2  # these three are those of (b)
EPOCHS = 17
BATCH_SIZE = 64
EVAL_BATCH = q3_cnn.EVAL_BATCH
loss_fn = nn.CrossEntropyLoss()


# ---------------------------------------------------------------- batch norm taken apart
def per_channel(vector, X):
    """Return a vector (C,) in a shape that multiplies the channels of X (B, C, ...)."""
    return vector.view(-1, *[1] * (X.dim() - 2))


class Centred(nn.Module):
    """Batch norm without the division: X (B, C, ...) less the mean of each channel.

    As in batch norm, the mean is the batch's in training, a running average in evaluation, and
    each channel has a learnt scale and shift.
    """

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_mean", torch.zeros(channels))

    def forward(self, X):
        mean = self.running_mean
        if self.training:
            mean = X.mean([0, *range(2, X.dim())])
            self.running_mean.lerp_(mean.detach(), 0.1)  # the momentum of nn.BatchNorm
        centred = X - per_channel(mean, X)
        return per_channel(self.weight, X) * centred + per_channel(self.bias, X)


class Scaled(nn.Module):
    """Batch norm without the subtraction: X (B, C, ...) over the standard deviation per channel.

    The deviation is from the mean, which stays in; everything else is as in batch norm.
    """

    def __init__(self, channels):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))

    def forward(self, X):
        var = self.running_var
        if self.training:
            var = X.var([0, *range(2, X.dim())], correction=0)
            n = X.numel() / X.shape[1]
            self.running_var.lerp_(var.detach() * n / (n - 1), 0.1)  # unbiased, as nn.BatchNorm's
        scale = self.weight / (var + 1e-5).sqrt()
        return per_channel(scale, X) * X + per_channel(self.bias, X)


KINDS = {
    "none": "the network of (b)",
    "centred": "Centred after every ReLU",
    "scaled": "Scaled after every ReLU",
    "both": "batch norm after every ReLU, the network of bn_only",
    "before": "batch norm before every ReLU",
    "pixels": "the network of (b), its pixels centred and scaled",
    "kaiming": "the network of (b), initialised as He et al. (2015) do for ReLU",
}
NORMS = {
    "centred": (Centred, Centred),
    "scaled": (Scaled, Scaled),
    "both": (nn.BatchNorm2d, nn.BatchNorm1d),
    "before": (nn.BatchNorm2d, nn.BatchNorm1d),
}


def network(kind, seed):
    """Return the CNN of the sheet, X (B, 1, 28, 28) to logits (B, 10), with that normalisation."""
    norm2d, norm1d = NORMS.get(kind, (nn.Identity, nn.Identity))

    def activation(norm):
        return [norm, nn.ReLU()] if kind == "before" else [nn.ReLU(), norm]

    torch.manual_seed(seed)
    model = nn.Sequential(
        Normalize([0.1307], [0.3081]) if kind == "pixels" else nn.Identity(),
        nn.Conv2d(1, 20, kernel_size=4, stride=1),
        *activation(norm2d(20)),
        nn.Conv2d(20, 20, kernel_size=4, stride=2),
        *activation(norm2d(20)),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(20 * 5 * 5, 250),
        *activation(norm1d(250)),
        nn.Linear(250, 10),
    )
    if kind == "kaiming":
        for layer in layers(model).values():
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    return model.to(memory_format=torch.channels_last)


def layers(model):
    """Return the layers with weights, from the first to the last, by name."""
    found = [layer for layer in model.modules() if isinstance(layer, nn.Conv2d | nn.Linear)]
    return dict(zip(q3_cnn.LAYERS, found, strict=True))


# ---------------------------------------------------------------- rates, epochs
def sgd(model, rate):
    """Return plain SGD and a schedule that stays at the rate, as train_loop wants them."""
    optimizer = torch.optim.SGD(model.parameters(), lr=rate)
    return optimizer, torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1)


def finite(figures):
    """Return a dictionary of numbers as the JSON has them: null for what is not finite."""
    return {name: value if math.isfinite(value) else None for name, value in figures.items()}


def metrics(part, loss, accuracy):
    """Return both as the JSON has them: null if the loss is not finite."""
    if not math.isfinite(loss):
        accuracy = math.nan
    return finite({f"{part}_loss": loss, f"{part}_accuracy": accuracy})


def watched(loader, model, test_data, before_last):
    """Yield the batches; append the held-out (loss, accuracy) before a last, smaller one to a list.

    Ends after the first batch on which the loss is not finite, since it will not return.
    """
    for X, y in loader:
        if len(y) < BATCH_SIZE:
            batches = q3_cnn.batches(test_data, EVAL_BATCH)
            before_last.append(q3_cnn.test_loop(batches, model, loss_fn))
            model.train()
        diverged = not all(parameter.isfinite().all() for parameter in model.parameters())
        yield X, y
        if diverged:
            return


def train(number, job, train_data, test_data):
    """Train for a number of epochs; return the figures of each, up to where the loss diverges."""
    model = network(job["kind"], job["seed"])
    generator = torch.Generator().manual_seed(job["seed"])
    optimizer, scheduler = sgd(model, job["rate"])
    epochs = []
    for epoch in range(1, number + 1):
        before_last = []
        loader = q3_cnn.batches(train_data, BATCH_SIZE, generator)
        loader = watched(loader, model, test_data, before_last)
        trained = q3_cnn.train_loop(loader, model, loss_fn, optimizer, scheduler)
        tested = q3_cnn.test_loop(q3_cnn.batches(test_data, EVAL_BATCH), model, loss_fn)
        figures = {"epoch": epoch} | metrics("train", *trained) | metrics("validation", *tested)
        for one in before_last:
            figures |= metrics("before_last", *one)
        epochs.append(figures)
        if not math.isfinite(trained[0]):
            break
    return {"epochs": epochs}


# ---------------------------------------------------------------- curvature
PROBE = 1000  # training images: with 500, single images move the curvature of batch norm by half
PATCH_IMAGES = 200  # of these for the inputs of the convolutions: each has hundreds of patches


def hessian_product(model, X, y):
    """Return the function that multiplies the loss's Hessian by a vector (P,).

    P is the number of parameters, in the order of model.parameters(). The Hessian times v is the
    gradient of (gradient · v) (Pearlmutter, 1994).
    """
    parameters = list(model.parameters())
    loss = loss_fn(model(X), y)
    gradients = torch.autograd.grad(loss, parameters, create_graph=True)
    gradient = torch.cat([part.flatten() for part in gradients])

    def product(vector):
        parts = torch.autograd.grad(
            gradient, parameters, vector, retain_graph=True, materialize_grads=True
        )
        return torch.cat([part.flatten() for part in parts])

    return product


def largest_eigenvalue(product, start, tolerance=0.05, max_steps=40):
    """Return the largest eigenvalue of a symmetric matrix, its eigenvector (P,) and a residual.

    Largest means most positive: a negative one may be larger by absolute value. Lanczos iteration
    from the vector `start` (P,), made orthogonal in full (Golub, Van Loan, Matrix Computations,
    chapter on the symmetric Lanczos process). Stops once the residual |A v - λ v|, which bounds
    the distance to an eigenvalue, is below the tolerance, as a share of |λ|.
    """
    basis = [start / start.norm()]
    diagonal = []
    beside = []
    for _ in range(max_steps):
        new = product(basis[-1])
        if not new.isfinite().all():
            return math.nan, torch.full_like(start, math.nan), math.nan
        diagonal.append(new @ basis[-1])
        Q = torch.stack(basis)
        for _ in range(2):  # once leaves rounding errors, which grow from step to step
            new = new - Q.T @ (Q @ new)
        T = torch.diag(torch.stack(diagonal))
        if beside:
            T = T + torch.diag(torch.stack(beside), 1) + torch.diag(torch.stack(beside), -1)
        values, vectors = torch.linalg.eigh(T.double())
        residual = new.norm() * vectors[-1, -1].abs()
        if residual <= tolerance * values[-1].abs():
            break
        beside.append(new.norm())
        basis.append(new / new.norm())
    return values[-1].item(), Q.T @ vectors[:, -1].float(), residual.item()


@torch.no_grad()
def layer_inputs(model, X):
    """Return what each layer multiplies by a row of its weights, (rows, inputs), by its name."""
    inputs = {}
    handles = []

    def keep(name, layer, args):
        rows = args[0]
        if isinstance(layer, nn.Conv2d):
            patches = F.unfold(rows[:PATCH_IMAGES], layer.kernel_size, stride=layer.stride)
            rows = patches.transpose(1, 2).flatten(0, 1)
        inputs[name] = rows

    for name, layer in layers(model).items():
        handles.append(layer.register_forward_pre_hook(partial(keep, name)))
    model(X)
    for handle in handles:
        handle.remove()
    return inputs


def layer_figures(model, inputs, eigenvector):
    """Return for each layer what its input and its part of the sharpest direction look like.

    input_eigenvalue: the largest of the second moment E[x xᵀ] of its input x; input_share: its
    share of the sum of all. vector_share: the squared length of the eigenvector (P,) of the loss
    that lies in the layer; mean_share: of the part in its weights, that along the mean of x. By
    chance this would be 1 / (number of inputs).
    """
    parts = eigenvector.split([parameter.numel() for parameter in model.parameters()])
    parts = dict(zip(model.parameters(), parts, strict=True))
    figures = {}
    for name, layer in layers(model).items():
        rows = inputs[name].double()
        values = torch.linalg.eigvalsh(rows.T @ rows / len(rows))
        mean = rows.mean(0)
        weights = parts[layer.weight].view(layer.weight.shape[0], -1).double()
        along = (weights @ mean).square().sum() / mean.square().sum()
        figures[name] = finite(
            {
                "input_eigenvalue": values[-1].item(),
                "input_share": (values[-1] / values.sum()).item(),
                "vector_share": sum(parts[p].square().sum().item() for p in layer.parameters()),
                "mean_share": (along / weights.square().sum()).item(),
            }
        )
    return figures


def look(model, train_data, start_seed=0):
    """Return the largest curvature of the loss and the figures of the layers.

    In training mode, on a copy: with the statistics of these images, and no running average moves.
    """
    model = copy.deepcopy(model).train()
    data = [part[:PROBE] for part in train_data]
    X, y = next(iter(q3_cnn.batches(data, PROBE)))
    product = hessian_product(model, X, y)
    size = sum(parameter.numel() for parameter in model.parameters())
    start = torch.randn(size, generator=torch.Generator().manual_seed(start_seed))
    curvature, eigenvector, residual = largest_eigenvalue(product, start)
    figures = layer_figures(model, layer_inputs(model, X), eigenvector)
    return finite({"curvature": curvature, "residual": residual}) | {"layers": figures}


def follow(job, train_data, test_data):
    """Train and look() after each of the job's numbers of steps, up to where the loss diverges."""
    model = network(job["kind"], job["seed"])
    generator = torch.Generator().manual_seed(job["seed"])
    optimizer, scheduler = sgd(model, job["rate"])
    loader = iter(q3_cnn.batches(train_data, BATCH_SIZE, generator))
    points = []
    done = 0
    for step in job["steps"]:
        trained = {}
        if step > done:
            some = islice(loader, step - done)
            loss, accuracy = q3_cnn.train_loop(some, model, loss_fn, optimizer, scheduler)
            if not math.isfinite(loss):
                break
            trained = metrics("train", loss, accuracy)
            done = step
        points.append({"step": step} | trained | look(model, train_data))
    return {"points": points}


# ---------------------------------------------------------------- statistics
AVERAGED = 5000  # training images for the fresh averages, in batches of EVAL_BATCH


def with_batch_statistics(model):
    """Return a copy that, in evaluation too, takes mean and variance from the batch it is given."""
    model = copy.deepcopy(model)
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.running_mean = None
            layer.running_var = None
    return model


def with_fresh_averages(model, train_data, affine):
    """Return a copy with the averages of training images under the weights of this moment.

    They weigh all batches alike. affine is the strength of the random maps of the images, 0 for
    none. The network should have no dropout, which would be on.
    """
    model = copy.deepcopy(model)
    loader = q3_cnn.batches([part[:AVERAGED] for part in train_data], EVAL_BATCH)
    with torch.random.fork_rng(devices=[]):  # the training that goes on draws from it too
        torch.manual_seed(0)
        if affine:
            loader = q3_cnn.augment(loader, affine)
        update_bn(loader, model)
    return model


def judge(model, train_data, test_data, affine=0.0):
    """Return the held-out loss and accuracy of a network without its running averages.

    In their place: batch: the statistics of the batch of EVAL_BATCH held-out images. undistorted:
    averages of training images under the weights of this moment. distorted, if affine is not 0:
    those of the same images under random maps of this strength. The network stays as it is.
    """
    models = {
        "batch": with_batch_statistics(model),
        "undistorted": with_fresh_averages(model, train_data, 0.0),
    }
    if affine:
        models["distorted"] = with_fresh_averages(model, train_data, affine)
    figures = {}
    for name, one in models.items():
        loader = q3_cnn.batches(test_data, EVAL_BATCH)
        figures |= metrics(name, *q3_cnn.test_loop(loader, one, loss_fn))
    return figures


def compare_statistics(job, train_data, test_data):
    """Train as q3_cnn.py does; return the figures of each epoch, and what judge() makes of it."""
    settings = job["settings"]
    train_data = q3_cnn.as_seen(train_data, settings)
    test_data = q3_cnn.as_seen(test_data, settings)
    epochs = []
    for model, trained, tested in q3_cnn.train(settings, job["seed"], train_data, test_data):
        epochs.append(
            {"epoch": len(epochs) + 1}
            | metrics("train", *trained)
            | metrics("validation", *tested)
            | judge(model, train_data, test_data, settings["affine"])
        )
    return {"epochs": epochs}


# ---------------------------------------------------------------- silent
def count_silent(job, train_data, test_data):
    """Train as q3_cnn.py does; return the last figures, and how many channels are silent then.

    The counts are those of q3_cnn.record_layers.
    """
    settings = job["settings"]
    train_data = q3_cnn.as_seen(train_data, settings)
    test_data = q3_cnn.as_seen(test_data, settings)
    epochs = list(q3_cnn.train(settings, job["seed"], train_data, test_data))
    model, trained, tested = epochs[-1]
    layers = q3_cnn.record_layers(settings, job["seed"], model, train_data, with_counts=False)
    counts = {key: layers[key] for key in ("never_fires", "low_variance")}
    return metrics("train", *trained) | metrics("validation", *tested) | counts


# ---------------------------------------------------------------- the parts, and their runs
RATES = [0.2, 0.5, 1.0, 2.0, 3.0]
STEPS = [25, 50, 100, 200]  # an epoch has 782
AS_THEY_ARE = q3_cnn.BN | {"deskew": False, "normalize": False, "drop_last": False}
RECIPES = {
    "bn_only": q3_cnn.BN_ONLY,
    "bn, digits as they are, with the last batch": AS_THEY_ARE,
    "bn": q3_cnn.BN,
}
CHANGES = {
    "bn, digits as they are, with the last batch": AS_THEY_ARE,
    "the same, pixels centred and scaled": AS_THEY_ARE | {"normalize": True},
    "the same, digits straightened": AS_THEY_ARE | {"deskew": True},
    "bn": q3_cnn.BN,
}

# By seed first: what an interrupted part leaves is whole for some seeds.
JOBS = {
    "rates": [
        {"kind": kind, "rate": rate, "seed": seed}
        for seed in range(5)
        for kind in KINDS
        for rate in RATES
    ],
    "epochs": [
        {"kind": kind, "rate": RATE, "seed": seed}
        for seed in range(3)
        for kind in ["none", "centred", "scaled", "both", "before"]
    ],
    "curvature": [
        {"kind": kind, "rate": rate, "seed": seed, "steps": steps}
        for seed in range(3)
        for rate, steps in [(0.0, [0])] + [(rate, STEPS) for rate in [0.1, 0.2, 0.5, 1.0]]
        for kind in ["none", "centred", "scaled", "both"]
    ],
    "statistics": [
        {"recipe": recipe, "settings": settings, "seed": seed}
        for seed in range(3)
        for recipe, settings in RECIPES.items()
    ],
    "silent": [
        {"recipe": recipe, "settings": settings, "seed": seed}
        for seed in range(5)
        for recipe, settings in CHANGES.items()
    ],
}
MEASURE = {
    "rates": partial(train, 1),
    "epochs": partial(train, EPOCHS),
    "curvature": follow,
    "statistics": compare_statistics,
    "silent": count_silent,
}


def measure(data_dir, part, job):
    """Return the run of a job as the JSON keeps it; with one thread."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    with (
        open(os.devnull, "w") as silence,
        contextlib.redirect_stderr(silence),
    ):  # progress bars
        train_data, test_data = q3_cnn.load_data(data_dir, True, "cpu")
        found = MEASURE[part](job, train_data, test_data)
    return job | {"seconds": round(time.perf_counter() - start, 1)} | found


def load():
    """Return the finished runs of each part."""
    runs = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return {part: runs.get(part, []) for part in JOBS}


def save(part, run):
    """Add a run to the JSON, which is replaced at once: no kill leaves half a file."""
    runs = load()
    runs[part].append(run)
    parts = []
    for name, its_runs in runs.items():
        lines = ",\n".join(json.dumps(one) for one in its_runs)
        parts.append(f'"{name}": [\n{lines}\n]')
    half = RESULTS.with_name(f"{RESULTS.name}.{os.getpid()}")
    half.write_text("{\n" + ",\n".join(parts) + "\n}\n")
    half.replace(RESULTS)


def missing(part):
    """Return the jobs of a part that have no run yet."""
    runs = load()[part]
    return [job for job in JOBS[part] if not any(job.items() <= run.items() for run in runs)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(JOBS))
    parser.add_argument("--data-dir", type=Path, default=ROOT / "data")
    parser.add_argument("--workers", type=int, default=2, help="runs at once, one thread each")
    args = parser.parse_args()
    for part in args.parts:
        if part not in JOBS:
            parser.error(f"no such part: {part}; there are {', '.join(JOBS)}")
    if not args.parts:
        for part, jobs in JOBS.items():
            print(f"{part:12} {len(jobs):3} runs, {len(missing(part)):3} of them missing")
    for part in args.parts:
        jobs = missing(part)
        with ProcessPoolExecutor(args.workers) as pool:
            runs = pool.map(partial(measure, args.data_dir, part), jobs)
            for job, run in tqdm(zip(jobs, runs, strict=True), total=len(jobs), unit="run"):
                save(part, run)
                tqdm.write(f"{part}: {job}")


if __name__ == "__main__":
    main()
