"""Each script names for pip and uv the packages of requirements.txt."""

import ast
import re

import pytest
from conftest import ROOT


@pytest.mark.parametrize("script", ["q2_mlp.py", "q3_cnn.py"])
def test_packages_are_those_of_requirements(script):
    source = (ROOT / script).read_text(encoding="utf-8")
    required = (ROOT / "requirements.txt").read_text().splitlines()
    required_names = [re.match(r"\w+", line)[0] for line in required]
    # The line for whoever has the script alone.
    (line,) = re.findall(r"^    pip install (.*)$", source, re.MULTILINE)
    assert re.findall(r"(?<![\w.])[a-z]+", line) == required_names
    # The inline metadata (PEP 723) for uv.
    (block,) = re.findall(r"^# /// script\n((?:#.*\n)+?)# ///$", source, re.MULTILINE)
    metadata = dict(line[2:].split(" = ", 1) for line in block.splitlines())
    assert ast.literal_eval(metadata["dependencies"]) == required
    assert metadata["requires-python"] == '">=3.10"'
    assert 'target-version = "py310"' in (ROOT / "pyproject.toml").read_text()
