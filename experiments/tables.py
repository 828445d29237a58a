"""Write the README's tables from the JSON files of plots/ and experiments/.

    python experiments/tables.py

Replaces what stands between <!-- NAME --> and <!-- end --> in the README; a test compares them.
"""

import itertools
import json
import re
import statistics
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
STUDENT = 2.776  # 97.5 % quantile of Student's t with 4 degrees of freedom: five seeds
LONG = "plots/long"  # question 3 with --epochs 40
NAMES = {
    "q2_mlp": "Q2: MLP",
    "q3_cnn_base": "Q3 (b): CNN",
    "q3_cnn_reg": "Q3 (c): with decay and dropout",
    "q3_cnn_bn": "Q3 (d): with batch norm",
}


def load(folder, name):
    """Return the content of a JSON file."""
    return json.loads((ROOT / folder / f"{name}.json").read_text())


def table(head, *rows):
    """Return a Markdown table; columns after the first are aligned to the right."""
    lines = [head, ["---"] + ["---:"] * (len(head) - 1), *rows]
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines)


def final(record, key):
    """Return `key` at the last epoch of each run."""
    return [run["epochs"][-1][key] for run in record["runs"]]


def mean_and_deviation(values, digits=2, sign=""):
    """Return "mean ± sample standard deviation", of a single value the value."""
    if None in values:
        return "diverged"
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):{sign}.{digits}f}{spread}"


def results(folder="plots", names=NAMES):
    """Return the table of the final figures on the test set."""
    rows = []
    for name in names:
        record = load(folder, name)
        accuracy = [100 * value for value in final(record, "test_accuracy")]
        wrong = [round(10_000 * (1 - value)) for value in final(record, "test_accuracy")]
        rows.append(
            [
                NAMES[name],
                f"{record['parameters']:,}",
                mean_and_deviation(accuracy),
                f"{min(accuracy):.2f} to {max(accuracy):.2f}",
                f"{statistics.mean(wrong):.1f}",
                mean_and_deviation(final(record, "test_loss"), 4),
            ]
        )
    head = [
        "network",
        "parameters",
        "test accuracy, %",
        "range",
        "mean wrong of 10,000",
        "test loss",
    ]
    return table(head, *rows)


def paired(folder="plots"):
    """Return the table of the differences between variants, seed by seed, in points."""
    rows = []
    for names in ("base", "reg"), ("reg", "bn"), ("base", "bn"):
        pair = [final(load(folder, f"q3_cnn_{name}"), "test_accuracy") for name in names]
        differences = [100 * (after - before) for before, after in zip(*pair, strict=True)]
        error = statistics.stdev(differences) / len(differences) ** 0.5
        each = ", ".join(f"{difference:+.2f}" for difference in differences)
        mean = mean_and_deviation(differences, sign="+")
        ends = [statistics.mean(differences) + factor * error for factor in (-STUDENT, STUDENT)]
        interval = "{:+.2f} to {:+.2f}".format(*ends)
        rows.append([" → ".join(names), each, mean, f"{error:.3f}", interval])
    head = ["", "seeds 0 to 4", "mean ± s.d.", "standard error of the mean", "95 % interval"]
    return table(head, *rows)


def times():
    """Return the table of the seconds that training took."""
    rows = []
    for name, title in NAMES.items():
        record = load("plots", name)
        seconds = [[epoch["seconds"] for epoch in run["epochs"]] for run in record["runs"]]
        rows.append(
            [
                title,
                record["hyperparameters"]["epochs"],
                f"{statistics.median(itertools.chain(*seconds)):.1f}",
                f"{statistics.mean(map(sum, seconds)) / 60:.1f}",
                record["environment"]["threads"],
            ]
        )
    head = ["network", "epochs", "seconds per epoch (median)", "minutes per seed", "threads"]
    return table(head, *rows)


def bare_run():
    """Return the table of the minutes that a bare run of question 3 takes."""
    run = load("experiments", "bare_run")
    where = f"{run['cpu']}, {run['environment']['threads']} threads"
    variants = [name for name in NAMES if name in run]
    head = [where, *(f"{NAMES[name]}, {run[name]['epochs']} epochs" for name in variants)]
    minutes = [run[name]["minutes"] for name in variants] + [run["whole_minutes"]]
    return table([*head, "whole run"], ["minutes", *(f"{value:.1f}" for value in minutes)])


