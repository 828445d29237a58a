"""Question 1: its Python block, and its three results against autograd."""

import re

import pytest
import torch
from conftest import ROOT
from torch.autograd.functional import jacobian
from torch.testing import assert_close

SOURCE = (ROOT / "q1_softmax_derivation.md").read_text(encoding="utf-8")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
(BLOCK,) = (text for language, text in FENCED.findall(SOURCE) if language == "python")


def test_block_runs_silently(capsys):
    for seed in range(5):
        torch.manual_seed(seed)
        exec(compile(BLOCK, "block", "exec"), {})
    assert capsys.readouterr() == ("", "")
    assert set(re.findall(r"^(?:from|import) (\w+)", BLOCK, re.MULTILINE)) == {"torch"}


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
