# /// script
# requires-python = ">=3.10"
# dependencies = ["numpy>=1.26", "pypandoc-binary>=1.16,<1.18", "scipy>=1.11", "typst>=0.14,<0.15"]
# ///
"""Make what is handed in: one PDF of question 1 and the report, and the two scripts.

    pip install -r requirements-dev.txt
    python handin.py --name "Ada Lovelace" --group "Charles Babbage" --sources "PyTorch tutorial"

Writes handin/homework6.pdf, q2_mlp.py and q3_cnn.py beside this file; `uv run handin.py ...` does
so without an installation. Refuses, with one line, where a figure, a table or a result doesn't fit.
"""

import argparse
import ast
import json
import re
import sys
from pathlib import Path

import pypandoc
import typst

HERE = Path(__file__).resolve().parent
SCRIPTS = "q2_mlp.py", "q3_cnn.py"
WAY_OUT = (
    "Take the committed results again (git restore plots); or run all with the same seeds, then "
    "python experiments/tables.py, and mend the report's sentences by hand"
)
NEXT_STEPS = """Left to do by hand:
  1. Read the PDF once from the first page to the last.
  2. Upload it on Gradescope and assign its pages to the questions.
  3. Upload q2_mlp.py and q3_cnn.py where Gradescope asks for the code.
The sheet demands that you write up your own solutions. This package is an example: if you learn
from it, name it among your sources, and hand in what you wrote yourself."""


def read(name):
    """Return the text of a file; refuse one that is missing or in another encoding."""
    try:
        return (HERE / name).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        sys.exit(f"{name} can't be read: {error}")


def check_script(name):
    """Refuse a script that can't run where it is alone; return its HYPERPARAMETERS."""
    try:
        tree = ast.parse(read(name))
    except (SyntaxError, ValueError) as error:
        sys.exit(f"{name} doesn't compile: {error}")

    packages = re.findall(r"^[\w-]+", read("requirements.txt"), re.MULTILINE)
    known = {*sys.stdlib_module_names, *packages}
    for node in ast.walk(tree):
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            modules = ["." * node.level + (node.module or "")]
        for module in modules:
            if module.split(".")[0] not in known:
                sys.exit(f"{name} imports {module}, which requirements.txt doesn't name")

    # Only the constants are made: importing the script would import torch.
    tree.body = [node for node in tree.body if isinstance(node, ast.Assign)]
    namespace = {}
    try:
        exec(compile(tree, name, "exec"), namespace)
        return namespace["HYPERPARAMETERS"]
    except Exception as error:  # whatever an edited script may raise
        sys.exit(f"{name}: can't read its hyperparameters: {error!r}")


def check_result(name, expected):
    """Refuse plots/<name>.json if it doesn't fit; return its seeds.

    It must be of whole runs on the test set, with the expected settings.
    """
    path = f"plots/{name}.json"
    try:
        record = json.loads(read(path))
        split, interrupted = record["split"], record["interrupted"]
        settings, seeds = record["hyperparameters"], record["seeds"]
    except (ValueError, KeyError, TypeError) as error:
        sys.exit(f"{path} is broken: {error!r}")
    if split != "test":
        sys.exit(f"{path} is of the {split} split, not of the test set")
    if interrupted is not False:
        sys.exit(f"{path} is of an interrupted run")
    if settings != expected:
        difference = f"{settings}, not {expected}"
        sys.exit(f"{path} has other hyperparameters than the script: {difference}. {WAY_OUT}")
    return seeds


def check_tables(name):
    """Refuse a document with a table that is not that of the JSON files."""
    sys.path.insert(0, str(HERE / "experiments"))
    import tables

    text = read(name)
    try:
        anew = tables.fill(text)
    except Exception as error:  # whatever an edited record may raise
        sys.exit(f"{name}: can't make its tables anew: {error!r}. {WAY_OUT}")
    pieces = zip(text.split("<!-- end -->"), anew.split("<!-- end -->"), strict=True)
    for ours, right in pieces:
        if ours != right:
            title = re.findall("<!-- (.*) -->", right)[-1]
            sys.exit(f"{name}: its table '{title}' is not that of the JSON files. {WAY_OUT}")


def elements(node):
    """Yield every element of a document that pandoc gave as JSON."""
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node:
        if isinstance(child, dict | list):
            yield from elements(child)


def lay_on_side(match):
    """Return a Markdown table with its rows as columns."""
    head, _, *rows = (line.strip("|").split("|") for line in match[1].splitlines())
    first, *others = zip(head, *rows, strict=True)
    lines = [first, ["---"] + ["---:"] * len(rows), *others]
    return "\n" + "".join(f"|{'|'.join(line)}|\n" for line in lines)


