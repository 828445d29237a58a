"""Measure seconds and memory of the scripts into results/benchmark.json, under "now" (Linux).

    python experiments/benchmark.py [DATA-DIR]

On one thread of the CPU, in some minutes in which nothing else should run. What is to be compared
takes turns, so that a slow minute hits all of it; seconds are medians of three rounds. What else
the file has was measured with the loader of before, and stays.
"""

import json
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from statistics import median

import torch
from torch import Generator, nn
from torch.utils.data import DataLoader
from torchvision.datasets import MNIST
from torchvision.transforms import ToTensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for the two scripts
import q2_mlp  # noqa: E402
import q3_cnn  # noqa: E402

DATA = Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "data").resolve()
RESULTS = ROOT / "experiments" / "results" / "benchmark.json"
PEAK = """
import importlib, sys
importlib.import_module(sys.argv[1]).main(sys.argv[2:])
print([line for line in open("/proc/self/status") if "VmHWM" in line][0].split()[1])
"""
loss_fn = nn.CrossEntropyLoss()


def cnn(settings, **changes):
    """Return a CNN with these settings, as the script has it on the CPU."""
    model = q3_cnn.NeuralNetwork(settings | changes)
    return model.to(memory_format=torch.channels_last)


def train(model, dataloader, steps=None):
    """Train for a number of steps, or an epoch."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    q2_mlp.train_loop(islice(dataloader, steps), model, loss_fn, optimizer)


def seconds(function, cases):
    """Return the median seconds of a function for each of the cases, its arguments by a name."""
    times = {name: [] for name in cases}
    for name in [*cases, *cases, *cases]:
        start = time.perf_counter()
        function(*cases[name])
        times[name].append(time.perf_counter() - start)
    return {name: round(median(values), 3) for name, values in times.items()}


def peak_memory(script, *flags):
    """Return the most megabytes that a process of its own takes for an epoch of a script."""
    with tempfile.TemporaryDirectory() as plots:
        folders = ["--data-dir", DATA, "--plots-dir", plots]
        command = [sys.executable, "-c", PEAK, script, "--epochs", "1", *flags, *folders]
        printed = subprocess.check_output(command, cwd=ROOT, text=True)
    return round(int(printed.split()[-1]) / 1024)


torch.set_num_threads(1)
data = q3_cnn.load_mnist(DATA, train=True, device="cpu")
script = DataLoader(data, 64, shuffle=True, generator=Generator(), collate_fn=tuple)
tutorial = DataLoader(MNIST(DATA, transform=ToTensor()), 64, shuffle=True)
some = DataLoader(q3_cnn.ImageDataset(*data[:10_000]), q3_cnn.EVAL_BATCH, collate_fn=tuple)
bn = q3_cnn.BN
deskew = {f"deskew {on}": (cnn(bn, deskew=on), script, 200) for on in (True, False)}
shifts = {f"shifts {on}": (some, cnn(bn, average_shifts=on), loss_fn) for on in (True, False)}
now = {"date": time.strftime("%Y-%m-%d"), "processor": torch.backends.cpu.get_cpu_capability()}
for name, model in {"q2_mlp": q2_mlp.NeuralNetwork(), "q3_cnn_base": cnn(q3_cnn.BASE)}.items():
    loaders = {"script's loader": (model, script), "tutorial's loader": (model, tutorial)}
    now[f"{name}, seconds per epoch"] = seconds(train, loaders)
now["q3_cnn_bn, seconds per 200 steps"] = seconds(train, deskew)
now["q3_cnn_bn, seconds to evaluate 10,000 images"] = seconds(q3_cnn.test_loop, shifts)
now["megabytes"] = {"q2_mlp": peak_memory("q2_mlp")}
for variant in q3_cnn.HYPERPARAMETERS:
    now["megabytes"][f"q3_cnn_{variant}"] = peak_memory("q3_cnn", "--variant", variant)
RESULTS.write_text(json.dumps(json.loads(RESULTS.read_text()) | {"now": now}, indent=1) + "\n")
