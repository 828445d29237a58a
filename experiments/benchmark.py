"""Speed of the two scripts against the tutorial's loop and against the arithmetic alone.

    python experiments/benchmark.py --data-dir DIR

Times steps of the scripts' own training, with the epoch's overhead left out, and writes
benchmark.json: milliseconds per step (medians over rounds), their ratios, and of a whole run the
peak memory and the time to the first step. Linux; about 13 minutes on two idle cores.

The kinds are timed in turn, so that a slow minute of the machine hits them all. Whether the C
library gives freed memory back can be set only once per process, hence two processes, in turn too.
"""

import argparse
import json
import multiprocessing
import platform
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from itertools import islice, pairwise
from pathlib import Path
from statistics import median
from unittest import mock

import torch
import torchvision
from torchvision.transforms import Compose, RandomAffine, ToTensor

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for the two scripts
import q2_mlp  # noqa: E402
import q3_cnn  # noqa: E402

CPU = torch.device("cpu")
CASES = {"q2_mlp": (q2_mlp, q2_mlp.HYPERPARAMETERS)} | {
    f"q3_cnn_{variant}": (q3_cnn, settings) for variant, settings in q3_cnn.HYPERPARAMETERS.items()
}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
WARM_UP = 20  # steps


def kinds(case):
    """Return what is timed of a case."""
    names = ["tutorial", "ours", "floor", "float32_images"]
    names += LAYOUTS if case != "q2_mlp" else []
    return names + ["tutorial_augmented"] * ("affine" in CASES[case][1])


def float_batches(data, batch_size, order=None):
    """Be batches() for images that are float32 already."""
    for index in order.split(batch_size):
        yield data[0][index].unsqueeze(1), data[1][index]


@cache
def mnist(data_dir, float32):
    images, labels = q2_mlp.load_mnist(data_dir, True, CPU)
    return (images / 255 if float32 else images), labels


def epoch_parts(case, data, batches=None):
    """Return what train() of the script gives to train_loop: batches, model, loss_fn, optimizer."""
    script, settings = CASES[case]
    with mock.patch.multiple(
        script,
        train_loop=lambda *parts: parts,
        test_loop=lambda *_: None,
        batches=batches or script.batches,
    ):
        return next(script.train({"seed": 0}, settings, data, data, CPU))[0]


def tutorial_loop(batches, model, loss_fn, optimizer):
    """The tutorial's train_loop, which looks at the loss of every hundredth batch."""
    model.train()
    for batch, (X, y) in enumerate(batches):
        pred = model(X)
        loss = loss_fn(pred, y)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if batch % 100 == 0:
            loss = loss.item()


def milliseconds(case, kind, steps, data_dir):
    """Return the time of one step, the mean of `steps` after a warm-up."""
    script, settings = CASES[case]
    float32 = kind == "float32_images"
    data = mnist(data_dir, float32)
    batches, model, loss_fn, optimizer = epoch_parts(case, data, float_batches if float32 else None)
    loop = script.train_loop
    if kind.startswith("tutorial"):
        loop, model = tutorial_loop, model.to(memory_format=torch.contiguous_format)
        augment = [RandomAffine(10, (2 / 28, 2 / 28), (0.9, 1.1), 5)] * (kind != "tutorial")
        dataset = torchvision.datasets.MNIST(data_dir, transform=Compose([*augment, ToTensor()]))
        batches = iter(torch.utils.data.DataLoader(dataset, settings["batch_size"], shuffle=True))
    elif kind == "floor":
        loop, batches = tutorial_loop, iter([next(batches)] * (WARM_UP + steps))
    elif kind in LAYOUTS:
        model = model.to(memory_format=LAYOUTS[kind])
    loop(islice(batches, WARM_UP), model, loss_fn, optimizer)
    start = time.perf_counter()
    loop(islice(batches, steps), model, loss_fn, optimizer)
    return 1000 * (time.perf_counter() - start) / steps


