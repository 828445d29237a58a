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
    committed = ROOT / "plots" / f"q3_cnn_{record['variant']}.json"
    same = committed.exists() and json.loads(committed.read_text())["hyperparameters"] == settings
    rows = []
    for seed in record["seeds"]:
        epochs = [epoch for epoch in record["epochs"] if epoch["seed"] == seed]
        if record["split"] != "validation" or len(epochs) < settings["epochs"]:
            sys.exit(f"{record['script']}, seed {seed}: not of held-out images, or not whole")
        row = {"script": record["script"], "variant": record["variant"] if same else ""}
        row |= settings | {"also": "", "loader": "now", "seed": seed}
        row |= jumps([epoch["validation_loss"] for epoch in epochs])
        accuracies = [epoch["validation_accuracy"] for epoch in epochs]
        row |= {"accuracy": accuracies[-1], "last3": round(statistics.mean(accuracies[-3:]), 6)}
        row["loss"] = round(epochs[-1]["validation_loss"], 7)
        rows.append(row)
    return rows


def main(paths):
    there = read_runs()
    key = [column for column in there[0] if column not in RESULTS]
    known = {tuple(run[column] for column in key) for run in there}
    new = []
    for path in paths:
        for row in rows_of(json.loads(path.read_text())):
            values = tuple(row.get(column) for column in key)
            if values in known:
                sys.exit(f"{path}, seed {row['seed']}: this run is in runs.csv already")
            known.add(values)
            new.append({name: v if name in TEXTS else json.dumps(v) for name, v in row.items()})
    with RUNS.open("a", newline="") as file:
        csv.DictWriter(file, there[0], lineterminator="\n").writerows(new)
    print(f"{len(new)} runs appended")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Append runs on held-out images to runs.csv.")
    parser.add_argument("records", nargs="+", type=Path, metavar="JSON")
    main(parser.parse_args().records)
