"""handin.py makes the PDF and the copies of the scripts, and refuses what doesn't fit."""

import base64
import json
import re
import shutil
import subprocess
import sys
from functools import partial

import pytest
import typst
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

<!-- epochs q2_mlp -->
<!-- end -->

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
    for name in [*FILES, "handin.py"]:
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    monkeypatch.setattr(handin, "HERE", tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "experiments")
    for path in (ROOT / "experiments").glob("*.py"):
        monkeypatch.delitem(sys.modules, path.stem, raising=False)

    (tmp_path / "plots").mkdir()
    (tmp_path / "plots" / "figure.png").write_bytes(PNG)
    q2, q3 = map(handin.check_script, handin.SCRIPTS)
    for name, settings in {
        "q2_mlp": q2,
        **{f"q3_cnn_{key}": row for key, row in q3.items()},
    }.items():
        record = json.loads((ROOT / "plots" / f"{name}.json").read_text())
        record["hyperparameters"] = settings
        (tmp_path / "plots" / f"{name}.json").write_text(json.dumps(record))

    import tables

    (tmp_path / "report.md").write_text(tables.fill(REPORT), encoding="utf-8")
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
    shutil.copytree(ROOT / "experiments", tmp_path / "experiments")
    monkeypatch.setattr(handin, "HERE", tmp_path)
    handin.main(
        ["--name", "Ada Lovelace", "--group", "a name, " * 20, "--sources", "a book, " * 20]
    )
    pdf, text = read_pdf(tmp_path)
    for question in "123":
        assert re.search(rf"^Question {question}\b", text, re.MULTILINE)
    shown = set(re.findall(r"!\[[^]]*\]\(([^)]+)\)", (tmp_path / "report.md").read_text()))
    assert sum(len(page.images) for page in pdf.pages) >= len(shown) > 0

    pages = [page.extract_text() for page in pdf.pages]
    assert "Ada Lovelace" in pages[0]
    for part in (
        "Check with automatic differentiation",
        "import torch",
        "assert_close(grad_z, f - y)",
    ):
        assert part in pages[1]
    assert "Protocol" in pages[2]
    assert len(pages) <= 9  # two of question 1, seven of the report


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


SECTION = """
## Heading{0}h

{2}

Lead{0}h, with a table:

| Cell{0}h | b |
| --- | --- |
{1}

Text{0}h.

![Caption{0}h](plots/figure.png)

Command{0}h

{2}

Introduction{0}h:

```math
Math
```

Listing{0}h:

```
Code{0}h
```
"""


def test_what_belongs_together_is_on_one_page(project):
    """Many sections of different lengths: some would be torn at a page's end."""
    sections = [SECTION.format(i, "| a | 1 |\n" * (i % 9), "a line\\\n" * i) for i in range(30)]
    (project / "report.md").write_text("# Report\n" + "".join(sections))
    inputs = {"name": "Ada", "group": "none", "sources": "none"}
    (project / "small.pdf").write_bytes(handin.make_pdf(inputs))
    pages = [page.extract_text() for page in PdfReader(project / "small.pdf").pages]

    def page_of(word):
        (page,) = [number for number, text in enumerate(pages) if f"{word}h" in text]
        return page

    for i in range(30):
        for together in (
            ("Lead", "Cell", "Text"),
            ("Caption", "Command"),
            ("Listing", "Code"),
        ):
            assert len({page_of(f"{word}{i}") for word in together}) == 1, (together, i)
    for text in pages:  # a heading, or a lead-in, is no page's last line
        last = [line for line in text.splitlines() if line and "Homework 6" not in line][-1]
        assert not re.match(r"Heading|Introduction", last)


