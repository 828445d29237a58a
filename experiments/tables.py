"""Fill the tables of README.md, report.md and experiments/README.md from the JSON files.

    python experiments/tables.py

A table stands between <!-- NAME --> and <!-- end -->; what is written there by hand is replaced.
"""

import itertools
import json
import re
import statistics
from functools import partial
from pathlib import Path

import numpy as np
import search

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / name for name in ("README.md", "report.md", "experiments/README.md")]
# 97.5 % quantiles of Student's t by degrees of freedom; 9,999 are those of an interval over images.
STUDENT = {4: 2.776, 9: 2.262, 9999: 1.960}
TITLES = {
    "q2_mlp": "Q2: MLP",
    "q3_cnn_base": "Q3 (b): CNN",
    "q3_cnn_reg": "Q3 (c): weight decay and dropout",
    "q3_cnn_bn_only": "Q3 (d): batch norm alone",
    "q3_cnn_bn": "Q3 (d): batch norm and tweaks",
}


def table(head, rows):
    """Return a Markdown table; columns after the first are aligned to the right."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def spread(values, digits=2):
    """Return "mean ± sample standard deviation"; "diverged" if a run did not end."""
    if None in values:
        return "diverged"
    deviation = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{deviation}"  # rounded as the scripts do in their plots


def interval(values):
    """Return the mean of differences and Student's 95 % interval for it, signed."""
    mean = statistics.mean(values)
    half = STUDENT[len(values) - 1] * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:+.2f}", f"{mean - half:+.2f} to {mean + half:+.2f}"


# ---------------------------------------------------------------- the test set


def load(name):
    """Return the record of a network in plots/."""
    return json.loads((ROOT / "plots" / f"{name}.json").read_text())


def last(name, key):
    """Return `key` at the last epoch of each run."""
    return [run["epochs"][-1][key] for run in load(name)["runs"]]


def results():
    """Return the table of the final figures on the test set."""
    rows = []
    for name, title in TITLES.items():
        accuracy = [100 * value for value in last(name, "test_accuracy")]
        wrong = statistics.mean(100 * (100 - value) for value in accuracy)
        loss = spread(last(name, "test_loss"), 4)
        lowest_to_highest = f"{min(accuracy):.2f} to {max(accuracy):.2f}"
        parameters = f"{load(name)['parameters']:,}"
        rows.append([title, parameters, spread(accuracy), lowest_to_highest, f"{wrong:.1f}", loss])
    head = ["network", "parameters", "test accuracy, %", "range", "wrong of 10,000", "test loss"]
    return table(head, rows)


def errors(name):
    """Return for each test image the share of the seeds, in %, that have it wrong."""
    wrong = last(name, "wrong")
    counts = np.bincount(np.concatenate(wrong), minlength=10_000)
    return (100 * counts / len(wrong)).tolist()


def paired():
    """Return the table of the differences between variants, by seed and by image, in points."""
    rows = []
    for before, after in (
        ("base", "reg"),
        ("base", "bn_only"),
        ("bn_only", "bn"),
        ("reg", "bn"),
        ("base", "bn"),
    ):
        names = f"q3_cnn_{before}", f"q3_cnn_{after}"
        pairs = zip(*(last(name, "test_accuracy") for name in names), strict=True)
        mean, over_seeds = interval([100 * (b - a) for a, b in pairs])
        images = zip(*map(errors, names), strict=True)
        _, over_images = interval([a - b for a, b in images])
        rows.append([f"`{before}` → `{after}`", mean, over_seeds, over_images])
    head = ["", "difference, points", "95 % interval over seeds", "95 % interval over images"]
    return table(head, rows)


def hyperparameters():
    """Return the settings of every network, as its JSON has them."""
    records = [load(name)["hyperparameters"] for name in TITLES]
    rows = [
        [f"`{key}`", *(f"{row[key]:g}" if key in row else "0" for row in records)]
        for key in records[-1]
    ]
    return table(["", "Q2", "`base`", "`reg`", "`bn_only`", "`bn`"], rows)


def epochs(name):
    """Return the figures per epoch of a record, means over the seeds."""
    rows = []
    for column in zip(*(run["epochs"] for run in load(name)["runs"]), strict=True):
        keys = "train_loss", "train_accuracy", "test_loss", "test_accuracy"
        mean = {key: statistics.mean(epoch[key] for epoch in column) for key in keys}
        figures = (f"{100 * v:.2f}" if "acc" in k else f"{v:.4f}" for k, v in mean.items())
        rows.append([column[0]["epoch"], *figures])
    head = ["epoch", "train loss", "train accuracy, %", "test loss", "test accuracy, %"]
    return table(head, rows)


