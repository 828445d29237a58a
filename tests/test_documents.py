"""The documents' tables come from the recorded results, and what the documents name is there."""

import json
import re

import collect
import pytest
import tables
from conftest import ROOT
from torch import nn

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


def test_every_table_stands_in_one_document_but_that_of_the_results():
    shown = re.findall(r"<!-- ([\w ]+) -->", "".join(DOCUMENTS.values()))
    assert sorted(name for name in shown if name != "end") == sorted([*tables.BLOCKS, "results"])


@pytest.mark.parametrize(
    "text",
    [
        "<!-- no such table -->\n<!-- end -->\n",
        "<!-- results -->\n| 1 |\n",
        "<!-- results -->\n<!-- ladder -->\n<!-- end -->\n",
        "<!-- end -->\n",
    ],
)
def test_a_table_that_is_unknown_or_has_no_end_is_an_error(text):
    with pytest.raises((KeyError, ValueError)):
        tables.fill(text)


@pytest.mark.parametrize("name", SETTINGS)
def test_committed_results_are_of_the_scripts_as_they_are(name):
    record = json.loads((ROOT / "plots" / f"{name}.json").read_text())
    settings = SETTINGS[name]
    assert record["hyperparameters"] == settings
    assert (record["split"], record["seeds"]) == ("test", list(range(10)))
    trained = [(epoch["seed"], epoch["epoch"]) for epoch in record["epochs"]]
    assert trained == [(s, e + 1) for s in range(10) for e in range(settings["epochs"])]
    assert (ROOT / "plots" / f"{name}.png").exists()
    if name == "q2_mlp":
        assert "wrong" not in record
        return
    assert list(record["wrong"]) == [str(seed) for seed in range(10)]
    last = [epoch for epoch in record["epochs"] if epoch["epoch"] == settings["epochs"]]
    right = [10_000 - len(wrong) for wrong in record["wrong"].values()]
    assert right == [round(10_000 * epoch["test_accuracy"]) for epoch in last]


def test_no_search_run_is_there_twice():
    runs = collect.read_runs()
    keys = [
        tuple(value for key, value in run.items() if key not in collect.RESULTS) for run in runs
    ]
    assert len(set(keys)) == len(keys) > 300


def test_network_in_the_report_is_that_of_base():
    code = re.search(r"```python\n(model = .*?)```", DOCUMENTS["report.md"], re.DOTALL)[1]
    names = {"nn": nn}
    exec(code, names)
    off = nn.Identity, nn.Dropout
    stack = q3_cnn.NeuralNetwork(q3_cnn.BASE).stack
    ours = nn.Sequential(*[layer for layer in stack if not isinstance(layer, off)])
    assert str(ours) == str(names["model"])


@pytest.mark.parametrize("name", SETTINGS)
def test_docstrings_open_with_the_committed_accuracy(name):
    script = q2_mlp if name == "q2_mlp" else q3_cnn
    record = json.loads((ROOT / "plots" / f"{name}.json").read_text())
    claim = re.search(r"accuracy (\d+\.\d+ ± \d+\.\d+ %)", script.final_metrics(record))[1]
    line = script.__doc__.splitlines()[0]
    if script is q3_cnn:
        variant = name.removeprefix("q3_cnn_")
        (line,) = re.findall(rf"--variant {variant} .*", script.__doc__)
    assert claim in line
    conditions = " ".join(script.__doc__.split())
    assert f"last of {SETTINGS[name]['epochs']} epochs" in conditions
    assert "standard deviation of 10 seeds" in conditions