def time_steps(steps, rounds, data_dir):
    """Return the median milliseconds per step by case, kind and allocator."""
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(1, context, q2_mlp.keep_freed_memory) as keeps,
        ProcessPoolExecutor(1, context) as gives_back,
    ):
        pools, result = {"keeps": keeps, "gives_back": gives_back}, {}
        for case in CASES:
            count = steps * 8 if case == "q2_mlp" else steps  # of a tenth of the time each
            times = {(kind, name): [] for kind in kinds(case) for name in pools}
            for _ in range(rounds):
                for (kind, name), values in times.items():
                    job = pools[name].submit(milliseconds, case, kind, count, data_dir)
                    values.append(job.result())
            result[case] = {kind: {} for kind in kinds(case)}
            for (kind, name), values in times.items():
                result[case][kind][name] = round(median(values), 4)
    return result


def ratios(times):
    """Return the ratios that matter of a case; "ours" keeps freed memory, as the scripts do."""
    ours = times["ours"]["keeps"]
    result = {
        "ours / tutorial": ours / times["tutorial"]["gives_back"],
        "ours / tutorial that keeps freed memory": ours / times["tutorial"]["keeps"],
        "ours / floor": ours / times["floor"]["keeps"],
        "ours keeping freed memory / giving it back": ours / times["ours"]["gives_back"],
        "ours / ours from float32 images": ours / times["float32_images"]["keeps"],
    }
    if "channels_last" in times:
        pair = times["channels_last"]["keeps"], times["contiguous"]["keeps"]
        result["ours in channels_last / in the default layout"] = pair[0] / pair[1]
    if "tutorial_augmented" in times:
        name = "ours / tutorial that augments image by image"
        result[name] = ours / times["tutorial_augmented"]["gives_back"]
    return {name: round(ratio, 3) for name, ratio in result.items()}


# What both programs of a whole run print: when the imports were done, and the peak of memory in kB.
IMPORTS = """
import importlib, sys, time, torch, torchvision, matplotlib.pyplot
print("imported", time.time())
"""
PEAK = """
print("peak", open("/proc/self/status").read().split("VmHWM:")[1].split()[0])
"""
ONE_EPOCH = """
script = importlib.import_module(sys.argv.pop(1))
train_loop = script.train_loop
def noting_the_first_step(batches, *others):
    train_loop([next(batches)], *others)
    print("stepped", time.time())
    return train_loop(batches, *others)
script.train_loop = noting_the_first_step
script.main()
"""


def printed(program, *arguments):
    """Run a program; return the numbers that it printed, by the word before each."""
    command = [sys.executable, "-c", program, *arguments]
    run = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    words = ("imported", "stepped", "peak")
    return {word: float(after) for word, after in pairwise(run.stdout.split()) if word in words}


def whole_runs(data_dir):
    """Return what one epoch of each case takes beyond the imports: seconds to its step, and MB."""
    flags = ["--epochs", "1", "--device", "cpu", "--data-dir", str(data_dir), "--plots-dir"]
    imports, result = printed(IMPORTS + PEAK), {}
    with tempfile.TemporaryDirectory() as folder:
        for case, (script, _) in CASES.items():
            variant = ["--variant", case.removeprefix("q3_cnn_")] * (script is q3_cnn)
            program = IMPORTS + ONE_EPOCH + PEAK
            run = printed(program, script.__name__, *flags, folder, *variant)
            result[case] = {
                "seconds_to_first_step_beyond_imports": round(run["stepped"] - run["imported"], 2),
                "peak_mb_above_imports": round(1.024e-3 * (run["peak"] - imports["peak"])),
            }
    return result


def cpu_model():
    """Return the name of the processor."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=ROOT / "data")
    parser.add_argument("--steps", type=int, default=100, help="per round (default: 100)")
    parser.add_argument("--rounds", type=int, default=7, help="of each kind (default: 7)")
    args = parser.parse_args()
    data_dir = args.data_dir.resolve()
    result = {
        "environment": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": torchvision.__version__,
            "threads": torch.get_num_threads(),
            "cpu": cpu_model(),
        },
        "steps": args.steps,
        "rounds": args.rounds,
        "milliseconds_per_step": (times := time_steps(args.steps, args.rounds, data_dir)),
        "ratios": {case: ratios(row) for case, row in times.items()},
        "whole_runs": whole_runs(data_dir),
    }
    text = json.dumps(result, indent=1)
    Path(__file__).with_suffix(".json").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
