"""Domains: what a kernel claims is judged, what it does not claim may be refused, and is never silently wrong."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import replace

import numpy as np
import pytest
from nnspec.adapters import at_least, at_most, between, block, equal_to, multiple_of, one_of
from nnspec.adapters.blame import OutOfDomain
from nnspec.adapters.conditions import DomainError
from nnspec.adapters.domains import Domain, read_domain, read_domains, read_options
from nnspec.adapters.for_reference import subject as reference_subject
from nnspec.adapters.loading import load
from nnspec.adapters.quantities import QUANTITIES
from nnspec.adapters.subject import Lacks
from nnspec.conformance import check
from nnspec.conformance.case import Case
from nnspec.conformance.checks import load_checks
from nnspec.conformance.drawing import Draw
from nnspec.conformance.faults import catalogue
from nnspec.conformance.requirements import CHECKS, requirements
from nnspec.conformance.trial.search import rows
from nnspec.conformance.trial.trial import Trial
from nnspec.reference import basic_block, mlp, module, sgd
from nnspec.reference.batch_norm import batch_norm
from nnspec.reference.conv2d import conv2d
from nnspec.reference.einsum import einsum
from nnspec.reference.linear import linear
from nnspec.reference.max_pool2d import max_pool2d
from nnspec.reference.windows import windows

KERNEL = """
    import numpy as np
    from nnspec.adapters import multiple_of
    from nnspec.reference.conv2d import conv2d as right

    DOMAIN = {
        "conv2d": {"kernel_size": (3, 3), "stride": 1, "dilation": 1, "groups": 1, "in_channels": multiple_of(16)},
    }

    def conv2d(x, weight, bias=None, *, stride=1, padding=0, dilation=1, groups=1):
        right(x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups)
        plain = stride in (1, (1, 1)) and dilation in (1, (1, 1)) and groups == 1
        if not plain or weight.shape[2:] != (3, 3) or x.shape[-3] % 16:
            raise ValueError("3 × 3, stride 1, blocks of 16 channels")
        blocks = [slice(n, n + 16) for n in range(0, x.shape[-3] // 16 * 16, 16)]  # 24 channels would lose eight
        y = sum(right(x[..., b, :, :], weight[:, b], padding=padding) for b in blocks)
        return y if bias is None else y + bias[:, None, None]
"""
HALF = """
    import torch
    from nnspec.adapters import multiple_of
    from torch.nn import functional as F

    DOMAIN = {
        "conv2d": {
            "kernel_size": 3, "stride": 2, "in_channels": multiple_of(8), "dtype": "float16", "result": "float32",
        },
    }

    def conv2d(x, weight, bias=None, *, padding=0):
        fits = x.ndim == 4 and weight.shape[2:] == (3, 3) and x.shape[1] % 8 == 0 and x.dtype == torch.float16
        if not fits or isinstance(padding, str) or (bias is not None and bias.shape != weight.shape[:1]):
            raise ValueError("a kernel for 3 × 3 in float16")
        return F.conv2d(x.float(), weight.float(), None if bias is None else bias.float(), stride=2, padding=padding)
"""
OURS = {"kernel_size": 3, "stride": 1, "in_channels": multiple_of(16)}


# -- what can be declared ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("declared", "says"),
    [
        ({"rellu": {}}, "'rellu' is no block with a domain, did you mean 'relu'"),
        ({"conv2d": {"strid": 1}}, "conv2d.strid: no such quantity, did you mean 'stride'"),
        ({"conv2d": {"stride": 0}}, "conv2d.stride = 0: expected an int or a pair (rows, columns)"),
        ({"conv2d": {"kernel_size": (3, 3, 3)}}, "expected a pair (rows, columns); for several values say one_of(…)"),
        ({"conv2d": {"bias": 3}}, "conv2d.bias = 3: expected True or False"),
        ({"conv2d": {"in_channels": []}}, "conv2d.in_channels = []: admits nothing"),
        (
            {"conv2d": {"in_channels": multiple_of(1000) & at_most(10)}},
            "multiple_of(1000) & at_most(10): admits nothing",
        ),
        ({"conv2d": {"in_channels": {"multiple_of": 1000, "at_most": 10}}}, "admits nothing"),
        ({"conv2d": {"in_channels": {"multiples": 2}}}, "'multiples' is no condition; expected some of multiple_of"),
        ({"conv2d": {"groups": equal_to("H")}}, "conv2d.groups = equal_to('H'): expected equal_to('in_channels')"),
        ({"conv2d": {"stride": equal_to("kernel_size")}}, "it can be declared equal to none"),
        ({"conv2d": {"dtype": "float8"}}, "conv2d.dtype = 'float8': expected some of float32"),
        ({"conv2d": {"result": "float32"}}, "conv2d.result = 'float32' without dtype"),
        (
            {"conv2d": {"dtype": "float32", "result": "float64"}},
            "expected 'float32', and dtype some of float16, bfloat16",
        ),
        ({"batch_norm": {"eps": between(1, 2)}}, "batch_norm.eps = between(1, 2): expected a number"),
        ({"conv2d": 1}, "conv2d: expected a mapping from quantities to conditions"),
        (["conv2d"], "expected a mapping from blocks to their domains"),
        ({"module": {"dtype": "float32"}}, "module has no domain: its requirements are about names, state and modes"),
        ({"sequential": {}}, "sequential has no domain: its requirements are about the order"),
        ({"sequential": {}}, "expected some of conv2d, conv_transpose2d, linear, relu"),
        ({"einsum": {"equation": "ij&"}}, "einsum.equation = 'ij&': expected a text, or one_of(…)"),
        ({"einsum": {"equation": multiple_of(2)}}, "einsum.equation = multiple_of(2): expected a text"),
        ({"mlp": {"hidden_features": (0, 8)}}, "mlp.hidden_features = 0: expected an int from 1 on"),
        ({"sgd": {"lr": between(1, 2)}}, "sgd.lr = between(1, 2): expected a number"),
    ],
)
def test_domain_that_is_not_allowed_says_what_is(declared, says):
    with pytest.raises(DomainError) as refused:
        read_domains(declared)
    assert says in str(refused.value)


@pytest.mark.parametrize("wrong", [lambda: multiple_of(0), lambda: at_most(-1), lambda: between(3, 2), one_of])
def test_condition_that_admits_nothing_is_refused(wrong):
    with pytest.raises(DomainError):
        wrong()


def test_file_and_json_and_options_say_the_same():
    own = {"kernel_size": (3, 3), "stride": 1, "in_channels": multiple_of(16) & at_most(512), "padding": one_of(0, 1)}
    file = read_domain("conv2d", {**own, "dtype": ("float16",), "result": "float32"})
    text = """{"conv2d": {"kernel_size": [3, 3], "stride": 1, "in_channels": {"multiple_of": 16, "at_most": 512},
        "padding": {"one_of": [0, 1]}, "dtype": "float16", "result": "float32"}}"""
    options = [
        "conv2d.kernel_size=(3, 3)", "conv2d.stride=1", "conv2d.in_channels=multiple_of(16) & at_most(512)",
        "conv2d.padding=one_of(0, 1)", "conv2d.dtype=float16", "conv2d.result=float32",
    ]  # fmt: skip
    assert str(file) == (
        "kernel_size=(3, 3), stride=1, in_channels=multiple_of(16) & at_most(512), padding=one_of(0, 1), "
        "dtype='float16', result='float32'"
    )
    for read in (json.loads(text), read_options([text]), read_options(options), {"conv2d": file.as_json()}):
        assert read_domains(read)["conv2d"] == file


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("conv2d", "expected BLOCK.QUANTITY=CONDITION, such as conv2d.stride=1"),
        ("conv2d.stride=one_of(", "expected a value or a condition, such as 3, (3, 3) or multiple_of(16)"),
        ("conv2d.stride=open('x')", "open('x'): expected a value, or a condition of multiple_of, at_most"),
        ("conv2d.stride=multiple_of(1, 2)", "multiple_of(1, 2): expected another number of arguments"),
        ("{", "expected a value or a condition"),
        ("{'conv2d': 3}", "expected an object of blocks"),
    ],
)
def test_option_that_cannot_be_read_says_what_is_expected(text, says):
    with pytest.raises(DomainError) as refused:
        read_options([text])
    assert says in str(refused.value)


def test_numbers_are_the_legal_ones_next_to_small_ones():
    own = {"in_channels": multiple_of(16) & at_most(64), "H": between(5, 7), "N": one_of(4, 8)}
    domain = read_domain("conv2d", own)
    assert domain.numbers("in_channels", (1, 2, 2, 3)) == (16, 32, 32, 48)
    assert domain.numbers("in_channels", (1, 2), times=3) == (16, 16)
    assert domain.numbers("H", (1, 2, 3, 4)) == (5, 6, 7, 5)
    assert domain.numbers("N", (1, 2, 3)) == (4, 8, 4)
    assert domain.numbers("out_channels", (1, 2, 3)) == (1, 2, 3)
    assert domain.nearest("H", 2, least=8) is None
    assert set(domain.beyond("in_channels")) >= {1, 15, 17, 24, 65}


def test_call_outside_is_told_by_its_condition():
    domain = read_domain("conv2d", {"groups": equal_to("in_channels"), "stride": (1, 2), "bias": False})
    depthwise = {"x": np.ones((1, 4, 3, 3)), "weight": np.ones((4, 1, 3, 3)), "bias": None}
    assert domain.excludes_call(depthwise, {"stride": (1, 2), "groups": 4}) is None
    grouped = {**depthwise, "weight": np.ones((4, 2, 3, 3))}
    reason = domain.excludes_call(grouped, {"stride": (1, 2), "groups": 2})
    assert reason == "outside the domain groups=equal_to('in_channels')"
    assert domain.excludes_call(depthwise, {"stride": 2, "groups": 4}) == "outside the domain stride=(1, 2)"
    assert "bias=False" in domain.excludes_call({**depthwise, "bias": np.ones(4)}, {"stride": (1, 2), "groups": 4})


def test_every_quantity_is_found_in_a_case_of_its_block():
    load_checks()
    for stem, quantities in QUANTITIES.items():
        if f"{stem}.output.size" not in CHECKS:  # a chain of blocks has the quantities of its parts
            continue
        cases = [CHECKS[f"{stem}.output.size"].drawn().make(Draw(row)) for row in rows(0, 30)]
        for name, quantity in quantities.items():
            assert any(quantity.of(case.arrays, case.arguments) is not None for case in cases) or (
                quantity.neutral is None and name == "divisor_override"
            ), f"{stem}.{name}"


# -- cases -------------------------------------------------------------------------------------------------------------


DOMAINS = [
    ("conv2d", {"kernel_size": (3, 3), "stride": 2, "in_channels": multiple_of(16), "groups": 1}),
    ("conv2d", {"groups": equal_to("in_channels"), "out_channels": equal_to("in_channels"), "padding": 1}),
    ("conv2d", {"N": 1, "H": multiple_of(8), "W": equal_to("H"), "bias": True}),
    ("conv2d", {"groups": one_of(2, 4), "in_channels": multiple_of(8), "out_channels": multiple_of(4), "dilation": 2}),
    ("conv_transpose2d", {"kernel_size": 4, "stride": 2, "padding": 1, "in_channels": multiple_of(16), "groups": 1}),
    ("conv_transpose2d", {"output_padding": 1, "stride": 2, "H": at_least(4), "out_channels": multiple_of(8)}),
    ("linear", {"in_features": multiple_of(16), "out_features": multiple_of(8), "rows": multiple_of(4), "bias": True}),
    ("linear", {"ndim": 2, "in_features": 64, "out_features": equal_to("in_features")}),
    ("relu", {"ndim": 1, "size": multiple_of(4)}),
    ("max_pool2d", {"kernel_size": 2, "stride": equal_to("kernel_size"), "padding": 0, "C": multiple_of(4)}),
    ("max_pool2d", {"kernel_size": (2, 3), "stride": (2, 1), "H": multiple_of(4)}),
    ("avg_pool2d", {"kernel_size": 3, "stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False}),
    ("global_avg_pool2d", {"H": 7, "W": 7, "C": multiple_of(8)}),
    ("batch_norm", {"training": False, "num_features": multiple_of(4), "ndim": 4, "affine": True}),
    ("batch_norm", {"training": True, "momentum": 0.1, "eps": 1e-5, "ndim": 4, "H": multiple_of(2)}),
    ("einsum", {"equation": "ij,jk->ik"}),
    ("einsum", {"equation": ["bij,bjk->bik", "bij,bkj->bik"], "axis_size": multiple_of(16)}),
    ("einsum", {"operands": 2, "axis_size": multiple_of(4)}),
    ("einsum", {"operands": at_most(2), "axis_size": between(1, 8)}),
    ("mlp", {"in_features": multiple_of(16), "hidden_features": (16, 32), "out_features": 10}),
    ("basic_block", {"in_channels": multiple_of(8), "out_channels": equal_to("in_channels"), "stride": 1}),
    ("basic_block", {"stride": 2, "H": multiple_of(4), "W": equal_to("H"), "N": multiple_of(2)}),
    ("resnet34", {"num_classes": 10, "H": multiple_of(32), "W": equal_to("H"), "training": False}),
    ("mlp", {"hidden_layers": 2, "out_features": equal_to("in_features"), "rows": multiple_of(4), "ndim": 2}),
]


@pytest.mark.parametrize(("stem", "own"), DOMAINS, ids=[f"{stem}-{n}" for n, (stem, _) in enumerate(DOMAINS)])
def test_cases_lie_in_the_domain(stem, own):
    """Most checks draw nothing outside; the others are about what the domain leaves out."""
    load_checks()
    domain, shares = read_domain(stem, own), []
    for one in (c for c in CHECKS.values() if c.stem == stem and not c.refusal):
        if any(map(domain.lacks_feature, one.needs)):
            continue
        made = one.drawn(domain=domain)
        if isinstance(made, type) or "domain" in one.needs:
            continue
        drawn = [*_drawn(made)]
        shares.append(sum(_is_inside(domain, case) for case in drawn) / 10)
    most = 0.4 if "equation" in own else 0.6  # other requirements of einsum are about other equations
    assert sum(share == 1 for share in shares) >= most * len(shares), shares


def _drawn(made):
    for row in rows(1, 10):
        with suppress(OutOfDomain, Lacks):
            yield made.make(Draw(row))


def _is_inside(domain, case):
    every = case if isinstance(case, tuple) else (case,)
    return all(domain.excludes_call(c.arrays, c.arguments) is None for c in every if isinstance(c, Case))


@pytest.mark.parametrize(("stem", "own"), DOMAINS, ids=[f"{stem}-{n}" for n, (stem, _) in enumerate(DOMAINS)])
def test_cases_outside_leave_the_domain_by_one_quantity(stem, own):
    load_checks()
    domain = read_domain(stem, own)
    drawn = [*_drawn(CHECKS[f"{stem}.domain.outside"].drawn(domain=domain))]
    outside = [case for case in drawn if not _is_inside(domain, case)]
    assert len(outside) >= 4
    for case in outside:
        values = {name: quantity.of(case.arrays, case.arguments) for name, quantity in QUANTITIES[stem].items()}
        parts = [Domain(stem, {name: condition}) for name, condition in domain.conditions.items()]
        broken = [part for part in parts if part.excludes(values)]
        assert len(broken) == 1 or any("equal_to" in str(part) for part in broken), (case, broken)


# -- kernels -----------------------------------------------------------------------------------------------------------


def test_kernel_that_refuses_what_it_does_not_claim_conforms(desk):
    done = desk.check(KERNEL, "-n", 0, "--dtype", "float32")
    assert done.code == 0, done.out
    first, musts = done.out.splitlines()[0], done.report["musts"]
    assert f"{musts['out of domain']} out of domain) within the domain of conv2d: kernel_size=(3, 3), stride=1" in first
    assert done.verdicts("out of domain") == {
        "conv2d.stride.step", "conv2d.dilation.gap", "conv2d.groups.block-diagonal", "conv2d.special.groups"
    }  # fmt: skip
    assert "outside the domain groups=1: conv2d.groups.block-diagonal, conv2d.special.groups" in done.out
    assert done.report["domains"]["conv2d"].endswith("in_channels=multiple_of(16)")
    cases = {r["requirement"]: r["cases"] for r in done.report["results"]}
    assert cases["conv2d.output.value"] == cases["conv2d.domain.outside"] == 20
    assert not any(r["verdict"] == "unsupported" and ".stride." in r["requirement"] for r in done.report["results"])


def test_options_declare_what_a_file_does_not(desk):
    text = KERNEL.replace("DOMAIN", "CLAIMS")
    desk.write("layers.py", text)
    conditions = ("kernel_size=3", "stride=1", "dilation=1", "groups=1", "in_channels=multiple_of(16)")
    options = [part for one in conditions for part in ("--domain", f"conv2d.{one}")]
    done = desk.check(text, "-n", 0, "--dtype", "float32", *options)
    assert done.code == 0, done.out
    assert len(done.verdicts("out of domain")) == 4


def test_kernel_that_returns_garbage_outside_fails(desk):
    done = desk.check(KERNEL.replace("or x.shape[-3] % 16:", "or x.shape[-3] < 16:"), "-n", 0, "--dtype", "float32")
    assert done.code == 1
    assert done.verdicts("fail") == {"conv2d.domain.outside"}
    assert "the call is outside the domain in_channels=multiple_of(16)" in done.out


def test_half_precision_kernel_with_a_stride_in_its_code(desk):
    pytest.importorskip("torch")
    done = desk.check(HALF, "-n", 0)
    assert done.code == 0, done.out
    assert {r["dtype"] for r in done.report["results"]} == {"float16"}
    verdicts = {r["requirement"]: r["verdict"] for r in done.report["results"]}
    assert verdicts["conv2d.stride.step"] == verdicts["conv2d.gradient.x"] == "pass"
    assert verdicts["conv2d.refuses.stride"] == "out of domain"


@pytest.mark.parametrize(
    ("sums", "identifier"),
    [
        (lambda x, w: conv2d(x, w, stride=2), "conv2d.output.dtype"),
        (
            lambda x, w: conv2d(x.astype("float32"), w.astype("float32"), stride=2).astype("float16"),
            "conv2d.output.dtype",
        ),
        (lambda x, w: _added_up(x, w, np.float16), "conv2d.output.value"),
        (lambda x, w: _added_up(x, w, np.float32), None),
    ],
)
def test_results_in_float32_of_sums_in_float16_fail(sums, identifier):
    """The dtype of results is that of their sums: class L, which 16-bit results may be in, is not accepted."""
    load_checks()
    own = {"kernel_size": 3, "stride": 2, "in_channels": multiple_of(8), "dtype": "float16", "result": "float32"}
    names = {"conv2d": lambda x, weight: sums(x, weight), "DOMAIN": {"conv2d": own}}
    trial = Trial(load(names).within("conv2d"), "function", "float16")
    found = {name: trial.run(CHECKS[name]).verdict for name in ("conv2d.output.dtype", "conv2d.output.value")}
    assert [name for name, verdict in found.items() if verdict != "pass"][:1] == [identifier][: identifier is not None]


def _added_up(x, weight, dtype):
    """A convolution of stride 2 whose terms are added up in a dtype, as float32."""
    view = windows(x, weight.shape[2:], (2, 2), (1, 1))  # (N, C, KH, KW, OH, OW)
    y = np.zeros((len(x), len(weight), *view.shape[4:]), dtype)
    for c, i, j in np.ndindex(*weight.shape[1:]):
        y += view[:, None, c, i, j].astype(dtype) * weight[:, c, i, j, None, None].astype(dtype)
    return y.astype(np.float32)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--domain", "conv2d.in_channels=multiple_of(1000) & at_most(10)"), "admits nothing"),
        (("--domain", "conv2d.in_channels=16", "--domain", "conv2d.groups=3"), "no case of conv2d can be drawn within"),
        (("--domain", "linear.bias=True"), "linear: layers.py has no such block"),
        (("--domain", "conv2d.stride"), "expected BLOCK.QUANTITY=CONDITION"),
    ],
)
def test_domain_that_admits_nothing_is_misuse(desk, options, says):
    done = desk.check(KERNEL, "-n", 0, *options)
    assert done.code == 2
    assert says in done.err


def test_declaration_in_a_file_that_admits_nothing_is_misuse(desk):
    done = desk.check(KERNEL.replace('"stride": 1', '"stride": 0'), "-n", 0)
    assert done.code == 2
    assert done.err.startswith("nnspec: layers.py: DOMAIN: conv2d.stride = 0: expected an int or a pair")


def test_each_block_is_judged_within_its_domain():
    def training_alone(x, running_mean, running_var, weight=None, bias=None, *, momentum=0.1, eps=1e-5):
        if x.shape[1] % 4:
            raise ValueError("blocks of four channels")
        return batch_norm(x, running_mean, running_var, weight, bias, training=True, momentum=momentum, eps=eps)

    def pool(x, *, kernel_size, ceil_mode=False):
        if kernel_size not in (2, (2, 2)):
            raise ValueError("2 × 2")
        return max_pool2d(x, kernel_size=2, stride=2, ceil_mode=ceil_mode)

    def rows_of_16(x, weight, bias=None):
        if x.shape[-1] % 16 or x.ndim != 2:
            raise ValueError("blocks of 16 features")
        return linear(x, weight, bias)

    kernels = {
        "linear": (rows_of_16, {"in_features": multiple_of(16), "ndim": 2}),
        "max_pool2d": (pool, {"kernel_size": 2, "stride": 2, "padding": 0, "dilation": 1}),
        "batch_norm": (training_alone, {"training": True, "num_features": multiple_of(4)}),
    }
    for stem, (kernel, own) in kernels.items():
        report = check({stem: kernel, "DOMAIN": {stem: own}}, block=stem, dtype="float32")
        broken = {r["requirement"] for r in report["results"] if r["verdict"] == "fail" and r["level"] == "must"}
        assert broken <= {f"{stem}.refuses.{name}" for name in ("features", "bias", "rank")}, (stem, broken)
        assert not report["musts"]["not judged"], (stem, report["musts"])
        values = next(r for r in report["results"] if r["requirement"] == f"{stem}.arguments.together")
        assert (values["verdict"], values["cases"] >= 10) == ("pass", True), values


class Linear:
    """A layer for blocks of eight features, whose entries have other names than the page's."""

    def __init__(self, in_features, out_features, bias=True):
        if in_features % 8 or out_features < 1:
            raise ValueError("blocks of eight features")
        self.kernel = np.ones((out_features, in_features), np.float32)
        self.shift = np.zeros(out_features, np.float32) if bias else None

    def __call__(self, x):
        return linear(x, self.kernel, self.shift)


def test_class_is_built_within_its_domain():
    report = check({"Linear": Linear, "DOMAIN": {"linear": {"in_features": multiple_of(8)}}}, dtype="float32")
    assert not report["musts"]["not judged"]
    verdicts = {r["requirement"]: r["verdict"] for r in report["results"]}
    assert verdicts["linear.arguments.together"] == verdicts["linear.domain.outside"] == "pass"


def test_kernel_that_cannot_be_called_within_its_domain_is_one_finding():
    def relu(x):
        raise ValueError("never")

    report = check({"relu": relu, "DOMAIN": {"relu": {"size": multiple_of(4)}}}, dtype="float32")
    [failure] = [r["failure"] for r in report["results"] if r["verdict"] == "fail"]
    assert failure["message"].startswith("relu cannot be called as relu(x): it raises ValueError: never")
    assert np.size(failure["case"]["arrays"]["x"]["values"]) % 4 == 0


def test_block_decorator_and_python_declare_a_domain():
    @block("conv2d", domain={"stride": 2, "kernel_size": 3})
    def strided(x, weight, bias=None):
        return conv2d(x, weight, bias, stride=2)

    loaded = load({"anything": strided})
    assert str(loaded.domain("conv2d")) == "stride=2, kernel_size=3"
    with pytest.raises(ValueError, match=r"domain linear: .* has no such block"):
        check(strided, domain={"linear": {"bias": True}})
    with pytest.raises(ValueError, match=r"conv2d\.stride = 0"):
        block("conv2d", domain={"stride": 0})


def test_requirement_without_a_domain_is_not_asked_of_anyone():
    report = check(lambda x: np.maximum(x, 0), block="relu", dtype="float32")
    assert "relu.domain.outside" in requirements()
    assert "relu.domain.outside" not in {r["requirement"] for r in report["results"]}
    assert report["domains"] == {}
    assert report["musts"]["out of domain"] == 0


# -- blocks of other blocks, equations and optimisers ------------------------------------------------------------------


def _matrices(equation, a, b):
    """A product of two matrices in blocks of four rows."""
    if equation != "ij,jk->ik":
        raise ValueError("ij,jk->ik alone")
    blocks = [einsum(equation, a[n : n + 4], b) for n in range(0, max(1, len(a)), 4)]
    return np.concatenate(blocks)


class Perceptron(mlp.MLP):
    """A network of one hidden layer in blocks of eight."""

    def __init__(self, in_features, hidden_features, out_features, dtype=np.float32):
        if not isinstance(hidden_features, int) or hidden_features % 8 or hidden_features < 0:
            raise ValueError("one hidden layer in blocks of eight")
        super().__init__(in_features, hidden_features, out_features, dtype=dtype)


class Strided(basic_block.ResidualBlock):
    """A block of stride 2, which is in its code."""

    def __init__(self, in_channels, out_channels, *, dtype=np.float32):
        super().__init__(in_channels, out_channels, 2, dtype=dtype)


class Vectorised(sgd.SGD):
    """An optimiser of momentum 0.9, which is in its code, of parameters of four elements, eight, …"""

    def __init__(self, params, lr, weight_decay=0.0):
        super().__init__(params, lr, 0.9, weight_decay)
        if any(p.data.size % 4 for p in self.params):
            raise ValueError("blocks of four elements")


OTHERS = {
    "einsum": ({"einsum": _matrices}, {"equation": "ij,jk->ik"}),
    "mlp": ({"MLP": Perceptron}, {"hidden_features": multiple_of(8), "hidden_layers": 1}),
    "basic_block": ({"ResidualBlock": Strided}, {"stride": 2, "in_channels": multiple_of(2)}),
    "sgd": ({"SGD": Vectorised, "Parameter": module.Parameter}, {"momentum": 0.9, "elements": multiple_of(4)}),
}


@pytest.mark.parametrize("stem", OTHERS)
def test_kernel_of_another_block_conforms_in_its_domain(stem):
    names, own = OTHERS[stem]
    report = check({**names, "DOMAIN": {stem: own}}, block=stem, dtype="float32")
    broken = {r["requirement"]: r["failure"]["message"] for r in report["results"] if r["verdict"] == "fail"}
    assert not broken, broken
    verdicts = {r["requirement"]: r["verdict"] for r in report["results"]}
    assert verdicts["basic_block.stride.once" if stem == "basic_block" else f"{stem}.arguments.together"] == "pass"
    assert verdicts[f"{stem}.domain.outside"] == "pass"
    assert report["musts"]["judged"] > report["musts"]["out of domain"], report["musts"]


@pytest.mark.parametrize("stem", OTHERS)
def test_domain_outside_of_another_block_is_refused_right_or_fails(stem):
    """The fault of the catalogue is wrong outside; the reference is right there; the kernel above refuses."""
    load_checks()
    outside, (names, own) = CHECKS[f"{stem}.domain.outside"], OTHERS[stem]
    wrong = [fault.subject() for key, fault in catalogue().items() if key.startswith(f"{stem}.domain.outside/")]
    assert wrong
    form = "function" if stem == "einsum" else "class"
    for subject in wrong:
        found = Trial(subject, form, "float32").run(outside)
        assert found.verdict == "fail", subject.name
        assert "outside the domain" in found.failure.message
        right = replace(reference_subject(), domains=subject.domains)
        assert Trial(right, form, "float32").run(outside).verdict == "pass"
    assert Trial(load({**names, "DOMAIN": {stem: own}}), form, "float32").run(outside).verdict == "pass"


def test_network_is_judged_with_the_sizes_of_its_domain():
    load_checks()
    domain = read_domain("resnet34", {"num_classes": 10, "in_channels": 1, "H": multiple_of(32), "W": equal_to("H")})
    for name in ("blocks.value", "scores.linear", "gradient.value", "num-classes.respected", "stages.channels"):
        for case in _drawn(CHECKS[f"resnet34.{name}"].drawn(domain=domain)):
            assert domain.excludes_call(case.arrays, case.arguments) is None
    right = replace(reference_subject(), domains={"resnet34": domain})
    trial = Trial(right, "class", "float32")
    for name in ("scores.linear", "stages.channels", "output.size"):
        assert trial.run(CHECKS[f"resnet34.{name}"]).verdict == "pass", name
    assert trial.run(CHECKS["resnet34.defaults.sizes"]).verdict == "out of domain"


@pytest.mark.parametrize("declared", ['{"module": {"dtype": "float32"}}', '{"sequential": {"size": 4}}'])
def test_domain_without_a_meaning_is_misuse(desk, declared):
    done = desk.check(f"DOMAIN = {declared}\ndef relu(x):\n    return x.clip(0)", "-n", 0)
    assert done.code == 2
    assert "has no domain: its requirements are about" in done.err
    assert "expected some of conv2d" in done.err
