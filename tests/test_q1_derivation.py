"""Question 1: the check at its end is silent, and sees a wrong sign in each of the results."""

import re

import pytest
import torch
from conftest import ROOT

SOURCE = (ROOT / "q1_softmax_derivation.md").read_text(encoding="utf-8")
(CHECK,) = re.findall(r"^```python\n(.*?)^```$", SOURCE, re.MULTILINE | re.DOTALL)


def test_check_is_silent(capsys):
    for seed in range(5):
        torch.manual_seed(seed)
        exec(CHECK, {})
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("part", ["(a)", "(b)", "(c)"])
def test_check_sees_a_wrong_sign(part):
    wrong = re.sub(rf"assert_close\((.*{re.escape(part)})", r"assert_close(-\1", CHECK)
    assert wrong != CHECK
    torch.manual_seed(0)
    with pytest.raises(AssertionError):
        exec(wrong, {})
