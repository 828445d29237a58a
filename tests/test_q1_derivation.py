"""Question 1: its Python block, its three results against autograd, and its source on GitHub."""

import re

import pytest
import torch
from conftest import ROOT
from torch.autograd.functional import jacobian
from torch.testing import assert_close

SOURCE = (ROOT / "q1_softmax_derivation.md").read_text(encoding="utf-8")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"\$`([^`\n]+)`\$")
(BLOCK,) = (text for language, text in FENCED.findall(SOURCE) if language == "python")


def test_block_runs_silently(capsys):
    for seed in range(5):
        torch.manual_seed(seed)
        exec(compile(BLOCK, "block", "exec"), {})
    assert capsys.readouterr() == ("", "")
    assert set(re.findall(r"^(?:from|import) (\w+)", BLOCK, re.MULTILINE)) == {"torch"}


def test_block_finds_a_wrong_formula():
    for right, wrong in {
        "f - y": "y - f",
        "-y / f": "y / f",
        " - f.outer(f)": "",
        "u - f @ u": "u + f @ u",
        "f * (u": "(u",
    }.items():
        assert BLOCK.count(right) == 1
        torch.manual_seed(0)
        with pytest.raises(AssertionError, match="not close"):
            exec(compile(BLOCK.replace(right, wrong), "block", "exec"), {})


@pytest.mark.parametrize("n", [2, 10])
@pytest.mark.parametrize("kind", ["one-hot", "some entries zero"])
def test_results_against_autograd(n, kind):
    generator = torch.Generator().manual_seed(n)
    z = 3 * torch.randn(n, dtype=torch.float64, generator=generator)
    y = torch.rand(n, dtype=torch.float64, generator=generator)
    y[: n // 2] = 0
    y = torch.eye(n, dtype=torch.float64)[n // 2] if kind == "one-hot" else y / y.sum()
    f = z.exp() / z.exp().sum()

    def loss_of_f(f):
        return -torch.xlogy(y, f).sum()

    u = jacobian(loss_of_f, f)
    assert_close(-y / f, u)  # (a)
    assert_close(-y / (3 * f), jacobian(loss_of_f, 3 * f))  # where the f_i really are free
    matrix = jacobian(lambda z: z.softmax(0), z)
    assert_close(f.diag() - f.outer(f), matrix)  # (b)
    for vector in u, f**3:  # of this loss, and of any other
        assert_close(f * (vector - f @ vector), matrix.T @ vector)
    assert_close(f - y, jacobian(lambda z: torch.nn.functional.cross_entropy(z, y), z))  # (c)
    batch = jacobian(lambda Z: torch.nn.functional.cross_entropy(Z, y.expand(4, n)), z.expand(4, n))
    assert_close((f - y).expand(4, n) / 4, batch)


def test_results_stand_in_the_document():
    displayed = "".join(
        re.sub(r"[\s&]", "", t) for language, t in FENCED.findall(SOURCE) if language == "math"
    )
    for result in (
        r"\boxed{\frac{\partial\ell}{\partialf_i}=-\frac{y_i}{f_i}}",
        r"\frac{\partialf_i}{\partialz_j}=f_i(\delta_{ij}-f_j)=J_{ij}",
        r"J=\mathrm{diag}(f)-ff^\top",
        r"\boxed{f\odot\left(u-(f^\topu)\,\mathbf{1}\right)}",
        r"\boxed{\nabla_z\ell=f-y}",
        r"\nabla_ZL=\frac{1}{B}(F-Y)",
    ):
        assert result in displayed, result


def find_traps(source):
    """Return what is known to go wrong with formulas on GitHub."""
    prose = FENCED.sub("", source)
    traps = [
        f"fence: {name}" for name, _ in FENCED.findall(source) if name not in ("math", "python")
    ]
    if "```" in prose or "~~~" in prose:
        traps.append("a fence that is indented or left open")
    if "$" in INLINE.sub("", prose):
        traps.append("a $ outside $`...`$")
    if re.search(r"[\w-]\$`|`\$\w", prose):
        traps.append("a letter, digit or hyphen beside a formula: it stays text")
    for latex in [t for name, t in FENCED.findall(source) if name == "math"] + INLINE.findall(
        prose
    ):
        traps += re.findall(r"\\(?:operatorname|tag|label|eqref|newcommand|def|bm)\b", latex)
        braces = re.sub(r"\\[{}]", "", latex)
        counts = [braces.count("{") - braces.count("}")]
        counts.append(latex.count(r"\begin{") - latex.count(r"\end{"))
        counts.append(len(re.findall(r"\\left\b", latex)) - len(re.findall(r"\\right\b", latex)))
        if any(counts):
            traps.append(f"unbalanced: {latex}")
        if "\n\n" in latex or re.search(r"\S[<>]|[<>]\S|[%$`]", latex):
            traps.append(f"empty line, < or > without spaces, or one of % $ `: {latex}")
    return traps


def test_document_has_no_traps():
    assert len(FENCED.findall(SOURCE)) >= 6
    assert len(INLINE.findall(SOURCE)) >= 20
    assert find_traps(SOURCE) == []


def test_traps_are_found():
    inline = ["$$a$$", "$a_i b_i$", "the $`n`$th", "$`a\nb`$", "$`a<b`$", r"$`\frac{a}{b`$"]
    inline += [r"$`\operatorname{diag}(f)`$", r"$`\left( a )`$", "x$`n`$"]
    display = [
        "```math\na \\tag{1}\n```",
        "```latex\na\n```",
        "```math\na",
        "- ```math\n  a\n  ```",
    ]
    display += ["```math\n\\begin{aligned} a\n```", "```math\na\n\nb\n```", "```math\na % b\n```"]
    traps = [f"Before.\n\n{trap}\n\nAfter $`a`$.\n" for trap in inline + display]
    assert [trap for trap in traps if not find_traps(trap)] == []
    assert (
        find_traps("Let $`a_i > 0`$.\n\n```math\n\\left( a \\right) \\\\ \\frac{b}{c}\n```\n") == []
    )
