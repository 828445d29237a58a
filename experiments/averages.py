"""Longer training of bn, and averaged predictions: over shifts of the image, over ten networks.

    python experiments/averages.py          train the rows that results/ does not have yet

Trains each row with the seeds 0 to 9 on all training images, as q3_cnn.py does, and writes
results/averages.json: for each row its settings, and for each way of predicting [loss, accuracy]
on the test set, a pair per seed, and one pair for the mean of the ten networks' probabilities.
Nothing is chosen by these figures.
"""

import argparse
import contextlib
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import sweeps
import torch
import torch.nn.functional as F
from tqdm import tqdm

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for the script
import q3_cnn  # noqa: E402

SEEDS = range(10)
# By the flags that make them; as in sweeps.py, a change of the script changes no recorded row.
PLAIN = "--variant bn --eps 1e-5 --no-deskew --no-normalize"
ROWS = {
    PLAIN: sweeps.RECIPE,
    f"{PLAIN} --epochs 40": sweeps.RECIPE | {"epochs": 40},
    f"{PLAIN} --epochs 60 --affine 0.15": sweeps.RECIPE | {"epochs": 60, "affine": 0.15},
}


def shifted(images):
    """Return images (N, H, W) as they are, and moved by one pixel to each of the four sides."""
    moves = [(0, 0), (1, 0), (-1, 0), (0, 1), (0, -1)]
    return [F.pad(images, (dx, -dx, dy, -dy)) for dx, dy in moves]


def train(data_dir, settings, seed):
    """Train one network with one thread; return its probabilities (2, N, 10): plain, shifted."""
    torch.set_num_threads(1)
    train_data, test_data = q3_cnn.load_data(data_dir, False, "cpu")
    if settings["deskew"]:
        train_data = (q3_cnn.deskew(train_data[0]), train_data[1])
        test_data = (q3_cnn.deskew(test_data[0]), test_data[1])
    images, labels = test_data
    # The progress bars of several workers would write over one another.
    with open(os.devnull, "w") as silence, contextlib.redirect_stderr(silence):
        epochs = list(q3_cnn.train(settings, seed, train_data, test_data))
        model, _, _ = epochs[-1]
        views = []
        for view in shifted(images):
            views.append(q3_cnn.predict(q3_cnn.batches((view, labels), q3_cnn.EVAL_BATCH), model))
    return torch.stack([views[0], torch.stack(views).mean(0)]).numpy()


def figures(probabilities, labels):
    """Return the mean loss (nats) and the accuracy of probabilities (N, 10)."""
    loss = F.nll_loss(probabilities.log(), labels).item()
    return loss, (probabilities.argmax(1) == labels).double().mean().item()


def summary(networks, labels):
    """Return the figures of probabilities (seeds, N, 10): those of each network, of their mean."""
    return {
        "seeds": [figures(network, labels) for network in networks],
        "ensemble": figures(networks.mean(0), labels),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=ROOT / "data")
    parser.add_argument("--workers", type=int, default=2, help="runs at once, one thread each")
    args = parser.parse_args()
    _, labels = q3_cnn.load_mnist(args.data_dir, False, "cpu")
    path = sweeps.RESULTS / "averages.json"
    result = json.loads(path.read_text()) if path.exists() else {}
    for flags, settings in ROWS.items():
        if flags in result and result[flags]["settings"] == settings:
            continue
        with ProcessPoolExecutor(args.workers) as pool:
            runs = pool.map(partial(train, args.data_dir, settings), SEEDS)
            probabilities = np.stack(list(tqdm(runs, total=len(SEEDS), unit="run")))
        networks = torch.tensor(probabilities)  # (seeds, 2, N, 10)
        result[flags] = {
            "settings": settings,
            "plain": summary(networks[:, 0], labels),
            "shifted": summary(networks[:, 1], labels),
        }
        path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
