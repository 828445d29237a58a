"""Searches and ablations on the 10,000 held-out training images; the test set is never read.

    python experiments/search.py            the sweeps, and how many of their runs are missing
    python experiments/search.py ladder     train what results/ does not have yet
    python experiments/search.py base rates --workers 2

A run is known by its script, settings and seed: what several sweeps share is trained once, and an
interrupted sweep goes on where it was. Results go to results/<script>.json, a line per run:
settings, seed, seconds, and for each epoch [train loss, train accuracy, validation loss,
validation accuracy], null from where the loss was no longer finite.
"""

import argparse
import contextlib
import json
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from unittest import mock

import torch
import torch.nn.functional as F
from torch import nn
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "experiments" / "results"
sys.path.insert(0, str(ROOT))  # for the two scripts
import q2_mlp  # noqa: E402
import q3_cnn  # noqa: E402

SCRIPTS = {"q2_mlp": q2_mlp, "q3_cnn": q3_cnn}
Q2 = q2_mlp.HYPERPARAMETERS
BASE, REG, BN_ONLY, BN = q3_cnn.HYPERPARAMETERS.values()


def vary(settings, **values):
    """Return the settings with each of the values of one key."""
    ((name, several),) = values.items()
    return [settings | {name: value} for value in several]


LARGE = {"epochs": 30, "batch_size": 128, "lr": 0.3}
RATES = [0.1, 0.3, 0.5, 1.0, 2.0, 3.0, 10.0, 30.0]
Q2_LONG = Q2 | {"epochs": 30}  # at a constant rate a shorter run is the beginning of a longer one
REG_18 = BASE | {"epochs": 18, "dropout": 0.25, "weight_decay": 1e-5}
PLACED = REG_18 | {"dropout": 0.0}
PLACES = [[0.1, 0.25, 0.25], [0.0, 0.25, 0.5], [0.0, 0.5, 0.25], [0.0, 0.0, 0.5], [0.1, 0.25, 0.5]]
LONG = BN | {"epochs": 40}
STRONGER = BN | {"affine": 0.15}
CONSTANT = BN_ONLY | {"lr": 0.3}
ONE_CYCLE = {"one_cycle": True, "lr": BN["lr"]}
LADDER = [BASE, BN_ONLY, CONSTANT, BN_ONLY | ONE_CYCLE, BN | {"weight_decay": 0.0}, BN]
PEAKS = [BASE | ONE_CYCLE | {"lr": 0.3}, BASE | ONE_CYCLE]
FACTORIAL = [
    row | {"affine": affine}
    for pair in ((BASE, PEAKS[0]), (BN_ONLY, BN_ONLY | ONE_CYCLE))  # with the peaks that they stand
    for row in pair
    for affine in (0.0, BN["affine"])
]

# Settings and seeds of each sweep.
SWEEPS = {
    "q2": [
        ([Q2 | {"epochs": 5, "lr": 0.001}], [0]),  # the tutorial's
        (vary(Q2_LONG | {"batch_size": 32}, lr=[0.03, 0.1, 0.2, 0.3, 0.5]), [0]),
        (vary(Q2_LONG, lr=[0.03, 0.1, 0.2, 0.3, 0.5]), [0]),
        (vary(Q2_LONG | {"batch_size": 128}, lr=[0.03, 0.1, 0.2, 0.3, 0.5]), [0]),
        (vary(Q2_LONG | {"lr": 0.3}, batch_size=[32, 64, 128]), [1, 2]),
        (vary(Q2_LONG, lr=[0.2, 0.5]), [1, 2]),
        (vary(Q2 | {"epochs": 16}, lr=[0.1, 0.15, 0.2, 0.25, 0.3]), range(5)),
        ([Q2 | {"epochs": 16, "batch_size": 32, "lr": 0.05}], range(5)),
        ([Q2 | {"epochs": 16, "batch_size": 32, "lr": 0.1}], range(3)),
    ],
    "base": [
        (vary(BASE | {"epochs": 16}, lr=[0.1, 0.15, 0.2, 0.25]), range(3)),
        ([BASE | {"epochs": 16, "batch_size": 32, "lr": 0.1}], range(3)),
        ([BASE | {"epochs": 20}], range(3)),
        ([BASE | {"epochs": 20, "lr": 0.1}, BASE | {"epochs": 15, "lr": 0.3}], [0]),
    ],
    "reg": [
        (vary(REG_18, weight_decay=[0.0, 5e-5]), [0]),
        (vary(REG_18 | {"dropout": 0.5}, weight_decay=[0.0, 5e-4]), [0]),
        ([REG_18 | {"dropout": 0.0, "weight_decay": 5e-4}], [0]),
        (vary(REG_18, dropout=[0.15, 0.4]), [1]),
        (vary(REG_18, weight_decay=[1e-4]), [1]),
        ([REG_18], range(3)),
        (vary(REG, weight_decay=[0.0, 1e-5, 1e-4]), range(3)),
    ],
    "places": [
        (vary(PLACED, dropout_places=PLACES), [1]),
        ([PLACED | {"weight_decay": 5e-5, "dropout_places": PLACES[0]}], [0]),
    ],
    "longer": [
        ([BN_ONLY | {"epochs": 18}], range(3)),
        (vary(REG_18 | {"epochs": 40}, dropout=[0.25, 0.5]), [0]),
        (vary(PLACED | {"epochs": 40}, dropout_places=[[0.0, 0.5, 0.25], [0.1, 0.25, 0.5]]), [0]),
        ([REG_18 | {"epochs": 30, "lr": 0.1}], [0]),
        (vary(REG_18 | {"epochs": 30, "batch_size": 128}, lr=[0.2, 0.3]), [0]),
        ([PLACED | LARGE | {"dropout_places": [0.0, 0.5, 0.25]}], [0]),
    ],
    "rates": [(vary(row | {"epochs": 2}, lr=RATES), [0]) for row in (BASE, BN_ONLY)],
    "recipe": [
        ([BN, STRONGER, STRONGER | {"lr": 1.0}], range(3)),
        (vary(STRONGER | {"weight_decay": 0.0}, lr=[0.5, 1.0]), range(3)),
        ([STRONGER | {"epochs": 15}], range(2)),
        ([BN | {"weight_decay": 1e-3}], range(3)),
        ([BN | {"weight_decay": 2e-3}], [0]),
        ([BN | {"batch_norm": False, "lr": 0.3}], range(5)),
    ],
    "length": [
        (vary(LONG, affine=[0.1, 0.15, 0.2]), range(3)),
        (vary(LONG, dropout=[0.1, 0.25]), range(3)),
        ([LONG | {"weight_decay": 2e-4}], range(3)),
        ([LONG | {"batch_size": 32}], range(3)),
        (vary(STRONGER | {"epochs": 60}, weight_decay=[5e-4, 2e-4]), range(3)),
    ],
    "constant": [(vary(BN_ONLY, lr=[0.2, 0.3, 0.5, 1.0]), range(3))],
    "peaks": [
        (PEAKS, range(5)),
        ([PEAKS[1] | {"affine": BN["affine"]}], range(5)),
        ([PEAKS[1] | {"lr": 1.0}], [0]),
    ],
    "ladder": [(LADDER, range(5))],
    "factorial": [(FACTORIAL, range(5))],
}


