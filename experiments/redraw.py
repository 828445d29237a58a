"""Draw the pictures of plots/ anew from the JSON there, for instance after a change of their style.

    python experiments/redraw.py
    python experiments/redraw.py plots/validation

That of the wrong digits needs the trained network: q3_cnn.py draws it after a training of bn.
"""

import json
import sys
from argparse import Namespace
from pathlib import Path

import matplotlib.style

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # for the two scripts
import q2_mlp  # noqa: E402
import q3_cnn  # noqa: E402

matplotlib.style.use("default")
folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "plots"
for name in ["q2_mlp", *[f"q3_cnn_{variant}" for variant in q3_cnn.TITLES]]:
    path = folder / f"{name}.json"
    if path.exists():
        record = json.loads(path.read_text())
        part = record["split"]
        curves = {"train (running mean)": (record, "train"), part: (record, part)}
        script = q2_mlp if name == "q2_mlp" else q3_cnn
        title = f"{record['title']}\n{script.final_metrics(record)}"
        script.plot(path.with_suffix(".png"), title, curves)
args = Namespace(plots_dir=folder, seeds=record["seeds"])
records = q3_cnn.load_records(args, q3_cnn.HYPERPARAMETERS)
if records:
    curves = {q3_cnn.TITLES[name]: (record, part) for name, record in records.items()}
    title = f"Q3: the four CNNs on the {part} images, seeds: {len(args.seeds)}"
    q3_cnn.plot(folder / "q3_cnn_comparison.png", title, curves, q3_cnn.CLOSE_TICKS)