def stays(before, block, following):
    """Return whether no page may end between a block and the following one."""
    kind, next_kind = block["t"], following["t"]
    if kind in ("Figure", "Table"):
        return next_kind == "Para"  # the command that made it, or the text about it
    if kind != "Para" or before["t"] == "Figure":
        return False
    formula = next_kind == "Para" and [part["t"] for part in following["c"]] == ["Math"]
    return formula or next_kind in ("Figure", "Table", "CodeBlock", "BulletList")


def keep_together(blocks):
    """Return the blocks without comments, with marks around those that must stay with the next."""
    end = {"t": "end"}
    blocks = [end, *(block for block in blocks if block["t"] != "RawBlock"), end]
    together = []
    for before, block, following in zip(blocks, blocks[1:], blocks[2:], strict=False):
        if stays(before, block, following):
            opening, closing = ({"t": "RawBlock", "c": ["typst", mark]} for mark in ("#stay[", "]"))
            together += [opening, block, closing]
        else:
            together.append(block)
    return together


def to_typst(name):
    """Return a Markdown document as Typst; refuse one that the PDF would not show whole."""
    text = read(name)
    # On paper nothing unfolds: the summary becomes a line in bold, and the contents follow it.
    text = re.sub(r"<summary>(.*?)</summary>", r"\n\n**\1**\n\n", text, flags=re.DOTALL)
    text = re.sub(r"</?code>", "`", re.sub(r"</?details.*?>", "", text))
    # No line ends between a figure and its per cent sign or plus-minus.
    text = re.sub(r"(?<=\d)\s(?=[%±])|(?<=±)\s(?=\d)", "\u00a0", text)
    # A long table with few columns takes less room with its rows as columns.
    text = re.sub(r"<!-- sideways -->\n(?:<!-- .* -->\n)?((?:\|.*\n)+)", lay_on_side, text)
    document = json.loads(pypandoc.convert_text(text, "json", "gfm+smart+implicit_figures"))
    for element in elements(document):
        kind, content = element.get("t"), element.get("c")
        if kind == "Image" and not (HERE / content[2][0]).is_file():
            sys.exit(f"{name} shows {content[2][0]}, which is missing")
        if kind in ("RawInline", "RawBlock") and not content[1].startswith("<!--"):
            sys.exit(f"{name} has HTML that the PDF can't show: {content[1].splitlines()[0]}")

    # Questions 2 and 3 belong beside question 1: the shift makes away with the report's own title.
    titles = [
        block for block in document["blocks"] if block["t"] == "Header" and block["c"][0] == 1
    ]
    shift = ["--shift-heading-level-by=-1"] if name == "report.md" and len(titles) == 1 else []
    document["blocks"] = keep_together(document["blocks"])
    body = pypandoc.convert_text(json.dumps(document), "typst", "json", extra_args=shift)
    return body.replace("&  &", "& quad quad &")  # as wide a gap as LaTeX leaves for &&


def make_pdf(inputs):
    """Return question 1 and the report as PDF; `inputs` are the texts of the first page."""
    parts = read("handin.typ"), to_typst("q1_softmax_derivation.md"), "#pagebreak()"
    text = "\n".join([*parts, to_typst("report.md")])
    try:
        # This standard demands that every letter can be read: Typst refuses one without a font.
        return typst.compile(text.encode(), root=HERE, sys_inputs=inputs, pdf_standards="a-2b")
    except UnicodeError as error:
        sys.exit(f"--name, --group or --sources is in another encoding: {error}")
    except typst.TypstError as error:
        letters = dict.fromkeys(re.findall(r'the text `"(.+?)"` could not', error.diagnostic))
        if letters:
            sys.exit(f"No font here has {' '.join(letters)}: use other letters, or install a font")
        sys.exit(f"Typst can't set the PDF: {error.message}")


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", default="", help="your name, for the first page")
    parser.add_argument("--group", default="none", help="with whom you discussed the problems")
    parser.add_argument("--sources", default="those of the report", help="what you used")
    args = parser.parse_args(argv)
    if not args.name.strip():
        sys.exit('Whose homework is it? Say --name "..."')

    q2, q3 = map(check_script, SCRIPTS)
    seeds = check_result("q2_mlp", q2)
    for variant, settings in q3.items():
        name = f"q3_cnn_{variant}"
        others = check_result(name, settings)
        if others != seeds:
            sys.exit(f"plots/{name}.json has seeds {others}, q2_mlp.json {seeds}. {WAY_OUT}")
    check_tables("report.md")
    pdf = make_pdf(vars(args))

    folder = HERE / "handin"
    folder.mkdir(exist_ok=True)
    (folder / "homework6.pdf").write_bytes(pdf)
    for name in SCRIPTS:
        (folder / name).write_bytes((HERE / name).read_bytes())
    print(f"Wrote homework6.pdf, {' and '.join(SCRIPTS)} into {folder}.\n{NEXT_STEPS}")


if __name__ == "__main__":
    try:
        main()
    except OSError as error:
        sys.exit(f"{error}")