def epochs(name, step=1):
    """Return the figures per epoch of a record, means over the seeds."""
    record = load("plots", name)
    rows = []
    for column in zip(*(run["epochs"] for run in record["runs"]), strict=True):
        number = column[0]["epoch"]
        if number % step == 0 or number in (1, 2, len(record["runs"][0]["epochs"])):
            mean = {key: statistics.mean(epoch[key] for epoch in column) for key in column[0]}
            rows.append(
                [
                    number,
                    f"{mean['train_loss']:.4f}",
                    f"{100 * mean['train_accuracy']:.2f}",
                    f"{mean['test_loss']:.4f}",
                    f"{100 * mean['test_accuracy']:.2f}",
                ]
            )
    head = ["epoch", "train loss", "train accuracy, %", "test loss", "test accuracy, %"]
    return table(head, *rows)


def hyperparameters():
    """Return the settings of every network, as its JSON has them."""
    records = [load("plots", name)["hyperparameters"] for name in NAMES]
    keys = list(dict.fromkeys(key for record in records for key in record))
    rows = [[f"`{key}`", *(record.get(key, "–") for record in records)] for key in keys]
    return table(["", "Q2", "Q3 (b)", "Q3 (c)", "Q3 (d)"], *rows)


def percent(result, epoch=-1):
    """Return the validation accuracy after an epoch in %."""
    return f"{100 * result['epochs'][epoch][3]:.2f}"


def by_length(name, lengths):
    """Return the validation accuracies of a search after several numbers of epochs.

    The rate is constant, so that a shorter run is the beginning of a longer one.
    """
    rows = []
    for result in load("experiments", name):
        settings = result["settings"]
        reached = [percent(result, n - 1) if n <= settings["epochs"] else "" for n in lengths]
        rows.append([settings["batch_size"], settings["lr"], result["seed"], *reached])
    return table(["batch size", "learning rate", "seed", *(f"{n} epochs" for n in lengths)], *rows)


def search_q3_reg():
    """Return the validation figures of weight decay and dropout; those of (b) come first."""
    searched = load("experiments", "search_q3_reg")
    chosen, groups = searched[0]["settings"], {}
    for result in load("experiments", "search_q3_base") + searched:
        settings = result["settings"]
        if settings["lr"] == chosen["lr"]:
            places = [0, settings.get("dropout"), settings.get("dropout")]
            places = settings.get("tweak", [None, *places])[1:]
            last = result["epochs"][chosen["epochs"] - 1]  # the rate is constant: a shorter run
            groups.setdefault((settings["weight_decay"], *places), {})[result["seed"]] = last
    rows = []
    for setting, group in groups.items():
        accuracy = mean_and_deviation([100 * epoch[3] for epoch in group.values()])
        loss = statistics.mean(epoch[2] for epoch in group.values())
        rows.append([*setting, ", ".join(map(str, group)), accuracy, f"{loss:.4f}"])
    head = ["weight decay", "dropout before conv 2", "before linear 1", "before linear 2"]
    return table([*head, "seeds", "validation accuracy, %", "validation loss"], *rows)


def search_q3_longer():
    """Return the validation accuracies of longer training with dropout."""
    rows = []
    for result in load("experiments", "search_q3_longer"):
        settings = result["settings"]
        places = ", ".join(map(str, settings["tweak"][1:]))
        accuracy = [100 * epoch[3] for epoch in result["epochs"]]
        figures = [accuracy[17], accuracy[-1], statistics.mean(accuracy[-5:])]
        row = [settings["batch_size"], settings["lr"], places, settings["epochs"]]
        rows.append([*row, *(f"{figure:.2f}" for figure in figures)])
    head = ["batch size", "learning rate", "dropout before conv 2, linear 1, linear 2", "epochs"]
    return table([*head, "after 18 epochs, %", "at the end, %", "mean of the last 5, %"], *rows)


def search_q3_bn():
    """Return the mean validation figures of each setting, named by what it changes in the first."""
    results = load("experiments", "search_q3_bn")
    start, groups = results[0]["settings"], {}
    for result in results:
        change = {k: v for k, v in result["settings"].items() if start.get(k) != v}
        groups.setdefault(json.dumps(change), []).append(result)
    rows = []
    for change, group in groups.items():
        accuracy = [100 * result["epochs"][-1][3] for result in group]
        loss = mean_and_deviation([result["epochs"][-1][2] for result in group], 4)
        changed = json.loads(change)
        changed |= dict([changed.pop("tweak")]) if "tweak" in changed else {}
        words = ", ".join(f"`{key}` {value}" for key, value in changed.items())
        rows.append([words or "the recipe", len(group), mean_and_deviation(accuracy), loss])
    return table(["changed", "seeds", "validation accuracy, %", "validation loss"], *rows)


