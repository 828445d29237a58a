"""Searches and ablations on the 10,000 held-out training images; the test set is never read.

    python experiments/search.py            the sweeps, and how many of their runs are missing
    python experiments/search.py ladder     train what results/ does not have yet
    python experiments/search.py base rates --workers 2

The sweeps are those of sweeps.py. A run is known by its script, settings and seed: what several
sweeps share is trained once, and an interrupted sweep goes on where it was. Results go to
results/<script>.json, a line per run: settings, seed, seconds, and the metrics of each epoch as in
plots/, null from where the loss was no longer finite.
"""

import argparse
import contextlib
import json
import math
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

import sweeps
import torch
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for the two scripts
import q2_mlp  # noqa: E402
import q3_cnn  # noqa: E402

SCRIPTS = {"q2_mlp": q2_mlp, "q3_cnn": q3_cnn}
SETTINGS = {"q2_mlp": q2_mlp.HYPERPARAMETERS, "q3_cnn": q3_cnn.BASE}


def missing_runs(sweep, recorded):
    """Return by their keys those runs of a sweep that can be trained and are not recorded."""
    runs = {}
    for job in sweeps.jobs(sweep):
        key = sweeps.key(*job)
        script, settings, _ = job
        # A row with a setting that the script does not have any more is kept as it was recorded.
        if key not in recorded and settings.keys() <= SETTINGS[script].keys():
            runs[key] = job
    return runs


def load_held_out(script, settings, data_dir):
    """Return the images to train on and the held-out ones, as a network of these settings sees."""
    train_data, held_out = SCRIPTS[script].load_data(data_dir, True, "cpu")
    if script == "q3_cnn":
        return q3_cnn.as_seen(train_data, settings), q3_cnn.as_seen(held_out, settings)
    return train_data, held_out


def epoch_metrics(epoch, train_metrics, validation_metrics):
    """Return the metrics of an epoch as the JSON has them."""
    return {
        "epoch": epoch,
        "train_loss": train_metrics[0],
        "train_accuracy": train_metrics[1],
        "validation_loss": validation_metrics[0],
        "validation_accuracy": validation_metrics[1],
    }


def train(script, settings, seed, data_dir):
    """Train on 50,000 images with one thread; return the run as results/ keeps it."""
    torch.set_num_threads(1)
    start = time.perf_counter()
    data = load_held_out(script, settings, data_dir)
    epochs = []
    # The progress bars of several workers would write over one another.
    with open(os.devnull, "w") as silence, contextlib.redirect_stderr(silence):
        for _, train_metrics, validation_metrics in SCRIPTS[script].train(settings, seed, *data):
            if not math.isfinite(train_metrics[0]) or not math.isfinite(validation_metrics[0]):
                break
            epochs.append(epoch_metrics(len(epochs) + 1, train_metrics, validation_metrics))
    while len(epochs) < settings["epochs"]:
        epochs.append(epoch_metrics(len(epochs) + 1, (None, None), (None, None)))
    seconds = round(time.perf_counter() - start, 1)
    return {"settings": settings, "seed": seed, "seconds": seconds, "epochs": epochs}


def add_result(script, run):
    """Append a run to the results of a script."""
    lines = ",\n".join(json.dumps(one) for one in [*sweeps.load(script), run])
    q2_mlp.save(sweeps.RESULTS / f"{script}.json", f"[\n{lines}\n]\n".encode())


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    names = ", ".join(sweeps.SWEEPS)
    parser.add_argument("sweeps", nargs="*", metavar="SWEEP", help=names)
    parser.add_argument("--data-dir", type=Path, default=ROOT / "data")
    parser.add_argument("--workers", type=int, default=2, help="runs at once, one thread each")
    args = parser.parse_args()
    for name in args.sweeps:
        if name not in sweeps.SWEEPS:
            parser.error(f"no such sweep: {name}; there are {names}")
    recorded = sweeps.recorded()
    missing = {name: missing_runs(name, recorded) for name in sweeps.SWEEPS}
    if not args.sweeps:
        for name, runs in missing.items():
            print(f"{name:12} {len(sweeps.jobs(name)):3} runs, {len(runs):3} of them missing")
        return
    todo = {}
    for name in args.sweeps:
        todo |= missing[name]
    sweeps.RESULTS.mkdir(exist_ok=True)
    with ProcessPoolExecutor(args.workers) as pool:
        futures = {pool.submit(train, *job, args.data_dir): job for job in todo.values()}
        for future in tqdm(as_completed(futures), total=len(futures), unit="run"):
            script, settings, seed = futures[future]
            run = future.result()
            add_result(script, run)
            accuracy = run["epochs"][-1]["validation_accuracy"]
            outcome = "diverged" if accuracy is None else f"{accuracy:.2%}"
            tqdm.write(f"{outcome}  seed {seed}  {settings}")


if __name__ == "__main__":
    main()
