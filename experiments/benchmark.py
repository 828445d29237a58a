"""How long the scripts take beside the tutorial's loop, under the same conditions.

    python experiments/benchmark.py --data-dir DIR
    python experiments/benchmark.py time_to_accuracy

Writes results/benchmark.json in four parts, each of which can be named to be measured alone. All
but full_run are measured on one thread and on as many as there are processors.
epoch_seconds: the median seconds that an epoch of 60,000 images would take, with nothing else
running and beside one busy process, from training steps of each network, kind after kind and round
after round, so that a slow minute of the machine hits them all.
one_epoch_run: peak memory of one whole epoch of each script, and its seconds from the command on.
full_run: the same of both scripts in full, then of the four variants side by side.
time_to_accuracy: how soon short runs of bn, and bn_only with the tutorial's DataLoader, pass 99.0
and 99.4 %.
CPU only; nothing else should run meanwhile.
"""

import argparse
import contextlib
import itertools
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
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

NAMES = ["q2_mlp", *[f"q3_cnn_{variant}" for variant in q3_cnn.HYPERPARAMETERS]]
BATCH_SIZE = 64
ROUNDS = 2
STEPS = {"q2_mlp": 400}  # timed at once; a step of a CNN takes longer
STEPS_OF_A_CNN = 60
SEEDS = range(3)
MOST_EPOCHS = 4  # of the tutorial's loop, if it does not pass 99.4 % before
KINDS = {  # whose loader, and the order in which a convolution's numbers lie in memory
    "tutorial": torch.contiguous_format,
    "ours, default layout": torch.contiguous_format,
    "ours": torch.channels_last,
}


# ---------------------------------------------------------------- seconds per epoch
def threads_to_try():
    """Return one thread, and as many as there are processors."""
    return sorted({1, os.cpu_count()})


@contextlib.contextmanager
def one_busy_process():
    """Keep one processor busy meanwhile."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def tutorial_loader(data_dir, train=True):
    """Return the tutorial's loader, which makes a picture per image and a tensor per picture."""
    data = MNIST(data_dir, train=train, transform=ToTensor())
    return DataLoader(data, BATCH_SIZE, shuffle=train)


def our_loader(data, affine):
    """Return the scripts' loader: the whole set as one tensor, indexed by a permutation."""
    loader = q2_mlp.batches(data, BATCH_SIZE, torch.Generator().manual_seed(0))
    if affine:
        return q3_cnn.augment(loader, affine)
    return loader


def new_network(name):
    """Return an untrained network by the name of its results, and the strength of its affine."""
    if name == "q2_mlp":
        return q2_mlp.NeuralNetwork(), 0.0
    settings = q3_cnn.HYPERPARAMETERS[name.removeprefix("q3_cnn_")]
    return q3_cnn.new_network(settings, torch.device("cpu")), settings["affine"]


