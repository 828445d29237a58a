"""Train many settings on the validation split and keep their figures as JSON."""

import importlib
import itertools
import json
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))


def train_one(script, data_dir, settings, seed):
    """Train on 50,000 images with one thread; return the settings and the figures per epoch."""
    script = importlib.import_module(script)
    torch.set_num_threads(1)
    script.keep_freed_memory()
    args = SimpleNamespace(data_dir=data_dir, device="cpu", validate=True, batch_size=None)
    train_data, held_out = script.load_data(None, args)
    run, epochs = {"seed": seed}, []
    start = time.perf_counter()
    for (train_loss, train_accuracy), (loss, accuracy) in script.train(
        run, settings, train_data, held_out, "cpu"
    ):
        epochs.append([train_loss, train_accuracy, loss, accuracy])
    seconds = round(time.perf_counter() - start, 1)
    return {"settings": settings, "seed": seed, "seconds": seconds, "epochs": epochs}


def train_all(script, data_dir, jobs, path):
    """Train every (settings, seed) of `jobs`, two at a time, and keep the results in `path`.

    What the file already has is not trained again, so an interrupted search goes on where it was.
    """
    done = json.loads(path.read_text()) if path.exists() else []
    known = [(result["settings"], result["seed"]) for result in done]
    todo = [job for job in jobs if job not in known]
    with ProcessPoolExecutor(max_workers=2) as pool:
        count = len(todo)
        settings, seeds = zip(*todo, strict=True) if todo else ((), ())
        results = pool.map(
            train_one, itertools.repeat(script), itertools.repeat(data_dir), settings, seeds
        )
        for number, result in enumerate(results, start=1):
            done.append(result)
            path.write_text("[\n" + ",\n".join(json.dumps(entry) for entry in done) + "\n]\n")
            accuracy, seconds = 100 * result["epochs"][-1][3], result["seconds"]
            print(f"{number}/{count}  {accuracy:.2f} %  {seconds:5.0f} s  "
                  f"seed {result['seed']}  {result['settings']}", flush=True)
