"""The packages that each script names in itself are those of requirements.txt."""

import re

import pytest
from conftest import ROOT


@pytest.mark.parametrize("script", ["q2_mlp.py", "q3_cnn.py"])
def test_script_metadata_equals_requirements(script):
    line = re.search(r"^# dependencies = \[(.*)\]$", (ROOT / script).read_text(), re.MULTILINE)
    assert re.findall(r'"([^"]+)"', line[1]) == (ROOT / "requirements.txt").read_text().split()
