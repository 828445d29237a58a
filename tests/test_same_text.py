"""The two scripts: what they share is the same text, and what they need is named."""

import ast
import difflib
import re
import sys

import pytest
from conftest import ROOT

import q2_mlp
import q3_cnn

# The same name in both scripts, and not the same text.
OWN = {"docstring", "HYPERPARAMETERS", "TICKS", "LIMITS", "NeuralNetwork"}
OWN |= {"train_loop", "train", "train_and_record", "run", "main"}


def name_of(node):
    """Return what a statement defines, or the statement itself."""
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return "docstring"
    if isinstance(node, ast.Assign):
        return ast.unparse(node.targets[0])
    return getattr(node, "name", None) or ast.unparse(node)


def statements(script):
    """Return the text of each statement at the top level but imports, by name.

    It starts where the one before it ends, so that comments and decorators belong to it.
    """
    source = (ROOT / script).read_text(encoding="utf-8")
    lines, end, texts = source.splitlines(), 0, {}
    for node in ast.parse(source).body:
        text = "\n".join(lines[end : node.end_lineno]).strip()
        end = node.end_lineno
        if not isinstance(node, ast.Import | ast.ImportFrom):
            texts[name_of(node)] = re.sub(r"^# -{10,}.*\s+", "", text)  # the heading of a section
    return texts


Q2, Q3 = statements("q2_mlp.py"), statements("q3_cnn.py")


def changes(name):
    """Return the lines that Q3 lacks of Q2's definition, and those that it has besides."""
    lines = list(difflib.ndiff(Q2[name].splitlines(), Q3[name].splitlines()))
    return [[line[2:].strip() for line in lines if line[0] == sign] for sign in "-+"]


def test_what_both_need_is_the_same_text_in_the_same_order():
    assert list(Q2) == [name for name in Q3 if name in Q2]
    assert {name for name in Q2 if Q2[name] != Q3[name]} == OWN
    assert changes("train_loop")[1][1:] == ["scheduler.step()"]
    assert changes("run") == [[], ['"wrong": {},']]
    missing, added = changes("train_and_record")
    assert (missing, len(added)) == ([], 3)  # the wrong digits of the last epoch


def test_rows_of_the_hyperparameters():
    rows, q2 = q3_cnn.HYPERPARAMETERS, q2_mlp.HYPERPARAMETERS
    assert list(rows) == list(q3_cnn.TITLES) == ["base", "reg", "bn_only", "bn"]
    base, reg, bn = rows["base"], rows["reg"], rows["bn"]
    assert base == q2 | {key: base[key] for key in base.keys() - q2.keys()}
    assert not any(base[key] for key in base.keys() - q2.keys())
    assert reg == base | {key: reg[key] for key in ("weight_decay", "dropout")}
    assert rows["bn_only"] == base | {"batch_norm": True}
    assert bn["batch_norm"]
    assert bn["lr"] > base["lr"]


@pytest.mark.parametrize("script", ["q2_mlp.py", "q3_cnn.py"])
def test_each_needs_the_packages_of_requirements_and_names_them_for_uv(script):
    source = (ROOT / script).read_text(encoding="utf-8")
    required = (ROOT / "requirements.txt").read_text().splitlines()
    assert re.findall(r'^# requires-python = (".*")$', source, re.MULTILINE) == ['">=3.10"']
    (listed,) = re.findall(r"^# dependencies = (.*)$", source, re.MULTILINE)
    assert ast.literal_eval(listed) == required
    # Neither imports the other, or another module of the project.
    imported = set(re.findall(r"^(?:import|from) (\w+)", source, re.MULTILINE))
    packages = {re.match(r"\w+", line)[0] for line in required}
    assert imported - set(sys.stdlib_module_names) == packages
