"""What the searches share: train many settings on held-out data, keep the figures as JSON."""

import argparse
import importlib
import json
import math
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from tweaks import TWEAKS

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for the two scripts


def train_one(script_name, data_dir, settings, seed):
    """Train on 50,000 images with one thread; return the settings and the figures per epoch.

    An epoch is [train loss, train accuracy, validation loss, validation accuracy], null where the
    loss is not finite.
    """
    script = importlib.reload(importlib.import_module(script_name))  # without the last tweak
    if "tweak" in settings:
        name, *arguments = settings["tweak"]
        TWEAKS[name](script, *arguments)
    torch.set_num_threads(1)
    script.keep_freed_memory()
    args = argparse.Namespace(data_dir=data_dir, device="cpu", validate=True)
    train_data, held_out = script.load_data(None, args, batch_size=0)
    start = time.perf_counter()
    figures = script.train({"seed": seed}, settings, train_data, held_out, "cpu")
    epochs = [
        [value if math.isfinite(value) else None for value in [*train_figures, *held_out_figures]]
        for train_figures, held_out_figures in figures
    ]
    seconds = round(time.perf_counter() - start, 1)
    return {"settings": settings, "seed": seed, "seconds": seconds, "epochs": epochs}


def main(script_name, jobs, program):
    """Train every (settings, seed) of `jobs` into the JSON beside `program`.

    What is in the file already is not trained again: an interrupted search goes on where it was.
    """
    parser = argparse.ArgumentParser(description=sys.modules["__main__"].__doc__)
    parser.add_argument("--data-dir", type=Path, default=ROOT / "data")
    parser.add_argument("--workers", type=int, default=2, help="runs at once, one thread each")
    args = parser.parse_args()
    path = Path(program).with_suffix(".json")
    results = json.loads(path.read_text()) if path.exists() else []
    known = [(result["settings"], result["seed"]) for result in results]
    with ProcessPoolExecutor(max_workers=args.workers) as pool:
        futures = [
            pool.submit(train_one, script_name, args.data_dir, *job)
            for job in jobs
            if job not in known
        ]
        for future in futures:
            result = future.result()
            results.append(result)
            path.write_text("[\n" + ",\n".join(map(json.dumps, results)) + "\n]\n")
            accuracy = result["epochs"][-1][3]
            print(f"{100 * accuracy:.2f} %", result["seed"], result["settings"], flush=True)