def ablation():
    """Return the validation accuracy of the recipe with each tweak taken out, by length."""
    results = load("experiments", "ablation_q3_bn")
    recipe, groups = results[0]["settings"], {}
    for result in results:
        settings = result["settings"]
        out = [key for key in recipe if key != "epochs" and settings[key] != recipe[key]]
        name = f"without `{out[0]}`" if out else "the recipe"
        group = groups.setdefault(name, {})
        group.setdefault(settings["epochs"], []).append(100 * result["epochs"][-1][3])
    lengths = sorted(groups["the recipe"])
    rows = [
        [name, *(mean_and_deviation(group[n]) if n in group else "" for n in lengths)]
        for name, group in groups.items()
    ]
    return table(["validation accuracy, %", *(f"{n} epochs" for n in lengths)], *rows)


def batch_norm_alone():
    """Return the table of (b) without and with batch norm, after the same epochs."""
    alone = load("experiments", "batch_norm_alone")
    chosen, rows = alone[0]["settings"], []
    for name, results in (
        ("(b)", load("experiments", "search_q3_base")),
        ("(b) with batch norm", alone),
    ):
        runs = [result for result in results if result["settings"]["lr"] == chosen["lr"]]
        # The rate is constant: a shorter run is the beginning of a longer one.
        values = [100 * run["epochs"][chosen["epochs"] - 1][3] for run in runs]
        rows.append([name, *(f"{value:.2f}" for value in values), mean_and_deviation(values)])
    seeds = [f"seed {run['seed']}" for run in alone]
    return table(["validation accuracy, %", *seeds, "mean ± s.d."], *rows)


def learning_rates():
    """Return validation accuracy by learning rate, of (b), (b) with batch norm, and (d)."""
    found = {"(b)": {}, "(b) with batch norm": {}, "(d), the peak of its schedule": {}}
    names = list(found)
    for result in load("experiments", "learning_rates_q3"):
        settings = result["settings"]
        name = names[settings["batch_norm"] + settings.get("one_cycle", False)]
        found[name][settings["lr"]] = percent(result)
    rates = sorted(found[names[-1]])
    rows = [[name, *(row.get(rate, "") for rate in rates)] for name, row in found.items()]
    return table(["learning rate", *rates], *rows)


def speed():
    """Return the ratios of the benchmark, a column per network."""
    measured = load("experiments", "benchmark")
    where = f"{measured['environment']['cpu']}, {measured['environment']['threads']} threads"
    ratios = measured["ratios"]
    names = list(dict.fromkeys(name for row in ratios.values() for name in row))
    rows = [[name, *(ratios[case].get(name, "") for case in NAMES)] for name in names]
    head = f"ratio of times ({where})"
    return table([head, "Q2", "Q3 (b)", "Q3 (c)", "Q3 (d)"], *rows)


def memory():
    """Return the memory and start-up time of whole runs, beyond those of the imports."""
    runs = load("experiments", "benchmark")["whole_runs"]
    rows = [
        [
            title,
            runs[name]["peak_mb_above_imports"],
            runs[name]["seconds_to_first_step_beyond_imports"],
        ]
        for name, title in NAMES.items()
    ]
    return table(["network", "peak memory, MB", "seconds to the first step"], *rows)


def architecture():
    """Return the code of the CNN as it stands in the script."""
    code = (ROOT / "q3_cnn.py").read_text()
    return (
        "```python\n"
        + re.search(r"class NeuralNetwork.*?\n\n\n", code, re.DOTALL)[0].strip()
        + "\n```"
    )


BLOCKS = {
    "results": results,
    "paired": paired,
    "results long": lambda: results(LONG, list(NAMES)[1:]),
    "paired long": lambda: paired(LONG),
    "times": times,
    "bare run": bare_run,
    "hyperparameters": hyperparameters,
    "epochs q2": lambda: epochs("q2_mlp"),
    "epochs base": lambda: epochs("q3_cnn_base", 5),
    "epochs reg": lambda: epochs("q3_cnn_reg", 5),
    "epochs bn": lambda: epochs("q3_cnn_bn", 5),
    "search q2": lambda: by_length("search_q2", [5, 10, 15, 18, 20, 25, 30]),
    "search base": lambda: by_length("search_q3_base", [5, 10, 13, 14, 15, 18, 20]),
    "search reg": search_q3_reg,
    "search longer": search_q3_longer,
    "search bn": search_q3_bn,
    "ablation": ablation,
    "batch norm alone": batch_norm_alone,
    "learning rates": learning_rates,
    "architecture": architecture,
    "speed": speed,
    "memory": memory,
}


def fill(text):
    """Return the text with each <!-- NAME --> block filled from the files."""

    def block(match):
        return f"{match[1]}\n{BLOCKS[match[2]]()}\n{match[3]}"

    return re.sub(r"(<!-- ((?!end)[\w ]+) -->)\n.*?(<!-- end -->)", block, text, flags=re.DOTALL)


if __name__ == "__main__":
    readme = ROOT / "README.md"
    readme.write_text(fill(readme.read_text()))
