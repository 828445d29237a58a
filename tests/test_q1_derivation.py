"""Question 1: the document's formulas against autograd and central differences, and its source.

Each test of a formula names it as the document writes it, so that the two cannot drift apart: a
formula changed there without its test, or displayed without one, is found here.
"""

import re
from pathlib import Path

import pytest
import torch
from torch.autograd.functional import hessian, jacobian
from torch.testing import assert_close

DOCUMENT = Path(__file__).resolve().parent.parent / "q1_softmax_derivation.md"
SOURCE = DOCUMENT.read_text(encoding="utf-8")

FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"\$`([^`\n]+)`\$")


def blocks(language, source=SOURCE):
    return [text for name, text in FENCED.findall(source) if name == language]


TESTED = []


def about(*formulas):
    TESTED.extend(formulas)
    return lambda test: test


def squeeze(latex):
    """Without layout and words, which may change freely."""
    latex = re.sub(r"\\text\{[^}]*\}|\\q?quad|\\boxed|\\\\", "", latex)
    return re.sub(r"[\s&]", "", latex)


# --- the block of Python in the document ---


def run_block(source, seed=0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        exec(compile(source, str(DOCUMENT), "exec"), {})


@pytest.fixture
def block():
    (source,) = blocks("python")
    return source


def test_block_in_the_document_runs(block):
    assert "assert_close(grad_z, f - y)" in block
    assert "torch.float64" in block
    for seed in range(5):
        run_block(block, seed)


def test_block_needs_only_torch(block):
    imported = re.findall(r"^\s*(?:from|import)\s+(\w+)", block, re.MULTILINE)
    assert set(imported) == {"torch"}


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("f - y", "y - f"),
        ("-y / f", "y / f"),
        ("- f.outer(f)", "+ f.outer(f)"),
        ("u - f @ u", "u + f @ u"),
    ],
)
def test_block_finds_a_wrong_formula(block, right, wrong):
    assert block.count(right) == 1
    with pytest.raises(AssertionError):
        run_block(block.replace(right, wrong))


# --- the formulas ---


def softmax(z):
    return z.softmax(dim=0)


def loss_of_f(f, y):
    return -torch.xlogy(y, f).sum()


def loss_of_z(z, y):
    return torch.nn.functional.cross_entropy(z, y)


def central_differences(function, x, step):
    """The derivative of function at x, last axis that of x; step is one number or one per x_i."""
    steps = torch.as_tensor(step, dtype=x.dtype).expand_as(x).diag()
    columns = [(function(x + h) - function(x - h)) / (2 * h.sum()) for h in steps]
    return torch.stack(columns, dim=-1)


def assert_derivative(function, x, formula, step=1e-5):
    assert_close(formula, jacobian(function, x), rtol=1e-9, atol=1e-12)
    assert_close(formula, central_differences(function, x, step), rtol=1e-6, atol=1e-6)


