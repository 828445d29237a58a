"""Each script imports the packages of requirements.txt, all of them, and nothing else."""

import ast
import re
import sys

import pytest
from conftest import ROOT


@pytest.mark.parametrize("script", ["q2_mlp.py", "q3_cnn.py"])
def test_imports_are_those_of_requirements(script):
    packages = set()
    tree = ast.parse((ROOT / script).read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            packages |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "a relative import"
            packages.add(node.module.split(".")[0])
    required = re.findall(r"^\w+", (ROOT / "requirements.txt").read_text(), re.MULTILINE)
    assert packages - sys.stdlib_module_names == set(required)
    # The line for whoever has the script alone.
    (line,) = re.findall(r"^ +pip install (.*)$", ast.get_docstring(tree), re.MULTILINE)
    assert re.findall(r"(?<![\w.])[a-z]+", line) == required