@pytest.mark.parametrize("mark", ["", "<!-- epochs q2_mlp -->\n"])
def test_a_marked_table_lies_on_its_side(project, mark):
    table = "| epoch | loss |\n| --- | ---: |\n| 1 | 0.5 |\n| 2 | 0.4 |\n| 3 | 0.3 |\n"
    (project / "report.md").write_text(f"<!-- sideways -->\n{mark}{table}\nText\n\n{table}")
    sideways, upright = handin.to_typst("report.md").split("Text")
    assert re.sub(r"\s", "", "[epoch],[1],[2],[3]") in re.sub(r"\s", "", sideways)
    assert "[loss],[0.5],[0.4],[0.3]" in re.sub(r"\s", "", sideways)
    assert "[1],[0.5],[2],[0.4]" in re.sub(r"\s", "", upright)


def test_writes_over_its_own_files_only(project):
    (project / "handin").mkdir()
    for name in ("homework6.pdf", "q2_mlp.py", "notes.txt"):
        (project / "handin" / name).write_text("old")
    handin.main(["--name", "Ada"])
    read_pdf(project)
    assert (project / "handin" / "notes.txt").read_text() == "old"
    assert len(list((project / "handin").iterdir())) == 4


def test_a_folder_that_cannot_be_made(project):
    (project / "handin").write_text("a file")
    command = [sys.executable, str(project / "handin.py"), "--name", "Ada"]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 1
    assert re.fullmatch(r".*File exists.*handin'?\n", done.stderr)


def replace(name, old, new):
    """Return a change of one file of the project."""

    def change(project):
        text = (project / name).read_text()
        assert old in text
        (project / name).write_text(text.replace(old, new, 1))

    return change


def keep_one_seed(project):
    """Leave the results of one seed in every record, and the report as it was."""
    for path in (project / "plots").glob("*.json"):
        record = json.loads(path.read_text())
        record |= {"seeds": [0], "runs": record["runs"][:1]}
        path.write_text(json.dumps(record))


def make_folder(name):
    """Return a change that puts a folder in the place of a file."""

    def change(project):
        (project / name).unlink()
        (project / name).mkdir()

    return change


def write_utf_16(project):
    text = (project / "report.md").read_text(encoding="utf-8")
    (project / "report.md").write_text(text, encoding="utf-16")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda project: (project / "plots/figure.png").unlink(), "plots/figure.png"),
        (lambda project: (project / "plots/figure.png").write_bytes(PNG[:30]), "Typst"),
        (replace("report.md", "![A caption](plots/figure.png)", "<img src='a.png'>"), "HTML"),
        (lambda project: (project / "plots/q3_cnn_bn.json").unlink(), "q3_cnn_bn.json"),
        (lambda project: (project / "plots/q2_mlp.json").write_text('{"spl'), "q2_mlp.json"),
        (lambda project: (project / "plots/q2_mlp.json").write_text("[]"), "q2_mlp.json"),
        (
            replace("plots/q3_cnn_reg.json", 'rupted": false', 'rupted": true'),
            "reg.json.*interrupted",
        ),
        (replace("plots/q3_cnn_base.json", '"test"', '"validation"'), "q3_cnn_base.json.*split"),
        (replace("plots/q3_cnn_bn_only.json", '"lr": ', '"lr": 1'), "bn_only.json.*hyperpar"),
        (replace("plots/q3_cnn_bn.json", '"seeds": [0, ', '"seeds": ['), "bn.json.*restore plots"),
        (keep_one_seed, "report.md: .*'epochs q2_mlp'.*git restore plots"),
        (replace("plots/q2_mlp.json", '"runs"', '"run"'), "report.md: .*git restore plots"),
        (write_utf_16, "report.md"),
        (make_folder("requirements.txt"), "requirements.txt"),
        (make_folder("handin.typ"), "handin.typ"),
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


@pytest.mark.parametrize("flag", ["name", "group", "sources"])
@pytest.mark.parametrize(("value", "named"), [("王小明 A", "王 小 明"), ("Andr\udce9", "--name")])
def test_refuses_letters_that_it_cannot_print(project, monkeypatch, flag, value, named):
    monkeypatch.setattr(typst, "compile", partial(typst.compile, ignore_system_fonts=True))
    with pytest.raises(SystemExit, match=rf"\A.*{named}.*\Z"):
        handin.main(["--name", "Ada", f"--{flag}", value])
    assert not (project / "handin").exists()
