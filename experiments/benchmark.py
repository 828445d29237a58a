"""Speed of the scripts' data path against the tutorial's, and of both layouts of the CNN.

    python experiments/benchmark.py --data-dir DIR

Writes results/benchmark.json in three parts, each of which can be named to be measured alone.
epoch_seconds: the median seconds that an epoch of 60,000 images would take, by number of threads,
from training steps of each network, kind after kind and round after round, so that a slow minute of
the machine hits them all. one_epoch_run: peak memory of one whole epoch of each script, and its
seconds from the command on. time_to_accuracy: how soon short runs of bn, and bn_only with the
tutorial's DataLoader, pass 99.0 and 99.4 %. CPU only; nothing else should run meanwhile.
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
ROUNDS = 2


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


def time_epochs(data_dir):
    """Return the median seconds per epoch by network, kind and number of threads."""
    default, last = torch.contiguous_format, torch.channels_last
    kinds = {"tutorial": default, "ours, default layout": default, "ours": last}
    times = {}
    for _ in range(ROUNDS):
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
    """Return the seconds from the command on, the peak memory in MB (Linux), the test accuracy."""
    with tempfile.TemporaryDirectory() as plots:
        start = time.perf_counter()
        folders = "--data-dir", data_dir, "--plots-dir", plots
        command = [sys.executable, ROOT / script, *flags, *folders]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        if status:
            sys.exit(f"{script} failed")
        record = json.loads(next(Path(plots).glob("*.json")).read_text())
    accuracy = record["runs"][0]["epochs"][-1]["test_accuracy"]
    return round(seconds, 1), round(usage.ru_maxrss / 1024), accuracy


def one_epoch_runs(data_dir):
    """Return seconds, memory and accuracy of one epoch of each network."""
    runs = {"q2_mlp": whole_run(data_dir, "q2_mlp.py", "--epochs", "1")}
    for variant in q3_cnn.HYPERPARAMETERS:
        flags = "--variant", variant, "--epochs", "1"
        runs[f"q3_cnn_{variant}"] = whole_run(data_dir, "q3_cnn.py", *flags)
    return runs


def tutorial_run(data_dir, seed):
    """Return after each epoch the seconds since the start and the test accuracy.

    Trains the network of bn_only at its rate with the tutorial's DataLoader until it passes 99.4 %.
    """
    torch.manual_seed(seed)
    start = time.perf_counter()
    loader = tutorial_loader(data_dir)
    test_loader = DataLoader(MNIST(data_dir, train=False, transform=ToTensor()), BATCH_SIZE)
    model, loss_fn, epochs = q3_cnn.NeuralNetwork(batch_norm=True), nn.CrossEntropyLoss(), []
    optimizer = torch.optim.SGD(model.parameters(), lr=q3_cnn.BN_ONLY["lr"])
    while len(epochs) < 6 and (not epochs or epochs[-1][1] < 0.994):
        q2_mlp.train_loop(loader, model, loss_fn, optimizer)
        _, accuracy = q2_mlp.test_loop(test_loader, model, loss_fn)
        epochs.append([round(time.perf_counter() - start, 1), accuracy])
    return epochs


def time_to_accuracy(data_dir):
    """Return short runs of bn, and the epochs with the tutorial's DataLoader, for five seeds."""
    result = {"1": [], "3": [], "tutorial": []}
    for seed in range(5):
        for epochs in "1", "3":
            flags = "--variant", "bn", "--epochs", epochs, "--seeds", str(seed)
            result[epochs].append(whole_run(data_dir, "q3_cnn.py", *flags))
        result["tutorial"].append(tutorial_run(data_dir, seed))
    return result


PARTS = {
    "epoch_seconds": time_epochs,
    "one_epoch_run": one_epoch_runs,
    "time_to_accuracy": time_to_accuracy,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS) + " (all)")
    parser.add_argument("--data-dir", type=Path, default=ROOT / "data")
    args = parser.parse_args()
    path = ROOT / "experiments" / "results" / "benchmark.json"
    result = json.loads(path.read_text()) if path.exists() else {}
    result["torch"] = torch.__version__
    result["machine"] = f"{platform.machine()}, {os.cpu_count()} cores"
    for part in args.parts or PARTS:
        result[part] = PARTS[part](args.data_dir)
        path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
