"""Fill the tables of README.md, report.md and experiments/README.md from the JSON files.

    python experiments/tables.py

A table stands between <!-- NAME --> and <!-- end -->; what is written there by hand is replaced.
"""

import itertools
import json
import math
import re
import statistics
from functools import partial
from pathlib import Path

import numpy as np
import scipy.stats
import sweeps

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [ROOT / name for name in ("README.md", "report.md", "experiments/README.md")]
TITLES = {
    "q2_mlp": "Q2: MLP",
    "q3_cnn_base": "Q3 (b): CNN",
    "q3_cnn_reg": "Q3 (c): weight decay and dropout",
    "q3_cnn_bn_only": "Q3 (d): batch norm alone",
    "q3_cnn_bn": "Q3 (d): batch norm and tweaks",
}
VARIANTS = ["base", "reg", "bn_only", "bn"]
NOT_YET = "Not recorded yet."


# ---------------------------------------------------------------- how figures are written
def table(head, rows):
    """Return a Markdown table; columns after the first are aligned to the right."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def spread(values, digits=2):
    """Return "mean ± sample standard deviation"; "diverged" if a run did not end."""
    if None in values:
        return "diverged"
    text = f"{np.mean(values):.{digits}f}"  # rounded as the scripts do in their plots
    if len(values) > 1:
        text += f" ± {np.std(values, ddof=1):.{digits}f}"
    return text


def minus(text):
    """Return a number with the minus sign of print, which is as wide as a plus."""
    return text.replace("-", "−")


def signed(value, digits=2):
    """Return a difference with its sign."""
    value = round(value, digits) + 0.0  # makes 0.00 of -0.00
    return minus(f"{value:+.{digits}f}")


def interval(values, digits=2):
    """Return the mean of differences and Student's 95 % interval for it, which needs two."""
    if not values:
        return "", ""
    mean = statistics.mean(values)
    if len(values) == 1:
        return signed(mean, digits), ""
    quantile = scipy.stats.t.ppf(0.975, len(values) - 1)
    half = quantile * statistics.stdev(values) / len(values) ** 0.5
    ends = f"{signed(mean - half, digits)} to {signed(mean + half, digits)}"
    return signed(mean, digits), ends


def paired_differences(before, after):
    """Return the differences between two lists of figures, seed by seed."""
    return [b - a for a, b in zip(before, after, strict=True)]


def in_one(mean, ends):
    """Return a mean and its interval, where there is one, for one cell."""
    return f"{mean} ({ends})" if ends else mean


def survive_holm(several):
    """Return "yes" or "no" for each list of differences: is its mean not 0, at 5 % for all?

    Holm (1979): of n tests, the smallest p is held against 5 % / n, the next one against
    5 % / (n - 1), until one fails. "" where there are too few differences for any.
    """
    if any(len(values) < 2 for values in several):
        return [""] * len(several)
    p = [scipy.stats.ttest_1samp(values, 0).pvalue for values in several]
    outcomes = ["no"] * len(several)
    for failed, index in enumerate(np.argsort(p)):
        if p[index] > 0.05 / (len(p) - failed):
            break
        outcomes[index] = "yes"
    return outcomes


