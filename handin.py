# /// script
# requires-python = ">=3.10"
# dependencies = ["numpy", "pypandoc-binary>=1.16,<1.18", "scipy", "typst>=0.14,<0.15"]
# ///
"""Make what is handed in: the PDF of question 1 and the report, and the two scripts.

    python handin.py --name "Ada Lovelace" --group "Charles Babbage" --sources "PyTorch tutorial"

Writes them into handin/, or says in one line why results, scripts and report don't fit together.
`uv run handin.py ...` does so without an installation.
"""

import argparse
import ast
import contextlib
import json
import re
import shutil
import sys
from pathlib import Path

import pypandoc
import typst

HERE = Path(__file__).resolve().parent
WAY_OUT = (
    "Take back the committed results (git restore plots); or finish all runs with the same seeds, "
    "run experiments/tables.py and mend the report's sentences"
)
NEXT_STEPS = """Left to do: read the PDF once; upload it on Gradescope and assign its pages to the
questions; upload the two scripts as the code. The sheet wants your own write-up: this package is
an example, to be named among your sources if you learnt from it."""


def read(name):
    return (HERE / name).read_text(encoding="utf-8")


def settings_of(script):
    """Return the HYPERPARAMETERS of a script without importing it, which would need torch."""
    constants = {}
    for node in ast.parse(read(script)).body:
        if isinstance(node, ast.Assign):
            with contextlib.suppress(NameError):  # made of something imported
                exec(ast.unparse(node), constants)
    return constants["HYPERPARAMETERS"]


def check_records():
    """Refuse results that are not whole, or don't belong to the scripts and to one another."""
    settings = {"q2_mlp": settings_of("q2_mlp.py")}
    for variant, row in settings_of("q3_cnn.py").items():
        settings[f"q3_cnn_{variant}"] = row
    seeds = json.loads(read("plots/q2_mlp.json"))["seeds"]
    for name, row in settings.items():
        record = json.loads(read(f"plots/{name}.json"))
        for key, right in {"split": "test", "hyperparameters": row, "seeds": seeds}.items():
            if record[key] != right:
                fault = f"has the {key} {record[key]}, not {right}"
                sys.exit(f"plots/{name}.json {fault}. {WAY_OUT}.")
        if len(record["epochs"]) != len(seeds) * row["epochs"]:
            sys.exit(f"plots/{name}.json is not whole. {WAY_OUT}.")


def check_tables():
    """Refuse a report whose tables are not those of the results."""
    sys.path.insert(0, str(HERE / "experiments"))
    import tables

    report = read("report.md")
    if tables.fill(report) != report:
        sys.exit(f"report.md has tables that are not those of the results. {WAY_OUT}.")


def to_typst(name, *options):
    """Return a Markdown document as Typst; no line ends between a figure and its % or ±."""
    text = re.sub(r"(?<=[\d,])\s(?=[%±])|(?<=±)\s(?=\d)", "\u00a0", read(name))
    return pypandoc.convert_text(text, "typst", "gfm+smart", options)


def make_pdf(first_page):
    """Return the PDF; `first_page` has name, group and sources."""
    question_1 = to_typst("q1_softmax_derivation.md")
    # Without the report's own title its questions stand beside question 1.
    report = to_typst("report.md", "--shift-heading-level-by=-1")
    document = "\n".join([read("handin.typ"), question_1, report])
    try:
        # This standard refuses a letter that no font has. A font of the system might have it and
        # draw it as an empty box; Typst's own fonts are the same everywhere.
        return typst.compile(
            document.encode(),
            root=HERE,
            sys_inputs=first_page,
            pdf_standards="a-2b",
            ignore_system_fonts=True,
        )
    except (typst.TypstError, UnicodeError) as error:
        sys.exit(f"The PDF can't be made: {error}")


def main():
    parser = argparse.ArgumentParser(description="Make the PDF and copy the scripts to hand in.")
    parser.add_argument("--name", required=True, help="your name, for the first page")
    parser.add_argument("--group", default="none", help="with whom you discussed the problems")
    parser.add_argument("--sources", default="those of the report", help="what else you used")
    args = parser.parse_args()

    check_records()
    check_tables()
    pdf = make_pdf(vars(args))

    folder = HERE / "handin"
    folder.mkdir(exist_ok=True)
    (folder / "homework6.pdf").write_bytes(pdf)
    for script in "q2_mlp.py", "q3_cnn.py":
        shutil.copy(HERE / script, folder)
    print(f"Wrote homework6.pdf, q2_mlp.py and q3_cnn.py into {folder}.\n{NEXT_STEPS}")


if __name__ == "__main__":
    main()
