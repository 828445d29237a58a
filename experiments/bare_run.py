"""How long question 3 takes a grader: a bare run of q3_cnn.py, with as many threads as torch takes.

    python experiments/bare_run.py --data-dir DIR

Writes bare_run.json beside this file; about 10 minutes on two shared cores.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmark import ROOT, cpu_model


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data-dir", type=Path, default=ROOT / "data")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, ROOT / "q3_cnn.py", "--data-dir", args.data_dir]
        start = time.perf_counter()
        subprocess.run([*command, "--plots-dir", folder], check=True)
        result = {"cpu": cpu_model(), "whole_minutes": (time.perf_counter() - start) / 60}
        for path in sorted(Path(folder).glob("*.json")):
            record = json.loads(path.read_text())
            seconds = [epoch["seconds"] for epoch in record["runs"][0]["epochs"]]
            result["environment"] = record["environment"]
            result[path.stem] = {"epochs": len(seconds), "minutes": sum(seconds) / 60}
    Path(__file__).with_suffix(".json").write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
