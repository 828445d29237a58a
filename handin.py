# /// script
# requires-python = ">=3.10"
# dependencies = ["pypandoc-binary>=1.16,<1.18", "typst>=0.14,<0.15"]
# ///
"""Make what is handed in: one PDF of question 1 and the report, and the two scripts.

    pip install -r requirements-dev.txt
    python handin.py --name "Ada Lovelace" --group "Charles Babbage" --sources "PyTorch tutorial"

Writes handin/homework6.pdf, q2_mlp.py and q3_cnn.py beside this file; `uv run handin.py ...` does
so without an installation. Refuses, with one line, where a figure or a result doesn't fit.
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
NEXT_STEPS = """Left to do by hand:
  1. Read the PDF once from the first page to the last.
  2. Upload it on Gradescope and assign its pages to the questions.
  3. Upload q2_mlp.py and q3_cnn.py where Gradescope asks for the code.
The sheet demands that you write up your own solutions. This package is an example: if you learn
from it, name it among your sources, and hand in what you wrote yourself."""


def check_script(name):
    """Refuse a script that can't run where it is alone; return its HYPERPARAMETERS."""
    try:
        tree = ast.parse((HERE / name).read_text(encoding="utf-8"))
    except (OSError, SyntaxError, ValueError) as error:
        sys.exit(f"{name} doesn't compile: {error}")

    requirements = (HERE / "requirements.txt").read_text(encoding="utf-8")
    known = {*sys.stdlib_module_names, *re.findall(r"^[\w-]+", requirements, re.MULTILINE)}
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
    """Refuse plots/<name>.json unless it is a whole run on the test set, with these settings."""
    path = f"plots/{name}.json"
    try:
        record = json.loads((HERE / path).read_text(encoding="utf-8"))
        split, interrupted, settings = map(record.get, ("split", "interrupted", "hyperparameters"))
    except (OSError, ValueError, AttributeError) as error:
        sys.exit(f"{path} is missing or broken: {error!r}")
    if split != "test":
        sys.exit(f"{path} is of the {split} split, not of the test set")
    if interrupted is not False:
        sys.exit(f"{path} is of an interrupted run")
    if settings != expected:
        sys.exit(f"{path} has other hyperparameters than the script: {settings}, not {expected}")


def elements(node):
    """Yield every element of a document that pandoc gave as JSON."""
    if isinstance(node, dict):
        yield node
    for child in node.values() if isinstance(node, dict) else node:
        if isinstance(child, dict | list):
            yield from elements(child)


def to_typst(name):
    """Return a Markdown document as Typst; refuse one that the PDF would not show whole."""
    text = (HERE / name).read_text(encoding="utf-8")
    # On paper nothing unfolds: the summary becomes a line in bold, and the contents follow it.
    text = re.sub(r"<summary>(.*?)</summary>", r"\n\n**\1**\n\n", text, flags=re.DOTALL)
    text = re.sub(r"</?code>", "`", re.sub(r"</?details.*?>", "", text))
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
    body = pypandoc.convert_text(json.dumps(document), "typst", "json", extra_args=shift)
    return body.replace("&  &", "& quad quad &")  # as wide a gap as LaTeX leaves for &&


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", default="", help="your name, for the first page")
    parser.add_argument("--group", default="none", help="with whom you discussed the problems")
    parser.add_argument("--sources", default="those of the report", help="what you used")
    args = parser.parse_args(argv)
    if not args.name.strip():
        sys.exit('Whose homework is it? Say --name "..."')

    q2, q3 = map(check_script, SCRIPTS)
    check_result("q2_mlp", q2)
    for variant, settings in q3.items():
        check_result(f"q3_cnn_{variant}", settings)
    template = (HERE / "handin.typ").read_text(encoding="utf-8")
    parts = template, to_typst("q1_softmax_derivation.md"), "#pagebreak()", to_typst("report.md")
    try:
        pdf = typst.compile("\n".join(parts).encode(), root=HERE, sys_inputs=vars(args))
    except typst.TypstError as error:
        sys.exit(f"Typst can't set the PDF: {error.message}")

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