def jobs(sweep):
    """Return the runs of a sweep: script, settings, seed."""
    return [
        ("q3_cnn" if "batch_norm" in row else "q2_mlp", row, seed)
        for rows, seeds in SWEEPS[sweep]
        for row in rows
        for seed in seeds
    ]


def key(script, settings, seed):
    """Return what a run is known by."""
    return json.dumps([script, settings, seed], sort_keys=True)


def load(script):
    """Return the finished runs of a script, in the order in which they were trained."""
    path = RESULTS / f"{script}.json"
    return json.loads(path.read_text()) if path.exists() else []


def dropout_at(shares):
    """Patch the CNN to drop these shares of the inputs of conv 2 (whole channels), both linear."""

    def drop(share, layer, inputs):
        dropout = F.dropout2d if isinstance(layer, nn.Conv2d) else F.dropout
        return dropout(inputs[0], share, layer.training)

    class Placed(q3_cnn.NeuralNetwork):
        def __init__(self, *args):
            super().__init__(*args)
            layers = [layer for layer in self.stack if isinstance(layer, nn.Conv2d | nn.Linear)]
            for layer, share in zip(layers[1:], shares, strict=True):
                layer.register_forward_pre_hook(partial(drop, share))

    return mock.patch.object(q3_cnn, "NeuralNetwork", Placed)


def train(script, settings, seed, data_dir):
    """Train on 50,000 images with one thread; return the run as results/ keeps it."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    plain = {name: value for name, value in settings.items() if name != "dropout_places"}
    places = settings.get("dropout_places")
    with (
        dropout_at(places) if places else contextlib.nullcontext(),
        open(os.devnull, "w") as silence,
        contextlib.redirect_stdout(silence),
        contextlib.redirect_stderr(silence),  # the progress bars of an epoch
    ):
        data = SCRIPTS[script].load_data(data_dir, True, "cpu")
        _, epochs, _ = SCRIPTS[script].train(plain, seed, *data, "validation")
    names = "train_loss", "train_accuracy", "validation_loss", "validation_accuracy"
    figures = [[epoch[name] for name in names] for epoch in epochs]
    figures += [[None] * 4] * (settings["epochs"] - len(epochs))
    seconds = round(time.perf_counter() - start, 1)
    return {"settings": settings, "seed": seed, "seconds": seconds, "epochs": figures}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sweeps", nargs="*", metavar="SWEEP", help=", ".join(SWEEPS))
    parser.add_argument("--data-dir", type=Path, default=ROOT / "data")
    parser.add_argument("--workers", type=int, default=2, help="runs at once, one thread each")
    args = parser.parse_args()
    known = {key(name, run["settings"], run["seed"]) for name in SCRIPTS for run in load(name)}
    missing = {
        sweep: {key(*job): job for job in jobs(sweep) if key(*job) not in known} for sweep in SWEEPS
    }
    if unknown := set(args.sweeps) - set(SWEEPS):
        parser.error(f"no such sweep: {', '.join(unknown)}")
    if not args.sweeps:
        for sweep in SWEEPS:
            print(f"{sweep:12} {len(jobs(sweep)):3} runs, {len(missing[sweep]):3} of them missing")
        return
    todo = {name: job for sweep in args.sweeps for name, job in missing[sweep].items()}
    RESULTS.mkdir(exist_ok=True)
    with ProcessPoolExecutor(args.workers) as pool:
        futures = {pool.submit(train, *job, args.data_dir): job[0] for job in todo.values()}
        for future in tqdm(as_completed(futures), total=len(futures), unit="run"):
            script, run = futures[future], future.result()
            lines = ",\n".join(map(json.dumps, [*load(script), run]))
            (RESULTS / f"{script}.json").write_text(f"[\n{lines}\n]\n")
            accuracy = 100 * (run["epochs"][-1][3] or 0)
            tqdm.write(f"{accuracy:.2f} %  seed {run['seed']}  {run['settings']}")


if __name__ == "__main__":
    main()
