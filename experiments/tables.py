"""Fill the tables of README.md, report.md and experiments/README.md from the recorded results.

    python experiments/tables.py

A table stands between <!-- NAME --> and <!-- end -->; what is written there by hand is replaced.
"""

import itertools
import json
import re
import statistics
from functools import partial

import numpy as np
import scipy.stats
from collect import ROOT, jumps, read_runs

DOCUMENTS = [ROOT / name for name in ("README.md", "report.md", "experiments/README.md")]
RESULTS = "experiments/results"
NETWORKS = {
    "q2_mlp": "Q2: MLP",
    "q3_cnn_base": "Q3 (b): CNN",
    "q3_cnn_reg": "Q3 (c): weight decay and dropout",
    "q3_cnn_bn_only": "Q3 (d): batch norm alone",
    "q3_cnn_bn": "Q3 (d): batch norm and tweaks",
}
VARIANTS = ["base", "reg", "bn_only", "bn"]
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
    "average_shifts": "logits averaged over shifts",
}


# ---------------------------------------------------------------- how figures are written
def table(head, rows):
    """Return a Markdown table; columns after the first are aligned to the right."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def spread(values, digits=2):
    """Return "mean ± sample standard deviation"."""
    deviation = f" ± {np.std(values, ddof=1):.{digits}f}" if len(values) > 1 else ""
    return f"{np.mean(values):.{digits}f}{deviation}"  # rounded as the scripts do in their plots


def signed(value, digits=2):
    """Return a difference with its sign; the minus of print is as wide as a plus."""
    value = round(value, digits) + 0.0  # makes 0.00 of -0.00
    return f"{value:+.{digits}f}".replace("-", "−")


def gain(differences, digits=2):
    """Return the mean of differences and Student's 95 % interval for it, which needs two."""
    text = signed(np.mean(differences), digits)
    if len(differences) > 1:
        low, high = scipy.stats.ttest_1samp(differences, 0).confidence_interval()
        text += f" ({signed(low, digits)} to {signed(high, digits)})"
    return text


