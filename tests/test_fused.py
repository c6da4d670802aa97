"""Fused kernels, which are judged as a chain of blocks."""

from __future__ import annotations

import pytest
from nnspec.adapters import SubjectError, load
from nnspec.adapters.chains import bound, stages
from nnspec.conformance.checks import load_checks
from nnspec.conformance.report.diagnosis import causes
from nnspec.conformance.requirements import CHECKS
from nnspec.conformance.trial.trial import Trial

load_checks()

CHAIN = "conv2d | batch_norm | relu"
KERNELS = """
import numpy as np
from nnspec.reference.conv2d import conv2d


def fold(weight, bias, mean, var, gamma, beta, eps):
    scale = gamma / np.sqrt(var + np.asarray(eps, var.dtype))
    return weight * scale[:, None, None, None], ((0 if bias is None else bias) - mean) * scale + beta


def folded(x, weight, bias, running_mean, running_var, gamma, beta, *, stride=1, padding=0, eps=1e-5):
    weight, bias = fold(weight, bias, running_mean, running_var, gamma, beta, eps)
    return np.maximum(conv2d(x, weight, bias, stride=stride, padding=padding), 0)


def unscaled(x, weight, bias, running_mean, running_var, gamma, beta, *, stride=1, padding=0, eps=1e-5):
    scaled, shift = fold(weight, None, running_mean, running_var, gamma, beta, eps)
    shift = shift if bias is None else shift + bias
    return np.maximum(conv2d(x, scaled, shift, stride=stride, padding=padding), 0)


def linear_out(x, weight, bias, running_mean, running_var, gamma, beta):
    return conv2d(x, *fold(weight, bias, running_mean, running_var, gamma, beta, 1e-5))


def half(x, weight):
    return np.maximum(x @ weight.T, 0)


def half_vjp(g, x, weight):
    g = np.where(x @ weight.T > 0, g, 0)
    return g @ weight, g.T @ x
"""


@pytest.fixture
def kernels(tmp_path):
    path = tmp_path / "kernels.py"
    path.write_text(KERNELS)
    return path


def outcome(path, name: str, chain: str, requirement: str):
    subject = load(f"{path}:{name} --as {chain}").within("fused")
    check = CHECKS[f"fused.{requirement}"]
    return check, Trial(subject, "function", "float32").run(check)


@pytest.mark.parametrize("requirement", ["output.value", "batch.independent", "special.value", "input.unchanged"])
def test_a_norm_may_be_folded_into_the_convolution(kernels, requirement):
    assert outcome(kernels, "folded", CHAIN, requirement)[1].verdict == "pass"


@pytest.mark.parametrize(
    ("name", "cause"),
    [
        ("unscaled", "fused.output.value/bias-not-folded"),
        ("linear_out", "fused.output.value/relu-left-out"),
    ],
)
def test_the_cause_says_which_step_is_wrong(kernels, name, cause):
    check, found = outcome(kernels, name, CHAIN, "output.value")
    assert found.verdict == "fail"
    assert causes(check, found)[0].fault == cause


def test_another_order_of_blocks_is_another_chain(kernels):
    assert outcome(kernels, "folded", "conv2d | relu | batch_norm", "output.value")[1].verdict == "fail"


def test_a_vjp_beside_the_kernel_gives_its_gradients(kernels):
    assert outcome(kernels, "half", "linear | relu", "gradient.value")[1].verdict == "pass"
    assert "vjp" in load(f"{kernels}:folded --as {CHAIN}").lacks("fused", "function")


def test_what_a_kernel_does_not_take_is_absent_or_at_its_default(kernels):
    conditions = load(f"{kernels}:folded --as {CHAIN}").domain("fused").conditions
    assert {name: str(one) for name, one in conditions.items()} == {
        "chain": f"'{CHAIN}'", "conv2d_dilation": "1", "conv2d_groups": "1",
    }  # fmt: skip
    assert str(load(f"{kernels}:half --as linear | relu").domain("fused").conditions["linear_bias"]) == "False"


def test_operands_go_by_the_names_of_the_chain_of_the_blocks_and_by_position():
    def of_chain(x, conv2d_weight, batch_norm_weight, batch_norm_bias, running_mean, running_var, eps): ...

    def by_position(image, kernel, shift, mean, var, times, plus, /, *, conv2d_stride=1): ...

    own = bound(of_chain, CHAIN)
    assert own.operands["batch_norm_running_var"] == "running_var"
    assert "conv2d_bias" not in own.operands
    assert own.arguments == {"batch_norm_eps": "eps"}
    places = {"x": 0, "conv2d_weight": 1, "conv2d_bias": 2, "batch_norm_running_mean": 3, "batch_norm_running_var": 4}
    assert bound(by_position, CHAIN).operands.items() >= places.items()
    assert [stage.name for stage in stages("conv2d | relu | conv2d")] == ["conv2d", "relu", "conv2d2"]


@pytest.mark.parametrize(
    ("chain", "says"),
    [
        ("conv2d | softmax", "'softmax' is no block of a chain"),
        ("conv2d |", "'' is no block of a chain"),
        ("global_avg_pool2d | conv2d", "conv2d takes images"),
    ],
)
def test_a_chain_that_makes_no_sense_gets_a_sentence(kernels, chain, says):
    with pytest.raises(SubjectError, match=says):
        load(f"{kernels}:folded --as {chain}")


def test_a_command_judges_a_fused_kernel(desk):
    desk.write("kernels.py", KERNELS)
    done = desk.nnspec("check", "kernels.py:unscaled", "--as", CHAIN, "--dtype", "float32", "-n", 0)
    assert done.code == 1, done.out + done.err
    assert "fused.output.value" in done.verdicts("fail")
    assert "the bias of the layer before the norm is not folded" in done.out
    script = desk.run("nnspec-report/fused_output_value_function_float32.py")
    assert script.code == 1, script.err
    assert "differs from what the specification says" in script.err
    done = desk.nnspec("check", "kernels.py:folded", "--as", CHAIN, "--dtype", "float32", "-n", 0)
    assert done.code == 0, done.out + done.err
    assert "fused.output.value" in done.verdicts("pass")
