"""A small likeness of ResNet-34, judged node by node: a right one passes, and a mistake shows in its place."""

import numpy as np
import pytest
from lockstep import end_to_end, judge, observe
from nnspec.adapters import load
from nnspec.adapters.for_numpy import NumPy
from nnspec.conformance.formats import STORED
from nnspec.reference.conv2d import conv2d
from nnspec.reference.resnet34 import ResNet34

NUMPY = NumPy()


def verdicts(network, training, dtype="float32"):
    rng = np.random.default_rng(1)
    for key, buffer in network.named_buffers():
        if "running" in key:  # a mean that leaves about half of the values positive, and a variance
            buffer.data[...] = rng.uniform(*((-0.5, 0.5) if "mean" in key else (0.5, 1.5)), buffer.data.shape)
    x = rng.standard_normal((2, 3, 40, 33)).astype(dtype)
    before = NUMPY.state(network.train(training))
    _, seen = observe(NUMPY, network, x)
    return list(judge(seen, before, NUMPY.state(network), training))


def wrong(network, training):
    return {verdict.name for verdict in verdicts(network, training) if verdict.worst > 1}


def small(dtype=np.float32):
    return ResNet34(3, 5, width=4, dtype=dtype, rng=np.random.default_rng(0))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_right_network_is_within_its_bounds(training, dtype):
    found = verdicts(small(dtype), training, dtype)
    assert len(found) == 249
    assert max(verdict.worst for verdict in found) <= 1


def test_the_network_is_as_it_was_afterwards():
    network = small()
    network.layer1.forward = own = network.layer1.forward
    verdicts(network, False)
    assert [vars(module)["forward"] for _, module in network.named_modules() if "forward" in vars(module)] == [own]


@pytest.mark.parametrize("training", [False, True])
def test_a_mistake_is_found_where_it_is(training):
    network = small()
    layer = network.layer3[4].conv2
    layer.forward = lambda x: conv2d(x, layer.weight.data[..., ::-1, :], padding=1)
    assert wrong(network, training) == {"layer3.4.conv2"}


def test_a_norm_that_stays_in_training_is_found():
    network = small()
    norm = network.layer2[0].downsample[1]
    norm.train = lambda mode=True: norm
    forward = norm.forward

    def training_forward(x):
        norm.training = True
        return forward(x)

    norm.forward = training_forward
    found = wrong(network, False)
    assert found == {"layer2.0.downsample.1" + part for part in ("", ".running_mean", ".running_var")}


def test_a_shortcut_that_is_dropped_is_found():
    network = small()
    block = network.layer1[1]
    block.forward = lambda x: np.maximum(block.bn2(block.conv2(np.maximum(block.bn1(block.conv1(x)), 0))), 0)
    assert wrong(network, False) == {"layer1.1"}


# -- PyTorch, in 16 bits too -------------------------------------------------------------------------------------------


def likeness(dtype):
    """A small ResNet-34 of torch in evaluation, and the reference's in float64 with the same weights."""
    torch = pytest.importorskip("torch")
    torch.manual_seed(0)
    subject = load("torch")
    network = subject.framework.construct(subject.classes["ResNet34"], (3, 5, 8), {}, np.dtype(dtype))
    exact = ResNet34(3, 5, width=8, dtype=np.float64)
    entries = {key: value.astype(np.float64) for key, value in subject.framework.state(network).items()}
    NUMPY.load_entries(exact, {k: v for k, v in entries.items() if "tracked" not in k})
    return subject.framework, network.eval(), exact.eval()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_every_node_has_its_class_in_16_bits(dtype, training):
    framework, network, _ = likeness(dtype)
    x = np.random.default_rng(1).standard_normal((2, 3, 40, 33)).astype(dtype)
    before = framework.state(network.train(training))
    _, seen = observe(framework, network, x)
    found = list(judge(seen, before, framework.state(network), training))
    assert len(found) == 249
    assert max(verdict.worst for verdict in found) <= 1
    assert {verdict.accuracy for verdict in found if verdict.kind == "convolution"} == {"B"}


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_end_to_end_the_scores_move_as_far_as_rounding_moves_them(dtype):
    """A figure and no verdict: so near that no layer can be wrong by much, and not nearer than rounding allows."""
    framework, network, exact = likeness(dtype)
    x = np.random.default_rng(1).standard_normal((2, 3, 40, 33)).astype(dtype)
    scores, deviation = end_to_end(exact, x.astype(np.float64), STORED[dtype].u)
    away = abs(framework.to_numpy(network(framework.to_native(x))).astype(np.float64) - scores).max()
    assert deviation / 100 < away < 6 * deviation
    assert np.array_equal(exact(x.astype(np.float64)), scores)  # nothing is left of the noise