def setting(value):
    """Return a hyperparameter: yes or no, 0.001, 1e-4; text as it is."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, str):
        return value
    if 0 < value < 1e-3:
        return np.format_float_scientific(value, trim="-", exp_digits=1)
    return f"{value:g}"


# ---------------------------------------------------------------- the test set
def load(name, folder="plots"):
    """Return the record of a network; or, of another folder, any recorded results."""
    return json.loads((ROOT / folder / f"{name}.json").read_text())


def metric(name, key):
    """Return a metric as an array (seeds, epochs)."""
    record = load(name)
    shape = len(record["seeds"]), record["hyperparameters"]["epochs"]
    return np.reshape([epoch[key] for epoch in record["epochs"]], shape)


def hyperparameters():
    """Return the settings of every network, as its JSON has them."""
    records = [load(name)["hyperparameters"] for name in NETWORKS]
    rows = []
    for key in records[-1]:
        values = [setting(row[key]) if key in row else "–" for row in records]
        rows.append([f"{WORDS[key]} (`{key}`)", *values])
    return table(["", "Q2", "(b) `base`", "(c) `reg`", "(d) `bn_only`", "(d) `bn`"], rows)


def last(name, key):
    """Return a metric after the last epoch of each seed."""
    return metric(name, key)[:, -1]


def results():
    """Return the figures of the last epoch."""
    rows = []
    for name, title in NETWORKS.items():
        accuracy = 100 * last(name, "test_accuracy")
        row = [title, f"{load(name)['parameters']:,}", spread(accuracy)]
        row += [f"{min(accuracy):.2f} to {max(accuracy):.2f}", spread(last(name, "test_loss"), 4)]
        row.append(f"{100 * np.mean(last(name, 'train_accuracy')):.2f}")
        rows.append([*row, f"{np.mean(last(name, 'train_loss')):.4f}"])
    head = ["network", "parameters", "test accuracy, %", "range", "test loss"]
    return table([*head, "train accuracy, %", "train loss"], rows)


def epochs(*names, lying=False):
    """Return medians per epoch, as plotted, and the last mean; lying: a column per epoch."""
    columns = []
    for name in names:
        variant = f"`{name.removeprefix('q3_cnn_')}`: " if len(names) > 1 else ""
        for key in ("train_loss", "train_accuracy", "test_loss", "test_accuracy"):
            values = metric(name, key)
            unit, scale, digits = (", %", 100, 2) if key.endswith("accuracy") else ("", 1, 4)
            figures = [*np.median(values, axis=0), np.mean(values[:, -1])]
            texts = [f"{scale * figure:.{digits}f}" for figure in figures]
            columns.append([f"{variant}{key.replace('_', ' ')}{unit}", *texts])
            variant = ""  # said once, over the first of its four columns
    columns.insert(0, ["epoch", *range(1, len(columns[0]) - 1), "mean"])
    rows = columns if lying else list(zip(*columns, strict=True))
    return table(rows[0], rows[1:])


def paired():
    """Return the differences between variants in points, paired by seed and by image."""
    rows = []
    for pair in itertools.combinations(VARIANTS, 2):
        before, after = [f"q3_cnn_{variant}" for variant in pair]
        points = 100 * (last(after, "test_accuracy") - last(before, "test_accuracy"))
        images = errors(before) - errors(after)
        loss = last(after, "test_loss") - last(before, "test_loss")
        rows.append([f"`{pair[0]}` → `{pair[1]}`", gain(points), gain(images), gain(loss, 4)])
    return table(["", "points, over seeds", "over images", "loss, over seeds"], rows)


def errors(name):
    """Return for each test image the share of the seeds, in %, that have it wrong."""
    wrong = list(load(name)["wrong"].values())
    counts = np.bincount(np.concatenate(wrong).astype(int), minlength=10_000)
    return 100 * counts / len(wrong)


# ---------------------------------------------------------------- held-out images
SETTINGS = [*WORDS, "also", "loader"]  # what tells the runs of a script apart, but for the seed


def runs(**wanted):
    """Return the rows of runs.csv that have these values."""
    return [run for run in read_runs() if wanted.items() <= run.items()]


# The number of epochs of the runs that a table shows; others are told in words.
EPOCHS = {"q2": 16, "regularisation": 17, "tweaks": 17}


def question(run):
    """Return which table a run belongs to."""
    if run["script"] == "q2_mlp.py":
        return "q2"
    changed = ("batch_norm", "one_cycle", "affine", "deskew", "normalize", "drop_last")
    return "tweaks" if any(run[key] for key in changed) else "regularisation"


def search(name):
    """Return the figures of a question by settings, where there are three seeds or more."""
    groups = {}
    for run in runs(epochs=EPOCHS[name]):
        if question(run) == name:
            groups.setdefault(tuple(run[key] for key in SETTINGS), []).append(run)
    groups = {key: several for key, several in groups.items() if len(several) > 2}
    varied = [i for i, values in enumerate(zip(*groups, strict=True)) if len(set(values)) > 1]
    rows = []
    for values in sorted(groups, key=lambda values: values[::-1]):  # what came last, last
        several = groups[values]
        ended = [run for run in several if run["loss"] is not None]
        seeds = len(ended) if ended == several else f"{len(ended)} of {len(several)}"
        late = f"{100 * statistics.mean(run['last3'] for run in ended):.2f}"
        accuracy, loss = figures(ended)
        rows.append([*[setting(values[i]) for i in varied], seeds, accuracy, late, loss])
    head = [f"`{SETTINGS[i]}`" for i in varied]
    return table([*head, "seeds", "accuracy, %", "last 3 epochs, %", "loss"], rows)


def figures(several):
    """Return accuracy and loss of several runs at their last epoch."""
    accuracy = spread([100 * run["accuracy"] for run in several])
    return [accuracy, spread([run["loss"] for run in several], 4)]


# Each row has the changes of all rows before it, too; after the last it is bn.
RUNGS = {
    "(b)": {"loader": "before"},
    "and batch norm: `bn_only`": {"batch_norm": True},
    "and one-cycle schedule, its peak 0.5": {"one_cycle": True, "lr": 0.5},
    "and affine augmentation": {"affine": 0.1},
    "and weight decay 5e-4": {"weight_decay": 5e-4},
    "and pixels centred and scaled, the last batch left out": {
        "normalize": True,
        "drop_last": True,
        "loader": "now",
    },
    "and digits straightened": {"deskew": True},
    "and logits averaged over shifts: `bn`": {"average_shifts": True},
}
# Each by itself held against the last rung. A change that was not taken moves here.
BESIDE = {"`bn` without batch norm, its peak 0.2": {"batch_norm": False, "lr": 0.2}}


def ladder():
    """Return the way from (b) to bn, one change at a time; only what is recorded has a row."""
    settings = {"script": "q3_cnn.py", "also": ""} | load("q3_cnn_base")["hyperparameters"]
    rows = []
    reached = []
    for words, change in (RUNGS | BESIDE).items():
        found = runs(**settings | change)
        if found:
            rows.append([words, *figures(found), *changes(reached, found)])
        if words in RUNGS:
            settings |= change
            reached = found or reached
    return table(["", "accuracy, %", "loss", "gain, points", "change of the loss"], rows)


def changes(before, after):
    """Return what runs gain on others in accuracy, in points, and in loss, seed by seed."""
    pairs = [(one, other) for one in before for other in after if one["seed"] == other["seed"]]
    if not pairs:
        return ["", ""]
    points = [100 * (other["accuracy"] - one["accuracy"]) for one, other in pairs]
    return [gain(points), gain([other["loss"] - one["loss"] for one, other in pairs], 4)]


# ---------------------------------------------------------------- inside the networks
KINDS = {
    "none": "neither: (b)",
    "centred": "centred only",
    "scaled": "scaled only",
    "both": "both: batch norm after the ReLU",
    "before": "both, before the ReLU",
    "pixels": "neither, but pixels centred and scaled",
    "kaiming": "neither, Kaiming initialisation",
}


def layers():
    """Return mean and deviation of what three layers receive, means over the seeds."""
    rows = []
    for layer in ("conv 2", "linear 1", "linear 2"):
        for when, words in ("start", "before"), ("end", "after"):
            row = [f"{layer}, {words} training"]
            for variant in ("base", "bn_only"):
                inputs = [run[when][layer] for run in load("layers", RESULTS)[variant]]
                mean = statistics.mean(one["mean"] for one in inputs)
                deviation = statistics.mean(one["standard_deviation"] for one in inputs)
                row += [signed(mean, 3).lstrip("+"), f"{deviation:.3f}"]
            rows.append(row)
    return table(["", "`base`: mean", "deviation", "`bn_only`: mean", "deviation"], rows)


def apart(kinds, rates):
    """Return train loss and held-out accuracy after one epoch, medians of the seeds."""
    rows = []
    for kind in kinds:
        row = [KINDS[kind]]
        for rate in rates:
            several = of_kind("apart", kind, rate)
            # A loss that is not finite counts as the worst.
            loss = statistics.median(run["train_loss"] or np.inf for run in several)
            accuracy = statistics.median(100 * (run["validation_accuracy"] or 0) for run in several)
            text = f"{loss:.2f}" if loss < 10 else "over 10"
            row.append("not finite" if np.isinf(loss) else f"{text}; {accuracy:.1f}")
        rows.append(row)
    return table(["rate", *rates], rows)


def of_kind(part, kind, rate):
    """Return the runs of a part of inside.json with this kind of network and this rate."""
    return [
        run for run in load("inside", RESULTS)[part] if (run["kind"], run["rate"]) == (kind, rate)
    ]


def curvature():
    """Return the highest curvature of the loss, and how far its direction is along the mean."""
    rates = [0.1, 0.2, 0.5, 1.0]
    rows = [["2 / rate", "", *[f"{2 / rate:.0f}" for rate in rates], ""]]
    for kind in ("none", "centred", "scaled", "both"):
        row = [KINDS[kind]]
        for rate in [0, *rates]:
            several = of_kind("curvature", kind, rate)
            highest = float(f"{statistics.median(run['curvature'] for run in several):.2g}")
            diverged = statistics.median(run.get("train_loss", 0) for run in several) > 10
            text = f"{highest:,.0f}" if highest >= 10 else f"{highest:.1f}"
            row.append("diverged" if diverged else text)
        shares = [run["mean_share"] for run in of_kind("curvature", kind, rates[0])]
        rows.append([*row, f"{100 * statistics.median(shares):.0f}"])
    return table(["rate", "before training", *rates, "along the mean, %"], rows)


def silent():
    """Return how many channels of each ReLU never fire: on average, and at most."""
    rows = []
    for variant in VARIANTS:
        row = [f"`{variant}`"]
        for layer in ("conv 1", "conv 2", "linear 1"):
            channels = [run["never_fires"][layer] for run in load("layers", RESULTS)[variant]]
            row.append(f"{statistics.mean(channels):.1f} (at most {max(channels)})")
        rows.append(row)
    return table(["", "conv 1, of 20", "conv 2, of 20", "linear 1, of 250"], rows)


def jump_cells(several):
    """Return how many epochs after the fourth are jumps, and the highest ratio."""
    jumped = sum(run["jumps"] for run in several)
    epochs = sum(run["epochs"] - 4 for run in several)
    return [f"{jumped} of {epochs}", f"{max(run['highest_ratio'] for run in several):.1f}"]


def all_jumps():
    """Return how often the loss jumps: on the test set, and on held-out images."""
    found = {f"`{v}`": [jumps(run) for run in metric(f"q3_cnn_{v}", "test_loss")] for v in VARIANTS}
    bn = {"lr": 0.5, "batch_norm": True, "affine": 0.1, "deskew": True, "normalize": True}
    for words, drop_last in ("with", False), ("without", True):
        several = runs(**bn, drop_last=drop_last, loader="before")
        found[f"held out: `bn` {words} the last batch, either `eps`"] = several
    for averages in ("running", "fresh"):
        several = [jumps(run[averages]) for run in load("inside", RESULTS)["statistics"]]
        found[f"held out: `bn_only`, {averages} averages"] = several
    rows = [[name, *jump_cells(several)] for name, several in found.items()]
    return table(["", "jumps", "highest ratio"], rows)


def earlier():
    """Return the test-set figures of orders of images and recipes of before, held against bn's."""
    records = load("earlier", RESULTS)
    bn = records["q3_cnn_bn"]["runs"]
    rows = []
    for record in records.values():
        several = record["runs"]
        against = changes(bn, several) if several != bn else ["", ""]
        rows.append([record["title"], *figures(several), *against, *jump_cells(several)])
    head = ["", "accuracy, %", "loss", "against `bn`, points", "loss", "jumps", "highest ratio"]
    return table(head, rows)


