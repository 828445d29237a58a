"""The two scripts: what they share is the same text, in the same order, and each stands alone."""

import ast
import re
import sys

import pytest
from conftest import ROOT

import q2_mlp
import q3_cnn

SCRIPTS = ["q2_mlp.py", "q3_cnn.py"]
SOURCES = [(ROOT / script).read_text(encoding="utf-8") for script in SCRIPTS]

# The same name in both scripts, and not the same text.
OWN = {"NeuralNetwork", "train", "main", "HYPERPARAMETERS", "FLAGS"}

SECTIONS = ["hyperparameters", "data", "model", "training", "plots", "command line"]


def definitions(source):
    """Return the text of each function, class and constant at the top level, by name.

    It starts where the one before it ends, so that comments and decorators belong to it.
    """
    lines, end, texts = source.splitlines(), 0, {}
    for node in ast.parse(source).body:
        text = "\n".join(lines[end : node.end_lineno]).strip()
        end = node.end_lineno
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            texts[node.name] = text
        elif isinstance(node, ast.Assign):
            texts[node.targets[0].id] = text
    return texts


def imports(source):
    """Return each import statement of the file, wherever it stands."""
    return [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.Import | ast.ImportFrom)]


Q2, Q3 = map(definitions, SOURCES)


def test_names_on_both_sides():
    """The comparison below would pass if it found nothing to compare."""
    assert set(Q2) <= set(Q3)
    assert set(Q2) >= OWN | {"batches", "train_loop", "test_loop", "HELD_OUT", "SEED"}


@pytest.mark.parametrize("name", sorted(set(Q2) - OWN))
def test_shared_definition_is_the_same_text(name):
    assert Q2[name] == Q3[name]


def test_shared_names_come_in_the_same_order():
    assert list(Q2) == [name for name in Q3 if name in Q2]


def test_shared_flags_are_the_same_lines():
    lines = Q2["FLAGS"].splitlines()
    assert len(lines) == len(q2_mlp.FLAGS) + 2
    assert lines == [line for line in Q3["FLAGS"].splitlines() if line in lines]


@pytest.mark.parametrize("source", SOURCES, ids=SCRIPTS)
def test_sections_in_order(source):
    assert re.findall(r"^# -{10,} (.*)$", source, re.MULTILINE) == SECTIONS


def test_base_is_trained_as_question_2():
    assert q3_cnn.HYPERPARAMETERS["base"] == q2_mlp.HYPERPARAMETERS


def test_reg_is_base_plus_weight_decay_and_dropout():
    reg = dict(q3_cnn.HYPERPARAMETERS["reg"])
    assert reg.pop("weight_decay") > 0
    assert reg.pop("dropout") > 0
    assert reg == q3_cnn.HYPERPARAMETERS["base"]


@pytest.mark.parametrize("source", SOURCES, ids=SCRIPTS)
def test_no_line_over_100_columns(source):
    assert max(map(len, source.splitlines())) <= 100


@pytest.mark.parametrize("source", SOURCES, ids=SCRIPTS)
def test_no_module_of_the_project_is_imported(source):
    packages = set()
    for node in imports(source):
        assert not getattr(node, "level", 0), "a relative import"
        names = [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
        packages |= {name.split(".")[0] for name in names}
    requirements = re.findall(r"^\w+", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert packages - sys.stdlib_module_names == set(requirements)


def test_imports_differ_only_in_what_one_script_uses_alone():
    q2, q3 = ([ast.unparse(node) for node in imports(source)] for source in SOURCES)
    assert q2 == [line for line in q3 if line in q2]