def setting(value):
    """Return a hyperparameter: yes or no, 0.001, 1e-4."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list):
        return ", ".join(setting(one) for one in value)
    if 0 < value < 1e-3:
        return np.format_float_scientific(value, trim="-", exp_digits=1)
    return f"{value:g}"


# ---------------------------------------------------------------- the test set
def load(name):
    """Return the record of a network in plots/."""
    return json.loads((ROOT / "plots" / f"{name}.json").read_text())


def last(name, key):
    """Return a metric at the last epoch of each run."""
    return [run["epochs"][-1][key] for run in load(name)["runs"]]


def results():
    """Return the table of the final figures on the test set."""
    rows = []
    for name, title in TITLES.items():
        accuracy = [100 * value for value in last(name, "test_accuracy")]
        loss = spread(last(name, "test_loss"), 4)
        lowest_to_highest = f"{min(accuracy):.2f} to {max(accuracy):.2f}"
        parameters = f"{load(name)['parameters']:,}"
        train_accuracy = f"{100 * statistics.mean(last(name, 'train_accuracy')):.2f}"
        train_loss = f"{statistics.mean(last(name, 'train_loss')):.4f}"
        row = [title, parameters, spread(accuracy), lowest_to_highest, loss]
        rows.append([*row, train_accuracy, train_loss])
    head = [
        "network",
        "parameters",
        "test accuracy, %",
        "range",
        "test loss",
        "train accuracy, %",
        "train loss",
    ]
    return table(head, rows)


OTHER_BN = {
    "earlier_bn": "digits and pixels as they are",
    "earlier_bn_eps": "straight digits, centred pixels, `eps` 0.01",
    "longer_bn": "`bn` with 40 epochs",
}


def other_bn():
    """Return what bn otherwise reaches on the test set, and what bn gains on that."""
    now = load("q3_cnn_bn")["runs"]
    rows = []
    for name, words in OTHER_BN.items():
        runs = json.loads((sweeps.RESULTS / f"{name}.json").read_text())["runs"]
        row = [words, *finals(runs)]
        for key, scale, digits in ("test_accuracy", 100, 2), ("test_loss", 1, 4):
            old = [scale * run["epochs"][-1][key] for run in runs]
            new = [scale * run["epochs"][-1][key] for run in now]
            row.append(in_one(*interval(paired_differences(old, new), digits)))
        rows.append(row)
    rows.append(["`bn`", *finals(now), "", ""])
    head = ["", "accuracy, %", "loss", "jumps of the loss", "highest ratio"]
    return table([*head, "`bn` against it, points", "loss"], rows)


def finals(runs):
    """Return accuracy and loss of the last epoch on the test set, and how the loss jumps."""
    last_epochs = [run["epochs"][-1] for run in runs]
    accuracy = spread([100 * epoch["test_accuracy"] for epoch in last_epochs])
    loss = spread([epoch["test_loss"] for epoch in last_epochs], 4)
    return [accuracy, loss, *jumps(runs, "test_loss")]


PAIRS = [
    ("base", "reg"),
    ("base", "bn_only"),
    ("reg", "bn_only"),
    ("bn_only", "bn"),
    ("reg", "bn"),
    ("base", "bn"),
]


def differences(before, after, key):
    """Return the differences between two variants in a metric of the last epoch, seed by seed."""
    return paired_differences(last(f"q3_cnn_{before}", key), last(f"q3_cnn_{after}", key))


def errors(variant):
    """Return for each test image the share of the seeds, in %, that have it wrong."""
    wrong = last(f"q3_cnn_{variant}", "wrong")
    counts = np.bincount(np.concatenate(wrong).astype(int), minlength=10_000)
    return 100 * counts / len(wrong)


def paired():
    """Return the table of the differences between variants, by seed and by image, in points."""
    over_seeds = []
    over_images = []
    for before, after in PAIRS:
        points = [100 * value for value in differences(before, after, "test_accuracy")]
        over_seeds.append(points)
        over_images.append((errors(before) - errors(after)).tolist())
    seeds_survive = survive_holm(over_seeds)
    images_survive = survive_holm(over_images)
    rows = []
    for index, (before, after) in enumerate(PAIRS):
        mean, seeds_interval = interval(over_seeds[index])
        _, images_interval = interval(over_images[index])
        survive = seeds_survive[index]
        if survive == "yes":
            survive = images_survive[index]
        loss = in_one(*interval(differences(before, after, "test_loss"), 4))
        name = f"`{before}` → `{after}`"
        rows.append([name, mean, seeds_interval, images_interval, survive, loss])
    return table(["", "points", "over seeds", "over images", "by Holm", "loss, over seeds"], rows)


WORDS = {
    "epochs": "epochs",
    "batch_size": "images per batch",
    "lr": "learning rate, or its peak",
    "one_cycle": "one-cycle schedule",
    "batch_norm": "batch norm after every ReLU",
    "weight_decay": "weight decay",
    "dropout": "dropout before both linear layers",
    "affine": "affine augmentation",
    "deskew": "digits straightened",
    "normalize": "pixels as (x − 0.1307) / 0.3081",
    "drop_last": "last, smaller batch left out",
}


def hyperparameters():
    """Return the settings of every network, as its JSON has them."""
    records = [load(name)["hyperparameters"] for name in TITLES]
    rows = []
    for key in records[-1]:
        values = [setting(row[key]) if key in row else "–" for row in records]
        rows.append([f"{WORDS.get(key, key)} (`{key}`)", *values])
    head = ["", "Q2", "3 (b) `base`", "3 (c) `reg`", "3 (d) `bn_only`", "3 (d) `bn`"]
    return table(head, rows)


def medians(name, key):
    """Return the median over the seeds of a metric after each epoch, as the plots show it."""
    runs = [[epoch[key] for epoch in run["epochs"]] for run in load(name)["runs"]]
    values = np.median(runs, axis=0)
    if key.endswith("accuracy"):
        return [f"{100 * value:.2f}" for value in values]
    return [f"{value:.4f}" for value in values]


def epochs_of_q2():
    """Return the metrics per epoch of question 2."""
    columns = {
        "train loss": medians("q2_mlp", "train_loss"),
        "train accuracy, %": medians("q2_mlp", "train_accuracy"),
        "test loss": medians("q2_mlp", "test_loss"),
        "test accuracy, %": medians("q2_mlp", "test_accuracy"),
    }
    return table_per_epoch(columns)


def epochs_of_variants():
    """Return the metrics per epoch of the four variants side by side."""
    columns = {}
    for variant in VARIANTS:
        name = f"q3_cnn_{variant}"
        columns[f"`{variant}` train"] = medians(name, "train_loss")
        columns[f"`{variant}` test"] = medians(name, "test_loss")
        columns[f"`{variant}` %"] = medians(name, "test_accuracy")
    return table_per_epoch(columns)


def table_per_epoch(columns):
    """Return a table with a row per epoch; columns: head to the figures from epoch 1 on."""
    rows = itertools.zip_longest(*columns.values(), fillvalue="")
    numbered = [[epoch, *row] for epoch, row in enumerate(rows, start=1)]
    return table(["epoch", *columns], numbered)


def jumps(runs, key):
    """Return in how many epochs after the fourth a loss is over 1.5 times the one before.

    With it, the highest ratio.
    """
    ratios = []
    for run in runs:
        losses = [epoch[key] for epoch in run["epochs"]]
        for before, after in itertools.pairwise(losses[3:]):
            ratios.append(after / before)
    jumped = [ratio for ratio in ratios if ratio > 1.5]
    return [f"{len(jumped)} of {len(ratios)}", f"{max(ratios):.1f}" if ratios else ""]


def layers():
    """Return mean and standard deviation of what three layers receive, means over the seeds."""
    variants = ("base", "bn_only", "bn")
    moments = {"start": "before training", "end": "after training"}
    rows = []
    for layer in ("conv 2", "linear 1", "linear 2"):
        for when, words in moments.items():
            row = [f"input of {layer}, {words}"]
            for variant in variants:
                runs = load(f"q3_cnn_{variant}")["runs"]
                inputs = [run["layers"][when][layer] for run in runs]
                mean = statistics.mean(one["mean"] for one in inputs)
                deviation = statistics.mean(one["standard_deviation"] for one in inputs)
                row.append(f"{minus(f'{round(mean, 3) + 0.0:.3f}')}; {deviation:.3f}")
            rows.append(row)
    return table(["mean; standard deviation", *[f"`{name}`" for name in variants]], rows)


def mean_and_most(channels):
    """Return the mean of some numbers of channels, and the largest."""
    return f"{statistics.mean(channels):.1f} (at most {max(channels)})"


def silent():
    """Return how many channels of each ReLU never fire, and how often the test loss jumps."""
    rows = []
    for variant in VARIANTS:
        runs = load(f"q3_cnn_{variant}")["runs"]
        row = [f"`{variant}`"]
        for layer in ("conv 1", "conv 2", "linear 1"):
            row.append(mean_and_most([run["layers"]["never_fires"][layer] for run in runs]))
        rows.append(row + jumps(runs, "test_loss"))
    head = [
        "",
        "never fire: conv 1, of 20",
        "conv 2, of 20",
        "linear 1, of 250",
        "jumps of the test loss",
        "highest ratio",
    ]
    return table(head, rows)


# ---------------------------------------------------------------- held-out images
def group(sweep):
    """Return the recorded runs of a sweep by settings: a list of (settings, runs)."""
    recorded = sweeps.recorded()
    groups = []
    for settings, seeds in sweeps.SWEEPS[sweep]:
        script = "q3_cnn" if "batch_norm" in settings else "q2_mlp"
        keys = [sweeps.key(script, settings, seed) for seed in seeds]
        runs = [recorded[key] for key in keys if key in recorded]
        if runs:
            groups.append((settings, runs))
    return groups


def incomplete(sweep):
    """Return whether runs of a sweep are missing."""
    return sum(len(runs) for _, runs in group(sweep)) < len(sweeps.jobs(sweep))


def accuracies(runs):
    """Return the validation accuracy in % of each run at its last epoch."""
    values = [run["epochs"][-1]["validation_accuracy"] for run in runs]
    return [None if value is None else 100 * value for value in values]


def losses(runs):
    """Return the validation loss of each run at its last epoch."""
    return [run["epochs"][-1]["validation_loss"] for run in runs]


def sweep(name, with_jumps=False):
    """Return the validation figures of a sweep, with a column for each setting that varies.

    One noisy epoch at a constant rate can't decide, hence also the mean of the last three.
    with_jumps: also how often the loss jumps.
    """
    groups = group(name)
    keys = list(dict.fromkeys(key for settings, _ in groups for key in settings))
    varied = [key for key in keys if len({str(row.get(key)) for row, _ in groups}) > 1]
    rows = []
    for settings, runs in groups:
        values = [setting(settings[key]) if key in settings else "" for key in varied]
        late_epochs = [epoch for run in runs for epoch in run["epochs"][-3:]]
        late = [epoch["validation_accuracy"] for epoch in late_epochs]
        mean = "" if None in late else f"{100 * statistics.mean(late):.2f}"
        row = [*values, len(runs), spread(accuracies(runs)), mean, spread(losses(runs), 4)]
        if with_jumps:
            row += jumps(runs, "validation_loss")
        rows.append(row)
    head = [f"`{key}`" for key in varied]
    head += ["seeds", "accuracy, %", "last 3 epochs, %", "loss"]
    if with_jumps:
        head += ["jumps of the loss", "highest ratio"]
    return table(head, rows)


def with_all_the_rest():
    """Return the recipe of bn without batch norm, at several peaks, and with it.

    The differences, paired by seed, are to the peaks that have as many seeds.
    """
    _, with_norm = group("ladder")[-1]
    rows = []
    differences = []
    for settings, runs in group("without"):
        name = f"without, peak {settings['lr']:g}"
        finished = [value for value in accuracies(runs) if value is not None]
        if len(finished) < len(runs):
            name += f", {len(runs) - len(finished)} diverged"
        loss = spread([value for value in losses(runs) if value is not None], 4)
        rows.append([name, len(runs), spread(finished), loss])
        if len(runs) == len(with_norm):
            gain = in_one(*interval(paired_differences(accuracies(runs), accuracies(with_norm))))
            change = in_one(*interval(paired_differences(losses(runs), losses(with_norm)), 4))
            differences.append([f"`bn` against peak {settings['lr']:g}", "", gain, change])
    figures = [spread(accuracies(with_norm)), spread(losses(with_norm), 4)]
    rows.append(["with, peak 0.5: `bn`", len(with_norm), *figures])
    return table(["batch norm", "seeds", "accuracy, %", "loss"], [*rows, *differences])


RUNGS = [
    "(b)",
    "and batch norm: `bn_only`",
    "and the best higher rate, constant: 0.3",
    "and one-cycle schedule, its peak 0.5",
    "and affine augmentation",
    "and weight decay 5e-4",
    "and pixels centred and scaled",
    "and digits straightened",
    "and the last, smaller batch left out: `bn`",
]


def ladder():
    """Return the figures from (b) to bn, one change at a time, and what each change brings."""
    if incomplete("ladder"):
        return NOT_YET
    rungs = [runs for _, runs in group("ladder")]
    points = []
    loss = []
    for before, after in itertools.pairwise(rungs):
        points.append(paired_differences(accuracies(before), accuracies(after)))
        loss.append(paired_differences(losses(before), losses(after)))
    points_survive = survive_holm(points)
    loss_survives = survive_holm(loss)
    changes = [["", "", ""]]  # the first rung is no change
    for index in range(len(points)):
        survives = []
        if points_survive[index] == "yes":
            survives.append("accuracy")
        if loss_survives[index] == "yes":
            survives.append("loss")
        gain = in_one(*interval(points[index]))
        change = in_one(*interval(loss[index], 4))
        changes.append([gain, change, " and ".join(survives) or "no"])
    rows = []
    for name, runs, change in zip(RUNGS, rungs, changes, strict=True):
        rows.append([name, spread(accuracies(runs)), spread(losses(runs), 4), *change])
    head = ["", "accuracy, %", "loss", "gain, points", "change of the loss", "by Holm"]
    return table(head, rows)


def factorial():
    """Return the figures of all eight combinations of batch norm, schedule and affine."""
    rows = []
    for settings, runs in group("factorial"):
        used = ["yes" if settings[key] else "no" for key in ("batch_norm", "one_cycle", "affine")]
        figures = [spread(accuracies(runs)), spread(losses(runs), 4)]
        rows.append([*used, setting(settings["lr"]), *figures])
    return table(["batch norm", "one-cycle", "affine", "rate", "accuracy, %", "loss"], rows)


def effects():
    """Return what each of the three brings: alone, on average over the others, on top of both.

    Below: how much more a change brings beside another one than without it (an interaction).
    """
    if incomplete("factorial"):
        return NOT_YET
    changes = ["batch norm", "one-cycle schedule", "affine augmentation"]
    cells = np.array([accuracies(runs) for _, runs in group("factorial")]).reshape(2, 2, 2, -1)
    rows = []
    for axis, change in enumerate(changes):
        gains = cells.take(1, axis) - cells.take(0, axis)  # (2, 2, seeds)
        several = [gains[0, 0], gains.mean((0, 1)), gains[1, 1]]
        rows.append([change, *[in_one(*interval(gain.tolist())) for gain in several]])
    for one, other in itertools.combinations(range(3), 2):
        gains = np.diff(cells, axis=one)
        more = np.diff(gains, axis=other).mean((0, 1, 2))  # over the third change; (seeds,)
        name = f"{changes[one]} × {changes[other]}"
        rows.append([name, "", in_one(*interval(more.tolist())), ""])
    return table(["gain, points", "alone", "on average", "on top of the other two"], rows)


def rates():
    """Return the accuracy after two epochs by learning rate, without and with batch norm."""
    found = {False: {}, True: {}}
    for settings, runs in group("rates"):
        found[settings["batch_norm"]][settings["lr"]] = spread(accuracies(runs))
    rows = [
        ["(b)", *found[False].values()],
        ["`bn_only`", *found[True].values()],
    ]
    return table(["learning rate", *found[True]], rows)


def inside(part):
    """Return the runs of a part of results/inside.json."""
    return json.loads((sweeps.RESULTS / "inside.json").read_text())[part]


def by_kind_and_rate(part):
    """Return the runs of a part as {kind: {rate: [runs]}}."""
    found = {}
    for run in inside(part):
        found.setdefault(run["kind"], {}).setdefault(run["rate"], []).append(run)
    return found


KINDS = {
    "none": "neither: (b)",
    "centred": "centred only",
    "scaled": "scaled only",
    "both": "both: batch norm after the ReLU",
    "before": "both, before the ReLU",
    "pixels": "neither, but pixels centred and scaled",
    "kaiming": "neither, Kaiming initialisation",
}


def apart():
    """Return train loss and held-out accuracy after one epoch, with batch norm taken apart."""
    found = by_kind_and_rate("rates")
    rows = []
    for kind, words in KINDS.items():
        row = [words]
        for runs in found[kind].values():
            row.append(apart_cell([run["epochs"][0] for run in runs]))
        rows.append(row)
    return table(["rate", *found["none"]], rows)


def apart_cell(epochs, key="train_loss", digits=2):
    """Return the median loss and accuracy; a loss that is not finite counts as the worst."""
    losses = [math.inf if e[key] is None else e[key] for e in epochs]
    loss = statistics.median(losses)
    if math.isinf(loss):
        return "not finite"
    accuracy = statistics.median(100 * (e["validation_accuracy"] or 0) for e in epochs)
    return f"{loss:.{digits}f}; {accuracy:.1f}" if loss < 10 else f"over 10; {accuracy:.1f}"


def apart_longer():
    """Return held-out loss and accuracy after several epochs at the rate of (b)."""
    shown = (1, 4, 8, 17)
    rows = []
    for kind, by_rate in by_kind_and_rate("epochs").items():
        (runs,) = by_rate.values()
        row = [KINDS[kind]]
        for number in shown:
            reached = [run["epochs"][number - 1] for run in runs]
            row.append(apart_cell(reached, "validation_loss", 3))
        rows.append(row)
    return table(["epoch", *shown], rows)


def curvature():
    """Return the largest curvature before training and, at each rate, the highest of four looks.

    With it, how far the sharpest direction in linear 1 lies along the mean of that layer's input,
    in the sharpest look at the lowest rate.
    """
    found = by_kind_and_rate("curvature")
    rates = list(found["none"])
    rows = [["2 / rate", "", *[f"{2 / rate:.0f}" for rate in rates[1:]], ""]]
    for kind, by_rate in found.items():
        row = [KINDS[kind]]
        for runs in by_rate.values():
            row.append(curvature_cell(runs))
        shares = []
        for run in by_rate[rates[1]]:
            shares.append(sharpest(run)["layers"]["linear 1"]["mean_share"])
        row.append(f"{100 * statistics.median(shares):.0f}")
        rows.append(row)
    return table(["rate", "before training", *rates[1:], "along the mean, %"], rows)


def sharpest(run):
    """Return the look of a run at which the curvature was the highest."""
    return max(run["points"], key=lambda point: point["curvature"])


def curvature_cell(runs):
    """Return the median of the highest curvatures, to the two digits that the method gives."""
    if statistics.median(run["points"][-1].get("train_loss", 0) for run in runs) > 10:
        return "diverged"
    median = statistics.median(sharpest(run)["curvature"] for run in runs)
    median = float(f"{median:.2g}")
    return f"{median:,.0f}" if median >= 10 else f"{median:.1f}"


def by_recipe(part):
    """Return the runs of a part as {recipe: [runs]}."""
    found = {}
    for run in inside(part):
        found.setdefault(run["recipe"], []).append(run)
    return found


def averages():
    """Return how the held-out loss jumps, by what stands for mean and variance in evaluation."""
    judged = {
        "validation": "running averages",
        "batch": "the batch's own",
        "distorted": "fresh, of distorted images",
        "undistorted": "fresh, of undistorted images",
    }
    rows = []
    for recipe, runs in by_recipe("statistics").items():
        for part, words in judged.items():
            key = f"{part}_loss"
            if key in runs[0]["epochs"][0]:
                last_losses = [run["epochs"][-1][key] for run in runs]
                rows.append([recipe, words, *jumps(runs, key), spread(last_losses, 4)])
    head = ["", "statistics", "jumps of the loss", "highest ratio", "last loss"]
    return table(head, rows)


def silent_by_recipe():
    """Return how many channels are silent at the end, by what else is in the recipe of (d)."""
    rows = []
    for recipe, runs in by_recipe("silent").items():
        row = [recipe, len(runs)]
        for layer in ("conv 1", "linear 1"):
            for count in ("never_fires", "low_variance"):
                row.append(mean_and_most([run[count][layer] for run in runs]))
        rows.append(row)
    head = [
        "",
        "seeds",
        "never fire: conv 1, of 20",
        "variance below 1e-4",
        "never fire: linear 1, of 250",
        "variance below 1e-4",
    ]
    return table(head, rows)


def last_batch():
    """Return batch norm's accuracy before and after the last, smaller batch of the first epoch."""
    found = {}
    for run in inside("rates"):
        (epoch,) = run["epochs"]
        if run["kind"] == "both" and epoch.get("before_last_accuracy"):
            found.setdefault(run["rate"], []).append(epoch)
    rows = []
    for rate, epochs in found.items():
        row = [rate, len(epochs)]
        for key in ("before_last_accuracy", "validation_accuracy"):
            values = [100 * epoch[key] for epoch in epochs]
            row.append(f"{statistics.median(values):.1f} ({min(values):.1f} to {max(values):.1f})")
        rows.append(row)
    return table(["rate", "seeds", "accuracy before that batch, %", "after it, %"], rows)