def times():
    """Return the table of the seconds that training took."""
    rows = []
    for name, title in TITLES.items():
        record = load(name)
        seconds = [[epoch["seconds"] for epoch in run["epochs"]] for run in record["runs"]]
        median = f"{statistics.median(itertools.chain(*seconds)):.1f}"
        minutes = f"{statistics.mean(map(sum, seconds)) / 60:.1f}"
        rows.append([title, median, minutes, record["environment"]["threads"]])
    return table(["network", "seconds per epoch (median)", "minutes per seed", "threads"], rows)


# ---------------------------------------------------------------- held-out images


def group(sweep):
    """Return the finished runs of a sweep by settings: a list of (settings, runs)."""
    known = {
        search.key(script, run["settings"], run["seed"]): run
        for script in search.SCRIPTS
        for run in search.load(script)
    }
    groups = {}
    for script, settings, seed in search.jobs(sweep):
        _, runs = groups.setdefault(json.dumps(settings), (settings, []))
        runs.append(known[search.key(script, settings, seed)])
    return list(groups.values())


def accuracies(runs):
    """Return the validation accuracy in % of each run at its last epoch."""
    values = [run["epochs"][-1][3] for run in runs]
    return [None if value is None else 100 * value for value in values]


def losses(runs):
    """Return the validation loss of each run at its last epoch."""
    return [run["epochs"][-1][2] for run in runs]


def sweep(name):
    """Return the validation figures of a sweep, with a column for each setting that varies.

    One noisy epoch at a constant rate can't decide, hence also the mean of the last three.
    """
    rows, groups = [], group(name)
    keys = list(dict.fromkeys(key for settings, _ in groups for key in settings))
    varied = [key for key in keys if len({str(row.get(key)) for row, _ in groups}) > 1]
    for settings, runs in groups:
        values = [settings.get(key, "") for key in varied]
        values = [f"{value:g}" if isinstance(value, float | int) else value for value in values]
        late = [100 * e[3] for run in runs for e in run["epochs"][-3:] if e[3]]
        late = f"{statistics.mean(late):.2f}" if late else ""
        figures = spread(accuracies(runs)), late, spread(losses(runs), 4)
        rows.append([*values, len(runs), *figures])
    head = [f"`{key}`" for key in varied]
    head += ["seeds", "accuracy, %", "last 3 epochs, %", "loss"]
    return table(head, rows)


RUNGS = [
    "(b)",
    "and batch norm: `bn_only`",
    "and the best higher rate, constant: 0.3",
    "and one-cycle schedule, peak 0.5",
    "and affine augmentation",
    "and weight decay: `bn`",
]


def ladder():
    """Return the figures from (b) to bn, one change at a time, and what each change brings."""
    rows, before = [], None
    for name, (_, runs) in zip(RUNGS, group("ladder"), strict=True):
        accuracy = accuracies(runs)
        gain = "", ""
        if before:
            gain = interval([b - a for a, b in zip(before, accuracy, strict=True)])
        rows.append([name, spread(accuracy), spread(losses(runs), 4), *gain])
        before = accuracy
    head = ["", "accuracy, %", "loss", "gain, points", "95 % interval of the gain"]
    return table(head, rows)


def factorial():
    """Return the figures of all eight combinations of batch norm, schedule and affine."""
    rows = []
    for settings, runs in group("factorial"):
        used = ["yes" if settings[key] else "no" for key in ("batch_norm", "one_cycle", "affine")]
        rows.append(
            [*used, f"{settings['lr']:g}", spread(accuracies(runs)), spread(losses(runs), 4)]
        )
    return table(["batch norm", "one-cycle", "affine", "rate", "accuracy, %", "loss"], rows)


def effects():
    """Return what each of the three brings: alone, on average over the others, on top of both."""
    cells = np.array([accuracies(runs) for _, runs in group("factorial")]).reshape(2, 2, 2, -1)
    rows = []
    for axis, name in enumerate(["batch norm", "one-cycle schedule", "affine augmentation"]):
        gains = cells.take(1, axis) - cells.take(0, axis)  # (2, 2, seeds)
        several = gains[0, 0], gains.mean((0, 1)), gains[1, 1]
        rows.append([name, *("{} ({})".format(*interval(gain.tolist())) for gain in several)])
    return table(["gain, points", "alone", "on average", "on top of the other two"], rows)


