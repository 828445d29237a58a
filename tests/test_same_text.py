"""The two scripts: what they share is the same text, in the same order."""

import ast
import difflib
import re

from conftest import ROOT

import q2_mlp
import q3_cnn

# The same name in both scripts, and not the same text.
OWN = {"NeuralNetwork", "train_loop", "train", "train_and_record", "main", "HYPERPARAMETERS"}


def definitions(script):
    """Return the text of each function, class and constant at the top level, by name.

    It starts where the one before it ends, so that comments and decorators belong to it.
    """
    source = (ROOT / script).read_text(encoding="utf-8")
    lines, end, texts = source.splitlines(), 0, {}
    for node in ast.parse(source).body:
        text = "\n".join(lines[end : node.end_lineno]).strip()
        text = re.sub(r"^# -{10,}.*\s+", "", text)  # the heading of a section
        end = node.end_lineno
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            texts[node.name] = text
        elif isinstance(node, ast.Assign):
            texts[ast.unparse(node.targets[0])] = text
        elif isinstance(node, ast.If):
            texts[ast.unparse(node.test)] = text
    return texts


Q2, Q3 = definitions("q2_mlp.py"), definitions("q3_cnn.py")


def changes(name):
    """Return the lines that Q3 lacks of Q2's definition, and those that it has besides."""
    lines = list(difflib.ndiff(Q2[name].splitlines(), Q3[name].splitlines()))
    return [[line[2:].strip() for line in lines if line[0] == sign] for sign in "-+"]


def test_shared_definitions_are_the_same_text_in_the_same_order():
    assert set(Q2) >= OWN | {"batches", "test_loop", "plot", "STYLES", "__name__ == '__main__'"}
    assert list(Q2) == [name for name in Q3 if name in Q2]
    assert {name for name in Q2 if Q2[name] != Q3[name]} == OWN


def test_train_loop_differs_in_the_scheduler_alone():
    assert changes("train_loop") == [
        ["def train_loop(dataloader, model, loss_fn, optimizer):"],
        ["def train_loop(dataloader, model, loss_fn, optimizer, scheduler):", "scheduler.step()"],
    ]


def test_train_and_record_of_q3_adds_its_own_two_calls():
    missing, added = changes("train_and_record")
    assert missing == []
    assert re.findall(r"\w+(?=\()", " ".join(added)) == ["wrong_images", "record_layers"]


def test_rows_of_the_hyperparameters():
    rows, q2 = q3_cnn.HYPERPARAMETERS, q2_mlp.HYPERPARAMETERS
    assert list(rows) == list(q3_cnn.TITLES) == ["base", "reg", "bn_only", "bn"]
    base, reg = rows["base"], rows["reg"]
    off = {key: value for key, value in base.items() if key not in q2}
    assert base == q2 | off
    assert not any(off.values())
    assert reg == base | {key: reg[key] for key in ("weight_decay", "dropout")}
    assert rows["bn_only"] == base | {"batch_norm": True}
    assert rows["bn"]["batch_norm"]
    assert rows["bn"]["lr"] > base["lr"]