def benchmark(part):
    """Return a part of results/benchmark.json."""
    return json.loads((sweeps.RESULTS / "benchmark.json").read_text())[part]


def speed():
    """Return the ratios of the benchmark, and time and memory of one epoch of each script.

    Both sides of a ratio were measured under the conditions of their row.
    """
    seconds = {}
    for one in benchmark("epoch_seconds"):
        condition = (one["network"], one["threads"], one["beside_a_busy_process"])
        seconds.setdefault(condition, {})[one["kind"]] = one["seconds"]
    whole = {(run["network"], run["threads"]): run for run in benchmark("one_epoch_run")}
    rows = []
    for (name, threads, busy), kinds in sorted(seconds.items(), key=order_of_conditions):
        row = [TITLES[name], threads, "yes" if busy else "no", f"{kinds['ours']:.1f}"]
        row.append(f"{kinds['ours'] / kinds['tutorial']:.2f}")
        row.append(f"{kinds['ours'] / kinds['ours, default layout']:.2f}")
        if (name, threads) in whole and not busy:
            run = whole[name, threads]
            row += [f"{run['seconds']:.1f}", run["memory_mb"]]
        else:
            row += ["", ""]
        rows.append(row)
    head = [
        "network",
        "threads",
        "beside a busy process",
        "seconds of training per epoch",
        "/ the tutorial's",
        "/ the default layout's",
        "one epoch from the command on, s",
        "peak memory, MB",
    ]
    return table(head, rows)