def rates():
    """Return the accuracy after two epochs by learning rate, without and with batch norm."""
    found = {False: {}, True: {}}
    for settings, runs in group("rates"):
        found[settings["batch_norm"]][settings["lr"]] = spread(accuracies(runs))
    rows = [[name, *found[norm].values()] for norm, name in ((False, "(b)"), (True, "`bn_only`"))]
    return table(["learning rate", *found[True]], rows)


def speed():
    """Return the ratios of the benchmark, and time and memory of one epoch of each script."""
    measured = json.loads((search.RESULTS / "benchmark.json").read_text())
    seconds = {tuple(key): value for *key, value in measured["epoch_seconds"]}
    threads = sorted({key[2] for key in seconds})
    rows = []
    for name, title in TITLES.items():
        ratios = [
            f"{seconds[name, 'ours', n] / seconds[name, kind, n]:.2f}"
            for kind in ("tutorial", "ours, default layout")
            for n in threads
        ]
        ours = [f"{seconds[name, 'ours', n]:.1f}" for n in threads]
        rows.append([title, *ours, *ratios, *measured["one_epoch_run"][name][:2]])
    head = ["network"]
    for text in "seconds of training per epoch", "/ the tutorial's", "/ the default layout's":
        head += [f"{text}, {n} thread{'s' * (n > 1)}" for n in threads]
    return table([*head, "one epoch from the command on, s", "peak memory, MB"], rows)


def averages():
    """Return what longer training and averaged predictions of bn give on the test set."""
    measured = json.loads((search.RESULTS / "averages.json").read_text())
    rows = []
    for flags, row in measured.items():
        for way, title in ("plain", "the image"), ("shifted", "mean of five shifts"):
            losses, accuracies = np.array(row[way]["seeds"]).T
            loss, accuracy = row[way]["ensemble"]
            one = spread(100 * accuracies), spread(losses, 4)
            rows.append([f"`{flags}`", title, *one, f"{100 * accuracy:.2f}", f"{loss:.4f}"])
    head = [
        "flags",
        "prediction from",
        "one network, %",
        "loss",
        "mean of ten networks, %",
        "loss",
    ]
    return table(head, rows)


def time_to_accuracy():
    """Return how soon short runs of bn and the tutorial's DataLoader pass two accuracies."""
    measured = json.loads((search.RESULTS / "benchmark.json").read_text())["time_to_accuracy"]
    runs = {
        f"`--variant bn --epochs {length}`": [[(run[0], run[2])] for run in measured[length]]
        for length in ("1", "3")
    }
    runs["the tutorial's `DataLoader`, `bn_only`"] = measured["tutorial"]
    rows = []
    for name, seeds in runs.items():
        row = [name, spread([100 * run[-1][1] for run in seeds])]
        for least in 0.99, 0.994:
            passed = ([s for s, accuracy in run if accuracy >= least][:1] for run in seeds)
            reached = list(itertools.chain(*passed))
            row.append(f"{len(reached)} of {len(seeds)}")
            row.append(f"{statistics.median(reached):.0f}" if reached else "")
        rows.append(row)
    head = ["", "last test accuracy, %", "99.0 % passed", "after, s", "99.4 % passed", "after, s"]
    return table(head, rows)


def fill(text):
    """Return the text with each <!-- NAME --> block filled from the files."""

    def block(match):
        return f"{match[1]}\n{BLOCKS[match[2]]()}\n{match[3]}"

    return re.sub(r"(<!-- ((?!end)[\w ]+) -->)\n.*?(<!-- end -->)", block, text, flags=re.DOTALL)


BLOCKS = {"results": results, "paired": paired, "hyperparameters": hyperparameters, "times": times}
BLOCKS |= {f"epochs {name}": partial(epochs, name) for name in TITLES}
BLOCKS |= {name: partial(sweep, name) for name in search.SWEEPS}
BLOCKS |= {"ladder": ladder, "rates": rates, "factorial": factorial, "effects": effects}
BLOCKS |= {"averages": averages, "speed": speed, "time to accuracy": time_to_accuracy}


if __name__ == "__main__":
    for document in DOCUMENTS:
        document.write_text(fill(document.read_text()))