# ---------------------------------------------------------------- the documents
BLOCKS = {
    "results": results,
    "hyperparameters": hyperparameters,
    "epochs q2_mlp": partial(epochs, "q2_mlp", lying=True),
    "epochs base reg": partial(epochs, "q3_cnn_base", "q3_cnn_reg"),
    "epochs bn_only bn": partial(epochs, "q3_cnn_bn_only", "q3_cnn_bn"),
    "layers": layers,
    "apart": partial(apart, list(KINDS)[:4], [0.2, 0.5, 1.0, 2.0]),
    "apart all": partial(apart, KINDS, [0.2, 0.5, 1.0, 2.0, 3.0]),
    "ladder": ladder,
    "paired": paired,
    "curvature": curvature,
    "silent": silent,
    "jumps": all_jumps,
    "earlier": earlier,
}
for name in EPOCHS:
    BLOCKS[name] = partial(search, name)


def fill(text):
    """Return the text with each block filled; raise an error at a block that can't be."""

    def block(match):
        return f"<!-- {match[1]} -->\n{BLOCKS[match[1]]()}\n<!-- end -->"

    pattern = r"<!-- ([^\n]+) -->\n(?:(?!<!--).)*<!-- end -->"
    filled, blocks = re.subn(pattern, block, text, flags=re.DOTALL)
    if text.count("<!--") != 2 * blocks:
        raise ValueError("a table has no <!-- end -->, or an end has no table")
    return filled


if __name__ == "__main__":
    for document in DOCUMENTS:
        document.write_text(fill(document.read_text()))