def full_runs():
    """Return time and memory of both scripts in full, and of the four variants side by side."""
    rows = []
    for run in benchmark("full_run"):
        rows.append([f"`{run['what']}`", f"{run['seconds'] / 60:.1f}", run["memory_mb"]])
    return table(["", "minutes", "peak memory, MB"], rows)


def order_of_conditions(item):
    """Return what the rows of speed are sorted by: network, threads, busy process."""
    (name, threads, busy), _ = item
    return list(TITLES).index(name), threads, busy


def time_to_accuracy():
    """Return how soon short runs of bn and the tutorial's DataLoader pass two accuracies."""
    rows = []
    for one in benchmark("time_to_accuracy"):
        name = f"`{one['what']}`"
        if one["what"] == "tutorial":
            name = "the tutorial's `DataLoader`, `bn_only`"
        runs = one["runs"]
        last_accuracy = [100 * epochs[-1]["test_accuracy"] for epochs in runs]
        row = [name, one["threads"], spread(last_accuracy)]
        for least in (0.99, 0.994):
            reached = []
            for epochs in runs:
                passed = [e["seconds"] for e in epochs if e["test_accuracy"] >= least]
                reached += passed[:1]
            row.append(f"{len(reached)} of {len(runs)}")
            row.append(f"{statistics.median(reached):.0f}" if reached else "")
        rows.append(row)
    head = [
        "",
        "threads",
        "last test accuracy, %",
        "99.0 % passed",
        "after, s",
        "99.4 % passed",
        "after, s",
    ]
    return table(head, rows)


