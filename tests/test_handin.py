"""handin.py makes the PDF and the copies of the scripts, and refuses what doesn't fit."""

import json
import re
import shutil
import sys
from functools import partial

import pytest
import typst
from conftest import ROOT
from pypdf import PdfReader

import handin


@pytest.fixture
def project(tmp_path, monkeypatch):
    """Return a copy of the project."""
    for path in [*ROOT.glob("*.py"), *ROOT.glob("*.typ"), *ROOT.glob("*.md"), *ROOT.glob("*.txt")]:
        shutil.copy(path, tmp_path)
    for folder in "plots", "experiments":
        shutil.copytree(ROOT / folder, tmp_path / folder)
    monkeypatch.setattr(handin, "HERE", tmp_path)
    monkeypatch.syspath_prepend(tmp_path / "experiments")
    for path in (ROOT / "experiments").glob("*.py"):
        monkeypatch.delitem(sys.modules, path.stem, raising=False)
    return tmp_path


def test_committed_documents(project, capsys):
    (project / "handin").mkdir()
    for name in "homework6.pdf", "q2_mlp.py", "notes.txt":
        (project / "handin" / name).write_text("old")
    inputs = {"name": 'A. "#L*" O\'L', "group": "a name, " * 20, "sources": "[the sheet], " * 20}
    handin.main([word for key, value in inputs.items() for word in (f"--{key}", value)])
    assert "Gradescope" in capsys.readouterr().out
    for name in handin.SCRIPTS:
        assert (project / "handin" / name).read_bytes() == (project / name).read_bytes()
    assert (project / "handin" / "notes.txt").read_text() == "old"
    assert len(list((project / "handin").iterdir())) == 4

    pdf = PdfReader(project / "handin" / "homework6.pdf")
    pages = [page.extract_text() for page in pdf.pages]
    assert len(pages) <= 9  # two of question 1, seven of the report
    for value in inputs.values():
        assert value.split(",")[0] in pages[0]
    assert "assert_close(grad_z, f - y)" in pages[1]
    assert "Protocol" in pages[2]
    titles = [entry.title for entry in pdf.outline if not isinstance(entry, list)]
    for question in "123":
        assert any(title.startswith(f"Question {question}") for title in titles)
    report = (project / "report.md").read_text()
    shown = set(re.findall(r"!\[[^]]*\]\(([^)]+)\)", report))
    assert sum(len(page.images) for page in pdf.pages) >= len(shown) > 0
    headings = re.findall(r"^#+ (.*)", report, re.MULTILINE)
    for text in pages:  # a heading is no page's last line
        last = [line for line in text.splitlines() if line and "Homework 6" not in line][-1]
        assert last not in headings
        assert not re.search(r"\d ?\n[%±]|± ?\n\d", text), "a figure is torn from its sign"


def test_a_marked_table_lies_on_its_side(project):
    table = "| epoch | loss |\n| --- | ---: |\n| 1 | 0.5 |\n| 2 | 0.4 |\n| 3 | 0.3 |\n"
    (project / "report.md").write_text(f"<!-- sideways -->\n<!-- a -->\n{table}\nText\n\n{table}")
    sideways, upright = handin.to_typst("report.md").split("Text")
    assert re.sub(r"\s", "", "[epoch],[1],[2],[3]") in re.sub(r"\s", "", sideways)
    assert "[loss],[0.5],[0.4],[0.3]" in re.sub(r"\s", "", sideways)
    assert "[1],[0.5],[2],[0.4]" in re.sub(r"\s", "", upright)


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


def write_utf_16(project):
    text = (project / "report.md").read_text(encoding="utf-8")
    (project / "report.md").write_text(text, encoding="utf-16")


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda project: (project / "plots/q2_mlp.png").unlink(), "plots/q2_mlp.png"),
        (lambda project: (project / "plots/q2_mlp.png").write_bytes(b"\x89PNG"), "Typst"),
        (replace("report.md", "![Q2", "<img src='a.png'>![Q2"), "HTML"),
        (lambda project: (project / "plots/q3_cnn_bn.json").unlink(), "q3_cnn_bn.json"),
        (lambda project: (project / "plots/q2_mlp.json").write_text('{"spl'), "q2_mlp.json"),
        (replace("plots/q3_cnn_reg.json", 'ed": false', 'ed": true'), "reg.json.*interrupted"),
        (replace("plots/q3_cnn_base.json", '"test"', '"validation"'), "q3_cnn_base.json.*split"),
        (replace("plots/q3_cnn_bn_only.json", '"lr": ', '"lr": 1'), "bn_only.json.*hyperpar"),
        (replace("plots/q3_cnn_bn.json", '"seeds": [', '"seeds": [7,'), "bn.json.*restore plots"),
        (keep_one_seed, "report.md: .*'results'.*git restore plots"),
        (replace("plots/q2_mlp.json", '"runs"', '"run"'), "report.md: .*git restore plots"),
        (write_utf_16, "report.md"),
        (lambda project: (project / "handin.typ").unlink(), "handin.typ"),
        (replace("q2_mlp.py", "import argparse", "import argparse as"), "q2_mlp.py.*compile"),
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


@pytest.mark.parametrize("flag", ["name", "group", "sources"])
@pytest.mark.parametrize(("value", "named"), [("王小明 A", "王 小 明"), ("Andr\udce9", "--name")])
def test_refuses_letters_that_it_cannot_print(project, monkeypatch, flag, value, named):
    monkeypatch.setattr(typst, "compile", partial(typst.compile, ignore_system_fonts=True))
    with pytest.raises(SystemExit, match=rf"\A.*{named}.*\Z"):
        handin.main(["--name", "Ada", f"--{flag}", value])
    assert not (project / "handin").exists()
