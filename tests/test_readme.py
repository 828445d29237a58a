"""The README's tables are those that the JSON files give, and what it names is there."""

import json
import re
import sys

import pytest
from conftest import ROOT

sys.path.insert(0, str(ROOT / "experiments"))

import tables

README = (ROOT / "README.md").read_text()
PLOTS = ["q2_mlp", "q3_cnn_base", "q3_cnn_reg", "q3_cnn_bn"]


def test_tables_and_code_snippet_come_from_the_files():
    assert tables.fill(README) == README


def test_every_table_of_the_program_is_in_the_readme():
    assert sorted(re.findall(r"<!-- ((?!end)[\w ]+) -->", README)) == sorted(tables.BLOCKS)
    assert README.count("<!-- end -->") == len(tables.BLOCKS)


def test_a_changed_number_is_noticed():
    number = re.search(r"\d\d\.\d\d ± \d\.\d\d", README)
    changed = README[: number.start()] + "99.99" + README[number.start() + 5 :]
    assert tables.fill(changed) == README != changed


def test_linked_files_are_there():
    for target in re.findall(r"\]\((?!http|#)([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


def test_named_programs_are_there():
    for program in re.findall(r"[\w/]+\.py\b", README):
        assert (ROOT / program).exists() or (ROOT / "experiments" / program).exists(), program


@pytest.mark.parametrize(
    ("name", "change"),
    [(name, {}) for name in PLOTS] + [(f"long/{name}", {"epochs": 40}) for name in PLOTS[1:]],
)
def test_committed_results_are_of_the_script_as_it_is(name, change):
    import q2_mlp
    import q3_cnn

    record = json.loads((ROOT / "plots" / f"{name}.json").read_text())
    expected = (
        q3_cnn.HYPERPARAMETERS[record["variant"]] if record["variant"] else q2_mlp.HYPERPARAMETERS
    )
    expected = expected | change
    assert record["hyperparameters"] == expected
    assert (record["split"], record["interrupted"]) == ("test", False)
    assert [run["seed"] for run in record["runs"]] == [0, 1, 2, 3, 4]
    assert all(len(run["epochs"]) == expected["epochs"] for run in record["runs"])
    assert (ROOT / "plots" / f"{name}.png").exists()