# ---------------------------------------------------------------- the documents
BLOCKS = {
    "results": results,
    "paired": paired,
    "other bn": other_bn,
    "hyperparameters": hyperparameters,
    "epochs q2_mlp": epochs_of_q2,
    "epochs q3": epochs_of_variants,
    "layers": layers,
    "silent": silent,
}
BLOCKS |= {name: partial(sweep, name) for name in sweeps.SWEEPS}
BLOCKS |= {
    "straight": partial(sweep, "straight", with_jumps=True),
    "with all the rest": with_all_the_rest,
    "ladder": ladder,
    "rates": rates,
    "factorial": factorial,
    "effects": effects,
    "apart": apart,
    "apart longer": apart_longer,
    "curvature": curvature,
    "averages": averages,
    "silent by recipe": silent_by_recipe,
    "last batch": last_batch,
    "speed": speed,
    "full runs": full_runs,
    "time to accuracy": time_to_accuracy,
}


def fill(text):
    """Return the text with each <!-- NAME --> block filled from the files."""

    def block(match):
        return f"{match[1]}\n{BLOCKS[match[2]]()}\n{match[3]}"

    names = "|".join(BLOCKS)  # other comments are marks for the PDF
    return re.sub(rf"(<!-- ({names}) -->)\n.*?(<!-- end -->)", block, text, flags=re.DOTALL)


if __name__ == "__main__":
    for document in DOCUMENTS:
        document.write_text(fill(document.read_text()))
