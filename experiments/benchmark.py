"""Speed of the two scripts' loops against the tutorial's, and of both layouts of the CNN.

    python experiments/benchmark.py --data-dir DIR

Times training steps of each network, kind after kind and round after round, so that a slow minute
of the machine hits them all, and writes results/benchmark.json: the median seconds that an epoch of
60,000 images would take, by number of threads. Also the peak memory of one whole epoch of each
script, and its seconds from the command on. CPU only; nothing else should run meanwhile.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from statistics import median

import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision.datasets import MNIST
from torchvision.transforms import ToTensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for the two scripts
import q2_mlp  # noqa: E402
import q3_cnn  # noqa: E402

NETWORKS = {"q2_mlp": q2_mlp.NeuralNetwork} | {
    f"q3_cnn_{variant}": lambda row=row: q3_cnn.NeuralNetwork(row["batch_norm"], row["dropout"])
    for variant, row in q3_cnn.HYPERPARAMETERS.items()
}
BATCH_SIZE = 64


def tutorial_loader(data_dir):
    """Return the tutorial's loader, which makes a picture per image and a tensor per picture."""
    return DataLoader(MNIST(data_dir, transform=ToTensor()), BATCH_SIZE, shuffle=True)


def our_loader(data_dir, affine=0.0):
    """Return the scripts' loader: the whole set as one tensor, indexed by a permutation."""
    data = q2_mlp.load_mnist(data_dir, True, "cpu")
    loader = q2_mlp.batches(data, BATCH_SIZE, torch.randperm(len(data[1])))
    return ((q3_cnn.random_affine(X, affine), y) for X, y in loader) if affine else loader


def epoch_seconds(network, layout, loader, steps):
    """Return the seconds that an epoch of 60,000 images would take, from some steps of it."""
    model = network().to(memory_format=layout)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loader = iter(loader)
    q2_mlp.train_loop(islice(loader, steps // 5), model, nn.CrossEntropyLoss(), optimizer)
    start = time.perf_counter()
    q2_mlp.train_loop(islice(loader, steps), model, nn.CrossEntropyLoss(), optimizer)
    return (time.perf_counter() - start) / steps * 60_000 / BATCH_SIZE


def time_epochs(data_dir, rounds):
    """Return the median seconds per epoch by network, kind and number of threads."""
    default, last = torch.contiguous_format, torch.channels_last
    kinds = {"tutorial": default, "ours, default layout": default, "ours": last}
    times = {}
    for _ in range(rounds):
        for threads in range(1, os.cpu_count() + 1):
            torch.set_num_threads(threads)
            for name, network in NETWORKS.items():
                affine = q3_cnn.BN["affine"] if name == "q3_cnn_bn" else 0.0
                for kind, layout in kinds.items():
                    tutorial = kind == "tutorial"
                    loader = tutorial_loader(data_dir) if tutorial else our_loader(data_dir, affine)
                    seconds = epoch_seconds(network, layout, loader, 400 if "q2" in name else 60)
                    times.setdefault((name, kind, threads), []).append(seconds)
    return [[*key, round(median(values), 2)] for key, values in times.items()]


def whole_run(data_dir, script, *flags):
    """Return the seconds of one epoch from the command on, and the peak memory in MB (Linux)."""
    with tempfile.TemporaryDirectory() as plots:
        flags = [*flags, "--epochs", "1", "--data-dir", data_dir, "--plots-dir", plots]
        start = time.perf_counter()
        command = [sys.executable, ROOT / script, *flags]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            sys.exit(f"{script} failed")
        return round(time.perf_counter() - start, 1), round(usage.ru_maxrss / 1024)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=ROOT / "data")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    runs = {"q2_mlp": whole_run(args.data_dir, "q2_mlp.py")}
    for variant in q3_cnn.HYPERPARAMETERS:
        runs[f"q3_cnn_{variant}"] = whole_run(args.data_dir, "q3_cnn.py", "--variant", variant)
    result = {
        "torch": torch.__version__,
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "epoch_seconds": time_epochs(args.data_dir, args.rounds),
        "one_epoch_run": runs,
    }
    path = ROOT / "experiments" / "results" / "benchmark.json"
    path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
