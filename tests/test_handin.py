"""handin.py makes the PDF and the copies of the scripts, and refuses what doesn't fit."""

import base64
import json
import re
import shutil

import pytest
from conftest import ROOT
from pypdf import PdfReader

import handin

FILES = ["handin.typ", "q1_softmax_derivation.md", "requirements.txt", *handin.SCRIPTS]
PNG = base64.b64decode(  # one grey pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)
REPORT = """# Report

## Question 2

Made by [`q2_mlp.py`](q2_mlp.py), see [below](#question-3) and [the tutorial](https://pytorch.org).

<!-- a comment -->

<details><summary>All <code>tables</code></summary>

| epoch | accuracy |
| ---: | ---: |
| 1 | 98.76 |

</details>

![A caption](plots/figure.png)

## Question 3

With $`\\ell(y, f)`$.
"""


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Return a copy of the project with a small report and results that fit the scripts."""
    for name in FILES:
        shutil.copy(ROOT / name, tmp_path)
    monkeypatch.setattr(handin, "HERE", tmp_path)
    (tmp_path / "report.md").write_text(REPORT)
    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "figure.png").write_bytes(PNG)
    q2, q3 = map(handin.check_script, handin.SCRIPTS)
    for name, settings in {
        "q2_mlp": q2,
        **{f"q3_cnn_{key}": row for key, row in q3.items()},
    }.items():
        record = {"split": "test", "hyperparameters": settings, "interrupted": False}
        (tmp_path / "plots" / f"{name}.json").write_text(json.dumps(record))
    return tmp_path


def read_pdf(project):
    """Return the PDF in handin/ and its text, once it is there with the two scripts."""
    for name in handin.SCRIPTS:
        assert (project / "handin" / name).read_bytes() == (project / name).read_bytes()
    assert (project / "handin" / "homework6.pdf").read_bytes().startswith(b"%PDF")
    pdf = PdfReader(project / "handin" / "homework6.pdf")
    return pdf, "\n".join(page.extract_text() for page in pdf.pages)


def test_committed_documents(tmp_path, monkeypatch):
    for name in [*FILES, "report.md"]:
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "plots", tmp_path / "plots")
    monkeypatch.setattr(handin, "HERE", tmp_path)
    handin.main(["--name", "Ada Lovelace"])
    pdf, text = read_pdf(tmp_path)
    assert "Ada Lovelace" in pdf.pages[0].extract_text()
    for question in "123":
        assert re.search(rf"^Question {question}\b", text, re.MULTILINE)
    shown = set(re.findall(r"!\[[^]]*\]\(([^)]+)\)", (tmp_path / "report.md").read_text()))
    assert sum(len(page.images) for page in pdf.pages) >= len(shown) > 0


def test_small_report(project, capsys):
    handin.main(["--name", 'A. "#L*" O\'L', "--group", "C. Babbage", "--sources", "[the sheet]"])
    pdf, text = read_pdf(project)
    for part in ('A. "#L*" O\'L', "Group: C. Babbage", "Sources: [the sheet]"):
        assert part in pdf.pages[0].extract_text()
    for part in ("All tables", "98.76", "A caption", "q2_mlp.py, see below"):
        assert part in text
    assert "a comment" not in text
    assert [entry.title for entry in pdf.outline if not isinstance(entry, list)] == [
        "Question 1: softmax and cross-entropy loss",
        "Question 2",
        "Question 3",
    ]
    links = [note.get_object()["/A"] for page in pdf.pages for note in page.get("/Annots", [])]
    assert {link["/URI"] for link in links} == {"https://pytorch.org"}
    assert "Gradescope" in capsys.readouterr().out


def test_writes_over_its_own_files_only(project):
    (project / "handin").mkdir()
    for name in ("homework6.pdf", "q2_mlp.py", "notes.txt"):
        (project / "handin" / name).write_text("old")
    handin.main(["--name", "Ada"])
    read_pdf(project)
    assert (project / "handin" / "notes.txt").read_text() == "old"
    assert len(list((project / "handin").iterdir())) == 4


def replace(name, old, new):
    """Return a change of one file of the project."""

    def change(project):
        text = (project / name).read_text()
        assert old in text
        (project / name).write_text(text.replace(old, new, 1))

    return change


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda project: (project / "plots/figure.png").unlink(), "plots/figure.png"),
        (lambda project: (project / "plots/figure.png").write_bytes(PNG[:30]), "Typst"),
        (replace("report.md", "![A caption](plots/figure.png)", "<img src='a.png'>"), "HTML"),
        (lambda project: (project / "plots/q3_cnn_bn.json").unlink(), "q3_cnn_bn.json"),
        (lambda project: (project / "plots/q2_mlp.json").write_text('{"spl'), "q2_mlp.json"),
        (replace("plots/q3_cnn_reg.json", ": false}", ": true}"), "q3_cnn_reg.json.*interrupted"),
        (replace("plots/q3_cnn_base.json", '"test"', '"validation"'), "q3_cnn_base.json.*split"),
        (replace("plots/q3_cnn_bn_only.json", '"lr": ', '"lr": 1'), "bn_only.json.*hyperpar"),
        (replace("q2_mlp.py", "import argparse", "import argparse as"), "q2_mlp.py.*compile"),
        (replace("q2_mlp.py", "import json", "import pandas"), "q2_mlp.py.*pandas"),
        (replace("q3_cnn.py", "import json", "from q2_mlp import load_mnist"), "q3_cnn.py.*q2_mlp"),
    ],
)
def test_refuses(project, change, complaint):
    change(project)
    with pytest.raises(SystemExit, match=rf"\A.*{complaint}.*\Z"):  # one line: . is no newline
        handin.main(["--name", "Ada"])
    assert not (project / "handin").exists()


def test_refuses_without_a_name(project):
    with pytest.raises(SystemExit, match="--name"):
        handin.main(["--name", " "])
    assert not (project / "handin").exists()
