"""handin.py makes the PDF and the copies of the scripts, and refuses what doesn't fit."""

import json
import re
import shutil
import subprocess
import sys

import pytest
from conftest import ROOT
from pypdf import PdfReader

NAME = "Zoë Žižek-O'Brien, Ольга"


@pytest.fixture
def project(tmp_path):
    """Return a copy of what handin.py reads."""
    for pattern in "*.py", "*.typ", "*.md":
        for path in ROOT.glob(pattern):
            shutil.copy(path, tmp_path)
    for folder in "plots", "experiments":
        shutil.copytree(ROOT / folder, tmp_path / folder)
    return tmp_path


def hand_in(project, name=NAME):
    flags = ["--name", name, "--group", "Charles *Babbage*", "--sources", "[the $ sheet]"]
    return subprocess.run(
        [sys.executable, str(project / "handin.py"), *flags],
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
    )


def test_pdf_and_copies(project):
    done = hand_in(project)
    assert done.returncode == 0, done.stderr
    made = sorted(path.name for path in (project / "handin").iterdir())
    assert made == ["homework6.pdf", "q2_mlp.py", "q3_cnn.py"]
    for name in made[1:]:
        assert (project / "handin" / name).read_bytes() == (ROOT / name).read_bytes()

    pdf = PdfReader(project / "handin" / "homework6.pdf")
    pages = [page.extract_text() for page in pdf.pages]
    assert 7 <= len(pages) <= 9
    for words in NAME, "Charles *Babbage*", "[the $ sheet]":
        assert words in pages[0]
    titles = [entry.title for entry in pdf.outline if not isinstance(entry, list)]
    for question in "1", "2", "3 (a)", "3 (b)", "3 (c)", "3 (d)":
        assert any(title.startswith(f"Question {question}") for title in titles)
    text = "\n".join(pages)
    assert not re.search(r"\d ?\n[%±]|± ?\n\d", text), "a figure is torn from its sign"


def change_record(name, change):
    """Return a change of one record, as a function of the project."""

    def write(project):
        path = project / "plots" / f"{name}.json"
        record = json.loads(path.read_text(encoding="utf-8"))
        change(record)
        path.write_text(json.dumps(record), encoding="utf-8")

    return write


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (
            change_record("q3_cnn_base", lambda record: record.update(split="validation")),
            "plots/q3_cnn_base.json",
        ),
        (
            change_record("q2_mlp", lambda record: record["hyperparameters"].update(lr=0.123)),
            "plots/q2_mlp.json",
        ),
        (
            change_record("q3_cnn_bn", lambda record: record["seeds"].reverse()),
            "plots/q3_cnn_bn.json",
        ),
        (
            change_record("q3_cnn_bn_only", lambda record: record["epochs"].pop()),
            "plots/q3_cnn_bn_only.json",
        ),
        (
            change_record("q3_cnn_reg", lambda record: record["epochs"][-1].update(test_loss=1)),
            "report.md",
        ),
        (lambda project: (project / "plots/q2_mlp.png").unlink(), "The PDF"),
    ],
    ids=["split", "settings", "seeds", "not whole", "tables", "picture"],
)
def test_refuses_in_one_line(project, change, complaint):
    change(project)
    done = hand_in(project)
    assert done.returncode == 1
    assert done.stderr.startswith(complaint)
    assert len(done.stderr.splitlines()) == 1
    assert not (project / "handin").exists()


def test_refuses_a_letter_that_the_font_lacks(project):
    done = hand_in(project, name="Zoë 😀")
    assert done.returncode == 1
    assert "😀" in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (project / "handin").exists()
