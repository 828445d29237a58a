"""Each script imports, and names for pip and uv, the packages of requirements.txt and no other."""

import ast
import re
import sys

import pytest
from conftest import ROOT


@pytest.mark.parametrize("script", ["q2_mlp.py", "q3_cnn.py"])
def test_imports_are_those_of_requirements(script):
    packages = set()
    source = (ROOT / script).read_text(encoding="utf-8")
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            packages |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "a relative import"
            packages.add(node.module.split(".")[0])
    required = (ROOT / "requirements.txt").read_text().splitlines()
    required_names = [re.match(r"\w+", line)[0] for line in required]
    assert packages - sys.stdlib_module_names == set(required_names)
    # The line for whoever has the script alone.
    (line,) = re.findall(r"^ +pip install (.*)$", ast.get_docstring(tree), re.MULTILINE)
    assert re.findall(r"(?<![\w.])[a-z]+", line) == required_names
    # The inline metadata (PEP 723) for uv.
    (block,) = re.findall(r"^# /// script\n((?:#.*\n)+?)# ///$", source, re.MULTILINE)
    metadata = dict(line[2:].split(" = ", 1) for line in block.splitlines())
    assert ast.literal_eval(metadata["dependencies"]) == required
    assert metadata["requires-python"] == '">=3.10"'
    assert 'target-version = "py310"' in (ROOT / "pyproject.toml").read_text()
