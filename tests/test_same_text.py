"""The two scripts: what they share is the same text, in the same order, and each stands alone."""

import ast
import difflib
import re

from conftest import ROOT

import q2_mlp
import q3_cnn

SOURCES = [(ROOT / script).read_text(encoding="utf-8") for script in ("q2_mlp.py", "q3_cnn.py")]

# The same name in both scripts, and not the same text.
OWN = {"NeuralNetwork", "train_loop", "train", "main", "HYPERPARAMETERS", "FLAGS"}

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
            texts[ast.unparse(node.targets[0])] = text
        elif isinstance(node, ast.If):
            texts[ast.unparse(node.test)] = text
    return texts


Q2, Q3 = map(definitions, SOURCES)


def test_shared_definitions_are_the_same_text_in_the_same_order():
    assert set(Q2) >= OWN | {"batches", "test_loop", "plot", "STYLES", "__name__ == '__main__'"}
    assert list(Q2) == [name for name in Q3 if name in Q2]
    assert {name for name in Q2 if Q2[name] != Q3[name]} == OWN


def test_train_loop_differs_in_the_scheduler_alone():
    lines = difflib.ndiff(Q2["train_loop"].splitlines(), Q3["train_loop"].splitlines())
    assert [line for line in lines if line[0] in "+-"] == [
        "- def train_loop(dataloader, model, loss_fn, optimizer):",
        "+ def train_loop(dataloader, model, loss_fn, optimizer, scheduler):",
        "+         scheduler.step()",
    ]


def test_train_has_every_line_of_q2_but_where_network_and_optimizer_are_made():
    lines = difflib.ndiff(Q2["train"].splitlines(), Q3["train"].splitlines())
    assert [line[2:].strip() for line in lines if line[0] == "-"] == [
        "model = NeuralNetwork().to(train_data[0].device)",
        'optimizer = torch.optim.SGD(model.parameters(), lr=settings["lr"])',
        "train_loss, train_accuracy = train_loop(loader, model, loss_fn, optimizer)",
    ]


def test_flags_of_q3_begin_with_those_of_q2():
    lines = Q2["FLAGS"].splitlines()
    assert len(lines) == len(q2_mlp.FLAGS) + 3  # the heading, the first and the last
    assert lines[:-1] == Q3["FLAGS"].splitlines()[: len(lines) - 1]


def test_rows_of_the_hyperparameters():
    rows, q2 = q3_cnn.HYPERPARAMETERS, q2_mlp.HYPERPARAMETERS
    assert list(rows) == list(q3_cnn.TITLES) == ["base", "reg", "bn_only", "bn"]
    assert all(list(row) == list(q3_cnn.FLAGS) for row in rows.values())
    assert list(q2) == list(q2_mlp.FLAGS)
    base = rows["base"]
    assert base.items() >= q2.items()
    assert not any(value for key, value in base.items() if key not in q2)

    def changed(name):
        return {key for key, value in rows[name].items() if value != base[key]}

    assert changed("reg") == {"weight_decay", "dropout"}
    assert changed("bn_only") == {"batch_norm"}
    assert changed("bn") >= {"batch_norm", "lr"}
    assert rows["bn_only"]["batch_norm"] is rows["bn"]["batch_norm"] is True
    assert rows["bn"]["lr"] > base["lr"]


def test_size_and_sections():
    for source, limit in zip(SOURCES, (300, 420), strict=True):
        lines = source.splitlines()
        assert len(lines) <= limit
        assert max(map(len, lines)) <= 100
        assert re.findall(r"^# -{10,} (.*)$", source, re.MULTILINE) == SECTIONS
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 50, node.name


def test_imports_differ_only_in_what_one_script_uses_alone():
    q2, q3 = (
        [
            ast.unparse(n)
            for n in ast.walk(ast.parse(source))
            if isinstance(n, ast.Import | ast.ImportFrom)
        ]
        for source in SOURCES
    )
    assert q2 == [line for line in q3 if line in q2]
