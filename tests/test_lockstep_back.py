"""A small likeness of ResNet-34 and its way back, node by node: a right one passes, a mistake shows in its place."""

import numpy as np
import pytest
from lockstep_back import judge_step, observe_step
from nnspec.adapters.for_numpy import NumPy
from nnspec.reference.batch_norm import batch_norm_vjp
from nnspec.reference.conv2d import conv2d_vjp
from nnspec.reference.resnet34 import ResNet34

NUMPY = NumPy()


def verdicts(network, training=True, dtype="float32"):
    rng = np.random.default_rng(1)
    for key, buffer in network.named_buffers():
        if "running" in key:  # a mean that leaves about half of the values positive, and a variance
            buffer.data[...] = rng.uniform(*((-0.5, 0.5) if "mean" in key else (0.5, 1.5)), buffer.data.shape)
    x, cotangent = (rng.standard_normal(shape).astype(dtype) for shape in ((2, 3, 40, 33), (2, 5)))
    before = NUMPY.state(network.train(training))
    step = observe_step(NUMPY, network, x, cotangent)
    return list(judge_step(step, before, NUMPY.state(network), training))


def wrong(network, training=True):
    return {verdict.name for verdict in verdicts(network, training) if verdict.worst > 1}


def small(dtype=np.float32):
    return ResNet34(3, 5, width=4, dtype=dtype, rng=np.random.default_rng(0))


def replaced(module, change):
    """The module's way back, with `change(cotangent, x, dx)` in place of the right gradient of x."""
    vjp = module.vjp

    def wrong_vjp(x):
        y, pull = vjp(x)
        return y, lambda cotangent: change(cotangent, x, pull(cotangent))

    module.vjp = wrong_vjp


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_right_network_is_within_its_bounds(training, dtype):
    found = verdicts(small(dtype), training, dtype)
    assert len(found) == 538
    assert max(verdict.worst for verdict in found) <= 1


def test_the_network_is_as_it_was_afterwards():
    network = small()
    network.layer1.vjp = own = network.layer1.vjp
    verdicts(network)
    assert [vars(module)["vjp"] for _, module in network.named_modules() if "vjp" in vars(module)] == [own]


def test_a_kernel_that_is_upside_down_on_the_way_back_is_found():
    network = small()
    layer = network.layer3[4].conv2
    replaced(layer, lambda g, x, dx: conv2d_vjp(g, x, layer.weight.data[..., ::-1, :], padding=1)[0])
    assert wrong(network) == {"layer3.4.conv2"}


def test_statistics_that_are_taken_for_constants_are_found():
    network = small()
    norm = network.layer2[0].downsample[1]

    def constant(g, x, dx):
        return batch_norm_vjp(g, x, x.mean((0, 2, 3)), x.var((0, 2, 3)), norm.weight.data, norm.bias.data)[0]

    replaced(norm, constant)
    assert wrong(network) == {"layer2.0.downsample.1"}


def test_a_shortcut_that_hands_nothing_back_is_found():
    network = small()
    replaced(network.layer4[0].downsample, lambda g, x, dx: 0 * dx)
    assert wrong(network) == {"layer4.0"}


def test_a_mask_that_is_forgotten_is_found():
    network = small()
    norm = network.layer1[2].bn1
    given = []
    replaced(network.layer1[2].conv2, lambda g, x, dx: given.append(dx) or dx)
    vjp = norm.vjp

    def unmasked(x):
        y, pull = vjp(x)
        return y, lambda cotangent: pull(given[-1])

    norm.vjp = unmasked
    assert {name for name in wrong(network) if name.startswith("layer1.2")} == {
        f"layer1.2.bn1{part}" for part in ("", ".weight", ".bias")
    }


def test_a_parameter_whose_gradient_is_left_from_before_is_found():
    network = small()
    norm = network.layer3[1].bn1

    def kept(g, x, dx):
        norm.weight.grad = norm.weight.grad + np.float32(1)
        return dx

    replaced(norm, kept)
    assert wrong(network) == {"layer3.1.bn1.weight"}
