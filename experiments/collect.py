"""Append runs on held-out images to runs.csv, from the JSON that the scripts write.

    python q3_cnn.py --variant bn --validate --lr 1 --seeds 0 1 2 3 4 --plots-dir D
    python experiments/collect.py D/validation/q3_cnn_bn.json

Refuses a run that is there already, or not whole, and then appends nothing.
"""

import argparse
import csv
import itertools
import json
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RUNS = ROOT / "experiments" / "runs.csv"
TEXTS = {"script", "variant", "also", "loader"}
RESULTS = {"variant", "accuracy", "last3", "loss", "jumps", "highest_ratio"}


def read_runs():
    """Return the rows of runs.csv; None for a setting or a figure that a run does not have."""
    with RUNS.open(newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        for key in row.keys() - TEXTS:
            row[key] = json.loads(row[key]) if row[key] else None
    return rows


def jumps(losses):
    """Return how many losses after the fourth are over 1.5 times the one before, and how high."""
    ratios = [after / before for before, after in itertools.pairwise(losses[3:])]
    highest = max(ratios, default=None)
    return {"epochs": len(losses), "jumps": sum(r > 1.5 for r in ratios), "highest_ratio": highest}


def rows_of(record):
    """Return the rows of a record, one per seed."""
    settings = record["hyperparameters"]
    rows = []
    for seed in record["seeds"]:
        epochs = [epoch for epoch in record["epochs"] if epoch["seed"] == seed]
        if record["split"] != "validation" or len(epochs) < settings["epochs"]:
            sys.exit(f"{record['script']}, seed {seed}: not of held-out images, or not whole")
        accuracies = [epoch["validation_accuracy"] for epoch in epochs]
        losses = [epoch["validation_loss"] for epoch in epochs]
        row = {"script": record["script"], "variant": record["variant"] or ""}
        row |= settings | {"also": "", "loader": "now", "seed": seed} | jumps(losses)
        row |= {"accuracy": accuracies[-1], "last3": round(statistics.mean(accuracies[-3:]), 6)}
        rows.append(row | {"loss": round(losses[-1], 7)})
    return rows


def main(paths):
    there = read_runs()
    for path in paths:
        for row in rows_of(json.loads(path.read_text())):
            run = dict.fromkeys(there[0]) | row
            if any(all(run[key] == old[key] for key in run.keys() - RESULTS) for old in there):
                sys.exit(f"{path}, seed {row['seed']}: this run is in runs.csv already")
            there.append(run)
    with RUNS.open("w", newline="") as file:
        writer = csv.DictWriter(file, there[0], lineterminator="\n")
        writer.writeheader()
        for run in there:
            texts = {key: "" if v is None else json.dumps(v) for key, v in run.items()}
            writer.writerow(texts | {key: run[key] for key in TEXTS})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Append runs on held-out images to runs.csv.")
    parser.add_argument("records", nargs="+", type=Path, metavar="JSON")
    main(parser.parse_args().records)
