"""The documents' tables and figures are those of the JSON files, and what they name is there."""

import json
import re
import sys

import pytest
from conftest import ROOT
from torch import nn

sys.path.insert(0, str(ROOT / "experiments"))

import sweeps
import tables

import q2_mlp
import q3_cnn

DOCUMENTS = {path.relative_to(ROOT).as_posix(): path.read_text() for path in tables.DOCUMENTS}
EACH = pytest.mark.parametrize("name", DOCUMENTS)
SETTINGS = {"q2_mlp": q2_mlp.HYPERPARAMETERS} | {
    f"q3_cnn_{variant}": row for variant, row in q3_cnn.HYPERPARAMETERS.items()
}


@EACH
def test_tables_come_from_the_files(name):
    assert tables.fill(DOCUMENTS[name]) == DOCUMENTS[name]


@EACH
def test_every_table_with_figures_is_made_by_the_program(name):
    rest = re.sub(r"<!-- [\w ]+ -->\n.*?<!-- end -->", "", DOCUMENTS[name], flags=re.DOTALL)
    assert not re.search(r"^\|.*\d\.\d.*\|$", rest, re.MULTILINE)


@EACH
def test_prose_names_no_figure_that_no_table_has(name):
    prose = re.sub(
        r"<!-- [\w ]+ -->\n.*?<!-- end -->|```.*?```|## Versions.*",
        "",
        DOCUMENTS[name],
        flags=re.DOTALL,
    )
    tabled = "\n".join(re.findall(r"^\|.*\|$", "\n".join(DOCUMENTS.values()), re.MULTILINE))
    figures = set(re.findall(r"(?<![\w.])[+-]?\d+\.\d+(?![\w.])", prose))
    known = set(re.findall(r"\d+\.\d+", tabled))
    for pairs in r"\d+\.\d+ ± \d+\.\d+", r"[+−]\d+\.\d+\s+to\s+[+−]\d+\.\d+":
        assert set(re.findall(pairs, " ".join(prose.split()))) <= set(re.findall(pairs, tabled))
    assert {figure.lstrip("+-") for figure in figures} <= known | {"3.10"}  # Python's version


@pytest.mark.parametrize("name", SETTINGS)
def test_committed_results_are_of_the_scripts_as_they_are(name):
    record = json.loads((ROOT / "plots" / f"{name}.json").read_text())
    assert record["hyperparameters"] == SETTINGS[name]
    assert (record["split"], record["interrupted"]) == ("test", False)
    assert [run["seed"] for run in record["runs"]] == list(range(10))
    assert all(len(run["epochs"]) == SETTINGS[name]["epochs"] for run in record["runs"])
    assert (ROOT / "plots" / f"{name}.png").exists()


def test_every_recorded_search_run_belongs_to_a_sweep_and_none_is_missing_or_twice():
    runs = [(name, run) for name in sweeps.SCRIPTS for run in sweeps.load(name)]
    recorded = [sweeps.key(name, run["settings"], run["seed"]) for name, run in runs]
    jobs = {sweeps.key(*job) for sweep in sweeps.SWEEPS for job in sweeps.jobs(sweep)}
    assert sorted(recorded) == sorted(jobs)


def test_network_in_the_report_is_that_of_base():
    code = re.search(r"```python\n(model = .*?)```", DOCUMENTS["report.md"], re.DOTALL)[1]
    names = {"nn": nn}
    exec(code, names)
    off = nn.Identity, nn.Dropout
    stack = [layer for layer in q3_cnn.NeuralNetwork().stack if not isinstance(layer, off)]
    ours, shown = str(nn.Sequential(*stack)), str(names["model"])
    assert ours.replace("inplace=True", "") == shown.replace("inplace=True", "")


@pytest.mark.parametrize("name", SETTINGS)
def test_docstrings_open_with_the_committed_accuracy(name):
    script = q2_mlp if name == "q2_mlp" else q3_cnn
    record = json.loads((ROOT / "plots" / f"{name}.json").read_text())
    claim = re.search(r"accuracy (.* %), 10 seeds", script.final_metrics(record))[1]
    if script is q2_mlp:
        assert claim in script.__doc__.splitlines()[0]
    else:
        variant = name.removeprefix("q3_cnn_")
        (line,) = re.findall(rf"--variant {variant} .*", script.__doc__)
        assert line.endswith(claim)
    assert len(re.findall(r"\d+\.\d+", script.__doc__)) == (2 if script is q2_mlp else 8)
    conditions = " ".join(script.__doc__.split())
    assert f"last of {SETTINGS[name]['epochs']} epochs" in conditions
    assert f"standard deviation of {len(record['seeds'])} seeds" in conditions