def epoch_seconds(name, kind, data_dir, data):
    """Return the seconds that an epoch of 60,000 images would take, from some steps of it."""
    model, affine = new_network(name)
    model = model.to(memory_format=KINDS[kind])
    loader = tutorial_loader(data_dir) if kind == "tutorial" else our_loader(data, affine)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    loss_fn = nn.CrossEntropyLoss()
    steps = STEPS.get(name, STEPS_OF_A_CNN)
    loader = iter(loader)
    first_steps = itertools.islice(loader, max(1, steps // 5))
    q2_mlp.train_loop(first_steps, model, loss_fn, optimizer)  # not timed: they are slower
    start = time.perf_counter()
    q2_mlp.train_loop(itertools.islice(loader, steps), model, loss_fn, optimizer)
    return (time.perf_counter() - start) / steps * 60_000 / BATCH_SIZE


def time_epochs(data_dir):
    """Return the median seconds per epoch of each network and kind under each condition."""
    data = q2_mlp.load_mnist(data_dir, True, "cpu")
    conditions = list(itertools.product(threads_to_try(), [False, True]))
    times = {}
    for _ in range(ROUNDS):
        for threads, busy in conditions:
            torch.set_num_threads(threads)
            with one_busy_process() if busy else contextlib.nullcontext():
                for name, kind in itertools.product(NAMES, KINDS):
                    seconds = epoch_seconds(name, kind, data_dir, data)
                    times.setdefault((name, kind, threads, busy), []).append(seconds)
    result = []
    for (name, kind, threads, busy), values in times.items():
        result.append(
            {
                "network": name,
                "kind": kind,
                "threads": threads,
                "beside_a_busy_process": busy,
                "seconds": round(median(values), 2),
            }
        )
    return result


# ---------------------------------------------------------------- whole runs
# Prints exit status and peak memory of a command. Started from here, the command would be given the
# memory of this process as its least, for Linux counts what a process had before its exec.
RUN = """
import os, subprocess, sys
process = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(process.pid, 0)
print(status, usage.ru_maxrss)
"""


def whole_run(data_dir, threads, script, *flags):
    """Return seconds from the command on, peak memory (Linux) and test accuracy of a run."""
    with tempfile.TemporaryDirectory() as plots:
        start = time.perf_counter()
        command = [sys.executable, ROOT / script, *flags, "--threads", str(threads)]
        command += ["--data-dir", data_dir, "--plots-dir", plots]
        printed = subprocess.check_output([sys.executable, "-c", RUN, *command])
        seconds = time.perf_counter() - start
        status, kilobytes = map(int, printed.split())
        if status:
            sys.exit(f"{script} failed")
        record = json.loads(next(Path(plots).glob("*.json")).read_text())
    return {
        "threads": threads,
        "seconds": round(seconds, 1),
        "memory_mb": round(kilobytes / 1024),
        "test_accuracy": record["runs"][0]["epochs"][-1]["test_accuracy"],
    }


def one_epoch_runs(data_dir):
    """Return one epoch of each network, on each number of threads."""
    runs = []
    for threads in threads_to_try():
        for name in NAMES:
            script = "q2_mlp.py"
            flags = ["--epochs", "1"]
            if name != "q2_mlp":
                script = "q3_cnn.py"
                flags += ["--variant", name.removeprefix("q3_cnn_")]
            runs.append({"network": name} | whole_run(data_dir, threads, script, *flags))
    return runs


def full_runs(data_dir):
    """Return each script in full, one after the other, then the four variants side by side."""
    runs = []
    for script in ("q2_mlp.py", "q3_cnn.py"):
        runs.append({"what": script} | whole_run(data_dir, 1, script))
    variants = list(q3_cnn.HYPERPARAMETERS)
    run_variant = partial(whole_run, data_dir, 1, "q3_cnn.py", "--variant")
    with ThreadPoolExecutor(len(variants)) as pool:
        for variant, run in zip(variants, pool.map(run_variant, variants), strict=True):
            runs.append({"what": f"--variant {variant}"} | run)
    for run in runs:
        del run["test_accuracy"]  # there q3_cnn.py has four
    return runs


def tutorial_run(data_dir, threads, seed):
    """Return after each epoch the seconds since the start and the test accuracy.

    Trains the network of bn_only at its rate with the tutorial's DataLoader until it passes 99.4 %.
    """
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    start = time.perf_counter()
    loader = tutorial_loader(data_dir)
    test_loader = tutorial_loader(data_dir, train=False)
    model = q3_cnn.NeuralNetwork(batch_norm=True)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=q3_cnn.BN_ONLY["lr"])
    epochs = []
    for _ in range(MOST_EPOCHS):
        q2_mlp.train_loop(loader, model, loss_fn, optimizer)
        _, accuracy = q2_mlp.test_loop(test_loader, model, loss_fn)
        seconds = round(time.perf_counter() - start, 1)
        epochs.append({"seconds": seconds, "test_accuracy": accuracy})
        if accuracy >= 0.994:
            break
    return epochs


def time_to_accuracy(data_dir):
    """Return short runs of bn, and the epochs with the tutorial's DataLoader, for three seeds.

    A list of epochs per seed; of the runs of bn, whose seconds count from the command on, the last.
    """
    result = []
    for threads in threads_to_try():
        rows = {"--variant bn --epochs 1": [], "--variant bn --epochs 3": [], "tutorial": []}
        for seed in SEEDS:
            for what, runs in rows.items():
                if what == "tutorial":
                    runs.append(tutorial_run(data_dir, threads, seed))
                else:
                    flags = [*what.split(), "--seeds", str(seed)]
                    run = whole_run(data_dir, threads, "q3_cnn.py", *flags)
                    runs.append([{key: run[key] for key in ("seconds", "test_accuracy")}])
        for what, runs in rows.items():
            result.append({"threads": threads, "what": what, "runs": runs})
    return result


PARTS = {
    "epoch_seconds": time_epochs,
    "one_epoch_run": one_epoch_runs,
    "full_run": full_runs,
    "time_to_accuracy": time_to_accuracy,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS) + " (all)")
    parser.add_argument("--data-dir", type=Path, default=ROOT / "data")
    args = parser.parse_args()
    for part in args.parts:
        if part not in PARTS:
            parser.error(f"no such part: {part}; there are {', '.join(PARTS)}")
    path = ROOT / "experiments" / "results" / "benchmark.json"
    result = json.loads(path.read_text()) if path.exists() else {}
    result["torch"] = torch.__version__
    instructions = torch.backends.cpu.get_cpu_capability()
    result["machine"] = f"{platform.machine()}, {instructions}, {os.cpu_count()} cores"
    for part in args.parts or PARTS:
        result[part] = PARTS[part](args.data_dir)
        path.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
