"""Draw the pictures of plots/ anew from the JSON there, for instance after a change of their style.

    python experiments/redraw.py
    python experiments/redraw.py --plots-dir DIR --validate

Draws what there is JSON for, by the scripts' own functions. Only the picture of the wrong digits
needs the trained network: q3_cnn.py draws it after a training of bn.
"""

import argparse
import json
import sys
from pathlib import Path

import matplotlib.style

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for the script
import q3_cnn  # noqa: E402 (what it draws a run with is the same text in q2_mlp.py)

TITLES = {"q2_mlp": "Q2: MLP 784-200-200-10"}
for variant, title in q3_cnn.TITLES.items():
    TITLES[f"q3_cnn_{variant}"] = f"Q3 {title}"


def load_records(args):
    """Return those records by name that are there and have an epoch."""
    records = {}
    for name in TITLES:
        path = q3_cnn.result_path(args, name, ".json")
        if path.exists():
            record = json.loads(path.read_text())
            if record["runs"]:
                records[name] = record
    return records


def draw(args, name, figure):
    """Save a picture and tell where."""
    q3_cnn.save_figure(args, name, figure)
    print(f"wrote {q3_cnn.result_path(args, name, '.png')}")


def draw_all(args):
    """Draw the picture of each run, and those of all variants where these belong together."""
    records = load_records(args)
    for name, record in records.items():
        draw(args, name, q3_cnn.plot_run(TITLES[name], record))
    variants = {}
    for record in records.values():
        if record["variant"] is not None:
            variants[record["variant"]] = record
    if list(variants) != list(q3_cnn.HYPERPARAMETERS):
        return
    # Whole and of the same seeds is what the script asks for too; here, any settings will do.
    args.seeds = variants["base"]["seeds"]
    settings = {variant: record["hyperparameters"] for variant, record in variants.items()}
    if not q3_cnn.load_finished(args, settings):
        return
    draw(args, "q3_cnn_comparison", q3_cnn.plot_comparison(variants))
    draw(args, "q3_cnn_layers", q3_cnn.plot_layers(variants))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plots-dir", type=Path, default=ROOT / "plots")
    parser.add_argument("--validate", action="store_true", help="those on held-out images")
    args = parser.parse_args()
    with matplotlib.style.context("default"):
        draw_all(args)


if __name__ == "__main__":
    main()