def random_probabilities(n, generator):
    # Some entries exactly zero: neither one-hot nor positive everywhere.
    y = torch.rand(n, dtype=torch.float64, generator=generator)
    y[torch.randperm(n, generator=generator)[: n // 3]] = 0
    return y / y.sum()


def make_cases(scale):
    generator = torch.Generator().manual_seed(559)
    for n in (1, 2, 3, 10, 37):
        for kind in ("one-hot", "general"):
            z = scale * (2 * torch.rand(n, dtype=torch.float64, generator=generator) - 1)
            index = torch.randint(n, (), generator=generator)
            y = (
                torch.eye(n, dtype=torch.float64)[index]
                if kind == "one-hot"
                else random_probabilities(n, generator)
            )
            yield pytest.param(z, y, id=f"{kind}-n{n}-z{scale}")


MODERATE = [case for scale in (0.1, 3) for case in make_cases(scale)]
TIED = torch.tensor([[1000, 1000, -1000], [0.2, 0.3, 0.5]], dtype=torch.float64)
LARGE = [*make_cases(1000), pytest.param(*TIED, id="tied-z1000")]

# In the large cases some f_i round to zero, so that -y / f is not finite.
moderate_cases = pytest.mark.parametrize(("z", "y"), MODERATE)
all_cases = pytest.mark.parametrize(("z", "y"), MODERATE + LARGE)


@about(
    r"f_i = \frac{e^{z_i}}{S}",
    r"S = \sum_k e^{z_k}",
    r"\ell(y, f) = \sum_i y_i \log \frac{1}{f_i} = -\sum_i y_i \log f_i",
)
@moderate_cases
def test_definitions(z, y):
    f = z.exp() / z.exp().sum()
    assert_close(f, softmax(z))
    loss = (y * (1 / f).log()).sum()
    assert_close(loss, loss_of_f(f, y))
    assert_close(loss, loss_of_z(z, y))


@about(
    r"\frac{\partial \ell}{\partial f_i} = -\frac{y_i}{f_i}",
    r"\nabla_f \ell = -\left( \frac{y_1}{f_1}, \dots, \frac{y_n}{f_n} \right)^\top",
)
@moderate_cases
def test_a_gradient_with_respect_to_f(z, y):
    # 3 f does not sum to one: in (a) the f_i really are free.
    for f in (softmax(z), 3 * softmax(z)):
        assert_derivative(lambda f: loss_of_f(f, y), f, -y / f, step=1e-4 * f)


@about("-y_i/f_i + y_n/f_n")
@moderate_cases
def test_a_with_the_constraint_used_already(z, y):
    f = softmax(z)

    def loss_of_the_others(others):
        return loss_of_f(torch.cat([others, 1 - others.sum().reshape(1)]), y)

    formula = -y / f + y[-1] / f[-1]
    # The step stays small against f_n as well, which absorbs every change.
    step = 1e-4 * f.min()
    if len(f) > 1:
        assert_derivative(loss_of_the_others, f[:-1], formula[:-1], step=step)
    assert_close(f * (formula - f @ formula), f - y)


def test_a_as_an_output_tends_to_zero():
    f = torch.tensor([1e-300, 1.0, 1e-300], dtype=torch.float64)
    y = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)
    gradient = jacobian(lambda f: loss_of_f(f, y), f)
    assert loss_of_f(f, y) < 700
    assert gradient[0] < -1e299
    assert gradient[2] == 0
    f = softmax(torch.tensor([-1000.0, 1000.0, -1000.0], dtype=torch.float64))
    assert torch.equal((y / f).isfinite(), torch.tensor([False, True, False]))
    assert (y / f)[0].isinf()
    assert (y / f)[2].isnan()
    assert_close(f - y, torch.tensor([-1.0, 1.0, 0.0], dtype=torch.float64))


@about(
    r"i = j: \frac{\partial f_i}{\partial z_i}"
    r" = \frac{e^{z_i} S - e^{z_i} e^{z_i}}{S^2}"
    r" = \frac{e^{z_i}}{S} \left( 1 - \frac{e^{z_i}}{S} \right) = f_i (1 - f_i)",
    r"i \ne j: \frac{\partial f_i}{\partial z_j}"
    r" = \frac{0 \cdot S - e^{z_i} e^{z_j}}{S^2}"
    r" = -\frac{e^{z_i}}{S} \cdot \frac{e^{z_j}}{S} = -f_i f_j",
    r"\frac{\partial f_i}{\partial z_j} = f_i (\delta_{ij} - f_j) = J_{ij}",
    r"J = \mathrm{diag}(f) - f f^\top = J^\top",
)
@all_cases
def test_b_jacobian(z, y):
    f = softmax(z)
    matrix = f.diag() - f.outer(f)
    assert_derivative(softmax, z, matrix)
    assert torch.equal(matrix, matrix.T)
    delta = torch.eye(len(z), dtype=torch.float64)
    cases = torch.where(delta == 1, f * (1 - f), -f[:, None] * f)
    assert_close(cases, matrix)
    assert_close(f[:, None] * (delta - f), matrix)


@about(r"\partial S / \partial z_j = e^{z_j}")
@moderate_cases
def test_b_quotient_rule(z, y):
    e, total = z.exp(), z.exp().sum()
    assert_derivative(lambda z: z.exp().sum(), z, e)
    quotient = (e.diag() * total - e.outer(e)) / total**2
    assert_derivative(softmax, z, quotient)


@about(
    r"\frac{\partial \ell}{\partial z_j}"
    r" = \sum_i \frac{\partial \ell}{\partial f_i} \frac{\partial f_i}{\partial z_j}"
    r" = \sum_i u_i f_i (\delta_{ij} - f_j)"
    r" = f_j \left( u_j - \sum_i f_i u_i \right)",
    r"\nabla_z \ell = J^\top \nabla_f \ell = \left( \mathrm{diag}(f) - f f^\top \right) u"
    r" = \boxed{f \odot \left( u - (f^\top u)\,\mathbf{1} \right)}",
)
@moderate_cases
def test_b_from_a(z, y):
    f = softmax(z)
    u = -y / f
    delta = torch.eye(len(z), dtype=torch.float64)
    for formula in (
        torch.einsum("i,i,ij->j", u, f, delta - f),
        (f.diag() - f.outer(f)) @ u,
        f * (u - f @ u),
    ):
        assert_derivative(lambda z: loss_of_f(softmax(z), y), z, formula)


@all_cases
def test_b_for_any_loss_and_any_logits(z, y):
    # With -y / f replaced by some other u, (b) stays finite where f rounds to zero.
    u = torch.linspace(-2, 3, len(z), dtype=torch.float64) ** 3
    f = softmax(z)
    formula = f * (u - f @ u)
    assert_derivative(lambda z: u @ softmax(z), z, formula)
    shifted = u + 7
    assert_close(f * (shifted - f @ shifted), formula)


@about(
    r"\frac{\partial \ell}{\partial z_j}"
    r" = f_j \left( -\frac{y_j}{f_j} + \sum_i f_i \frac{y_i}{f_i} \right)"
    r" = -y_j + f_j \sum_i y_i \text{cancel } f_j \text{ and each } f_i"
    r" = f_j - y_j \text{because } \textstyle \sum_i y_i = 1",
    r"\nabla_z \ell = f - y",
)
@all_cases
def test_c_gradient_with_respect_to_z(z, y):
    formula = softmax(z) - y
    assert_derivative(lambda z: loss_of_z(z, y), z, formula)
    assert formula.abs().max() <= 1


@about(r"(\sum_i y_i) f - y")
@moderate_cases
def test_c_steps_and_targets_that_do_not_sum_to_one(z, y):
    f = softmax(z)
    for target in (y, 2.5 * y):
        substituted = f * (-target / f + (f * target / f).sum())
        cancelled = -target + f * target.sum()
        assert_close(substituted, cancelled)
        assert_derivative(lambda z, y=target: loss_of_f(softmax(z), y), z, cancelled)


@about(
    r"\log f_i = z_i - \log S",
    r"\ell = -\sum_i y_i (z_i - \log S) = \log \sum_k e^{z_k} - y^\top z"
    r" \text{again because } \textstyle \sum_i y_i = 1",
    r"\frac{\partial \ell}{\partial z_j} = \frac{e^{z_j}}{\sum_k e^{z_k}} - y_j = f_j - y_j",
)
@all_cases
def test_c_by_the_second_route(z, y):
    assert_close(z - z.logsumexp(0), z.log_softmax(0))
    assert_close(-(y * (z - z.logsumexp(0))).sum(), loss_of_z(z, y))
    assert_close(z.logsumexp(0) - y @ z, loss_of_z(z, y))
    assert_derivative(lambda z: z.logsumexp(0) - y @ z, z, softmax(z) - y)


# --- its consequences ---


@about(r"\mathbf{1}^\top (f - y) = \sum_i f_i - \sum_i y_i = 1 - 1 = 0")
@all_cases
def test_gradient_sums_to_zero(z, y):
    gradient = jacobian(lambda z: loss_of_z(z, y), z)
    assert_close(gradient.sum(), torch.zeros_like(gradient[0]), rtol=0, atol=1e-13)


@about(r"e^{z_i + c} / \sum_k e^{z_k + c} = f_i")
@all_cases
def test_a_constant_added_to_z_changes_nothing(z, y):
    for c in (-1000, -1, 0.5, 1000):
        assert_close(loss_of_z(z + c, y), loss_of_z(z, y), rtol=1e-11, atol=1e-11)
        shifted = jacobian(lambda z: loss_of_z(z, y), z + c)
        assert_close(shifted, softmax(z) - y, rtol=1e-11, atol=1e-11)


@about(r"v^\top J v = \sum_i f_i v_i^2 - (f^\top v)^2 = \sum_i f_i (v_i - f^\top v)^2 \ge 0")
@all_cases
def test_loss_is_convex_in_z(z, y):
    f = softmax(z)
    matrix = f.diag() - f.outer(f)
    assert_close(hessian(lambda z: loss_of_z(z, y), z), matrix)
    assert_close(
        central_differences(lambda z: softmax(z) - y, z, 1e-5), matrix, rtol=1e-6, atol=1e-6
    )
    assert torch.linalg.eigvalsh(matrix).min() > -1e-13
    v = torch.linspace(-1, 2, len(z), dtype=torch.float64) ** 3
    variance = f @ (v - f @ v) ** 2
    assert variance >= 0
    assert_close(v @ matrix @ v, variance)
    assert_close(f @ v**2 - (f @ v) ** 2, variance)


# --- what question 2 needs ---


@about(
    r"L = \frac{1}{B} \sum_{b=1}^{B} \ell \left( y^{(b)}, f^{(b)} \right)",
    r"\nabla_Z L = \frac{1}{B} (F - Y)",
)
@pytest.mark.parametrize("scale", [1, 1000])
@pytest.mark.parametrize("targets", ["indices", "probabilities"])
def test_gradient_of_the_batch_mean(targets, scale):
    generator = torch.Generator().manual_seed(6)
    B, n = 7, 10
    Z = scale * torch.randn(B, n, dtype=torch.float64, generator=generator)
    if targets == "indices":
        given = torch.randint(n, (B,), generator=generator)
        Y = torch.eye(n, dtype=torch.float64)[given]
    else:
        given = Y = torch.stack([random_probabilities(n, generator) for _ in range(B)])
    loss_fn = torch.nn.CrossEntropyLoss()
    assert_close(loss_fn(Z, given), torch.stack(list(map(loss_of_z, Z, Y))).mean())
    formula = (Z.softmax(dim=1) - Y) / B
    assert_derivative(
        lambda flat: loss_fn(flat.reshape(B, n), given), Z.flatten(), formula.flatten()
    )


@about(r"\log(1 + 9/e) \approx 1.46")
def test_softmax_taken_twice_bounds_the_loss():
    best = torch.eye(10, dtype=torch.float64)[0]
    bound = (1 + 9 / torch.tensor(1.0, dtype=torch.float64).exp()).log()
    assert round(bound.item(), 2) == 1.46
    assert_close(loss_of_z(softmax(1000 * best), best), bound)
    generator = torch.Generator().manual_seed(9)
    for _ in range(100):
        z = 10 * torch.randn(10, dtype=torch.float64, generator=generator)
        assert loss_of_z(softmax(z), best) > bound


def test_relu_on_the_logits_stops_the_gradient_of_negative_ones():
    z = torch.tensor([-3.0, -0.1, 0.1, 3.0], dtype=torch.float64)
    target = torch.tensor([1.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    gradient = jacobian(lambda z: loss_of_z(z.relu(), target), z)
    assert torch.equal(gradient != 0, z > 0)


@about(
    r"\log \sum_k e^{z_k} = m + \log \sum_k e^{z_k - m}",
    r"f_i = \frac{e^{z_i - m}}{\sum_k e^{z_k - m}}",
    r"m = \max_k z_k",
)
@all_cases
def test_log_sum_exp_with_the_maximum_taken_out(z, y):
    m = z.max()
    shifted = (z - m).exp()
    assert 1 <= shifted.sum() <= len(z)
    assert_close(m + shifted.sum().log(), z.logsumexp(0))
    assert_close(shifted / shifted.sum(), softmax(z))


@pytest.mark.parametrize(
    ("dtype", "limit"), [(torch.float32, 88.7), (torch.float64, 709.7)], ids=["single", "double"]
)
@about("z_k = 88.7", "709.7")
def test_naive_log_sum_exp_overflows_and_the_other_does_not(dtype, limit):
    exponent = torch.tensor([limit, limit + 0.1], dtype=dtype)
    assert exponent.exp().isfinite().tolist() == [True, False]

    for logit, naive in ((1000, torch.inf), (-1000, -torch.inf)):
        z = torch.tensor([logit, logit - 1], dtype=dtype)
        assert z.exp().sum().log() == naive
        m = z.max()
        stable = m + (z - m).exp().sum().log()
        assert stable.isfinite()
        assert_close(stable, z.logsumexp(0))


# --- the document as a whole ---


@pytest.mark.parametrize("formula", TESTED)
def test_tested_formula_is_in_the_document(formula):
    formulas = blocks("math") + INLINE.findall(SOURCE)
    assert any(squeeze(formula) in squeeze(text) for text in formulas)


def test_every_displayed_formula_is_tested():
    for block in blocks("math"):
        rest = squeeze(re.sub(r"\\(?:begin|end)\{aligned\}", "", block))
        for formula in sorted(map(squeeze, TESTED), key=len, reverse=True):
            rest = rest.replace(formula, "")
        assert rest.strip("{}.,") == "", f"displayed but not tested: {rest}"


# --- the source: what is known to go wrong with formulas on GitHub ---

FORBIDDEN = re.compile(
    r"\\(?:operatorname|tag|label|ref|eqref|newcommand|renewcommand|def|require|bm|mathds)\b\*?"
)


def unbalanced(latex):
    depth = 0
    for token in re.findall(r"\\.|[{}]", latex, re.DOTALL):
        depth += {"{": 1, "}": -1}.get(token, 0)
        if depth < 0:
            return True
    environments = re.findall(r"\\(begin|end)\{(\w+)\}", latex)
    opened = [name for which, name in environments if which == "begin"]
    closed = [name for which, name in environments if which == "end"]
    sides = [len(re.findall(rf"\\{side}(?![a-z])", latex)) for side in ("left", "right")]
    return depth != 0 or sorted(opened) != sorted(closed) or sides[0] != sides[1]


def find_traps(source):
    traps = []
    prose = FENCED.sub("", source)
    if "```" in prose or "~~~" in prose:
        traps.append("a fence that is indented (in a list it may not render) or left open")
    traps += [
        f"fence of {name or 'no language'}"
        for name, _ in FENCED.findall(source)
        if name not in ("math", "python")
    ]
    if "$" in INLINE.sub("", prose):
        traps.append("$$ or $ outside $`...`$: Markdown reads \\\\, _ and * in it first")
    if re.search(r"[\w-]\$`", prose):
        traps.append("a letter, digit or hyphen before $`: it stays text")
    if re.search(r"`\$\w", prose):
        traps.append("a letter or digit after `$: it stays text")
    if re.search(r"(^|\s)\*+(?=\S)[^*]*\$`[^*]*\*|\[[^]]*\$`[^]]*\]\(", prose):
        traps.append("a formula in emphasis or in a link")
    for latex in blocks("math", source) + INLINE.findall(prose):
        traps += [f"not supported: {command}" for command in FORBIDDEN.findall(latex)]
        if unbalanced(latex):
            traps.append(f"unbalanced: {latex}")
        if re.search(r"\S[<>]|[<>]\S|[%$`]", latex):
            traps.append(f"< or > without spaces, or one of % $ `: {latex}")
        if "\n\n" in latex:
            traps.append(f"empty line in a formula: {latex}")
    return traps


def test_document_has_no_traps():
    assert len(blocks("math")) >= 5
    assert len(INLINE.findall(SOURCE)) >= 20
    assert find_traps(SOURCE) == []


@pytest.mark.parametrize(
    "trap",
    [
        "$$a \\\\ b$$",
        "inline $a_i b_i$ here",
        "inline $a * b * c$ here",
        "$`a\nb`$",
        "the $`n`$th",
        "x$`n`$",
        "non-$`n`$",
        "**bold $`n`$**",
        "[link $`n`$](#n)",
        r"$`\operatorname{diag}(f)`$",
        "$`a<b`$",
        r"$`\frac{a}{b`$",
        r"$`\left( a )`$",
        "```math\na \\tag{1}\n```",
        "```math\n\\operatorname*{max}_k\n```",
        "```math\n\\begin{aligned} a\n```",
        "```math\n\\begin{aligned} a \\end{cases}\n```",
        "```math\na\n\nb\n```",
        "```math\na % b\n```",
        "```math\n\\text{$b$}\n```",
        "```math\na",
        "```math\na\n\nProse.\n\n```math\nb\n```",
        "```latex\na\n```",
        "1. item\n\n   ```math\n   a\n   ```",
        "- ```math\n  a\n  ```",
        "a\n```",
    ],
)
def test_traps_are_found(trap):
    assert find_traps(f"Before.\n\n{trap}\n\nAfter.\n")


def test_formulas_without_traps_pass():
    prose = "Let $`a_i`$, ($`b_i`$) and **bold** $`c > 0`$, **bold**."
    display = "```math\n\\left( a \\right) \\\\ b\n```"
    assert find_traps(f"{prose}\n\n{display}\n") == []
