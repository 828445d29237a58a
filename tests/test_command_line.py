"""A wrong command line: which flag and what is allowed, exit code 2, and nothing is trained."""

import pytest
from conftest import complaint, run_script, write_mnist

import q2_mlp
import q3_cnn

WHOLE = "is not a whole number from"
ABOVE = "is not a number above 0, at most 1e38"
AMOUNT = "is not a number from 0 to 1e38"
SHARE = "is not a number from 0 to below 1"

BOTH = {
    "--epochs 0": f"--epochs: '0' {WHOLE} 1",
    "--epochs -1": f"--epochs: '-1' {WHOLE} 1",
    "--epochs 1.5": f"--epochs: '1.5' {WHOLE} 1",
    "--epochs many": f"--epochs: 'many' {WHOLE} 1",
    "--batch-size 0": f"--batch-size: '0' {WHOLE} 1",
    "--batch-size 601": "--batch-size: there are only 600 training images",
    "--lr 0": f"--lr: '0' {ABOVE}",
    "--lr -1": f"--lr: '-1' {ABOVE}",
    "--lr nan": f"--lr: 'nan' {ABOVE}",
    "--lr inf": f"--lr: 'inf' {ABOVE}",
    "--lr 1e39": f"--lr: '1e39' {ABOVE}",  # infinite in single precision
    "--seeds": "--seeds: expected at least one argument",
    "--seeds 1 0 1": "--seeds: every seed may stand there once",
    "--seeds 0 -1": f"--seeds: '-1' {WHOLE} 0 to 2**63 - 1",
    "--seeds 0,1": f"--seeds: '0,1' {WHOLE} 0 to 2**63 - 1",
    f"--seeds {2**63}": f"--seeds: '{2**63}' {WHOLE} 0 to 2**63 - 1",
    "--device cuda": "--device: 'cuda' is not one of auto, cpu",
    "--device banana": "--device: 'banana' is not one of auto, cpu",
    "--batchsize 64": "unrecognized arguments: --batchsize 64",
}
ONLY_Q2 = {
    "--dropout 0.5": "unrecognized arguments: --dropout 0.5",
    "--variant base": "unrecognized arguments: --variant base",
}
ONLY_Q3 = {
    "--variant best": "--variant: invalid choice: 'best'",
    "--dropout 1.5": f"--dropout: '1.5' {SHARE}",
    "--dropout nan": f"--dropout: 'nan' {SHARE}",
    "--dropout -0.5": f"--dropout: '-0.5' {SHARE}",
    "--weight-decay -1": f"--weight-decay: '-1' {AMOUNT}",
    "--weight-decay nan": f"--weight-decay: 'nan' {AMOUNT}",
    "--weight-decay 1e39": f"--weight-decay: '1e39' {AMOUNT}",
    "--momentum 1": f"--momentum: '1' {SHARE}",
    "--label-smoothing 1": f"--label-smoothing: '1' {SHARE}",
    "--affine -1": "--affine: '-1' is not a number from 0 to below 10",
    "--affine 10": "--affine: '10' is not a number from 0 to below 10",  # zooms to nothing
    # A flag that the variant has no use for: who has it.
    "--variant base --dropout 0.5": "--dropout: not for variant base, only for reg and bn",
    "--variant base --weight-decay 0": "--weight-decay: not for variant base, only for reg and bn",
    "--variant reg --momentum 0.9": "--momentum: not for variant reg, only for bn",
    "--dropout 0.5": "--dropout: not for variant base, only for reg and bn",
    # Batch norm takes the variance over the batch.
    "--variant bn --batch-size 1": "--batch-size: leaves 1 image for the last batch",
    "--variant bn --batch-size 599": "--batch-size: leaves 1 image for the last batch",
    "--batch-size 599": "--batch-size: leaves 1 image for the last batch",
}
CASES = [("q2_mlp.py", *case) for case in (BOTH | ONLY_Q2).items()]
CASES += [("q3_cnn.py", *case) for case in (BOTH | ONLY_Q3).items()]


@pytest.mark.parametrize(("script", "flags", "message"), CASES)
def test_wrong_flag(run_forked, small_mnist, tmp_path, script, flags, message):
    folders = ["--data-dir", small_mnist, "--plots-dir", tmp_path]
    result = run_forked(script, *folders, *flags.split(), CUDA_VISIBLE_DEVICES="")
    assert message in complaint(result, code=2)
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_wrong_flag_in_a_process_of_its_own(tmp_path):
    result = run_script("q2_mlp.py", "--epochs", 0, "--plots-dir", tmp_path)
    assert BOTH["--epochs 0"] in complaint(result, code=2)


def test_batch_size_larger_than_what_validate_leaves(run_forked, tmp_path):
    folders = ["--data-dir", write_mnist(tmp_path, train=10_300), "--plots-dir", tmp_path]
    result = run_forked("q2_mlp.py", *folders, "--validate", "--batch-size", 301)
    assert "--batch-size: there are only 300 training images" in complaint(result, code=2)


def test_validate_with_too_few_images(run_forked, small_mnist, tmp_path):
    folders = ["--data-dir", small_mnist, "--plots-dir", tmp_path]
    result = run_forked("q2_mlp.py", *folders, "--validate")
    assert complaint(result) == f"--validate needs more than the 600 images in {small_mnist}."


@pytest.mark.parametrize("script", ["q2_mlp.py", "q3_cnn.py"])
def test_help_tells_each_default(run_forked, tmp_path, script):
    result = run_forked(script, "--help", "--plots-dir", tmp_path / "plots")
    assert (result.returncode, result.stderr) == (0, "")
    if script == "q2_mlp.py":
        defaults = {key: f"{value})" for key, value in q2_mlp.HYPERPARAMETERS.items()}
    else:
        defaults = {"variant": "all)"}
        for key in q3_cnn.FLAGS:
            users = [name for name, row in q3_cnn.HYPERPARAMETERS.items() if key in row]
            values = [f"{q3_cnn.HYPERPARAMETERS[name][key]} ({name})" for name in users]
            defaults[key] = ", ".join(values) + ")"
    defaults |= {"seeds": "0)", "device": "auto", "data-dir": "data ", "plots-dir": "plots "}
    text = " ".join(result.stdout.split("options:")[1].split())
    descriptions = {part.split()[0]: part for part in text.split(" --")}
    for key, default in defaults.items():
        assert f"(default: {default}" in descriptions[key.replace("_", "-")]
    assert list(tmp_path.iterdir()) == []
