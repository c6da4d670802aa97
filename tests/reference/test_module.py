"""The reference's tree of modules against a tree written down as a dict, and against torch where it is installed."""

import copy
from functools import partial

import numpy as np
import pytest
from nnspec.reference.module import Buffer, Module, Parameter


class Reference:
    Module, Parameter, missing_key, wrong_shape = Module, Parameter, KeyError, ValueError

    @staticmethod
    def array(values):
        return np.array(values)

    @staticmethod
    def values(data):
        return np.array(getattr(data, "data", data))


class Torch:
    def __init__(self):
        torch = pytest.importorskip("torch")
        self.Module, self.array = torch.nn.Module, partial(torch.tensor, dtype=torch.float64)
        self.missing_key = self.wrong_shape = RuntimeError
        self.Parameter = torch.nn.Parameter

    @staticmethod
    def values(data):
        return data.detach().numpy()


@pytest.fixture(params=[Reference, Torch], ids=["reference", "torch"])
def lib(request):
    return request.param()


def random_tree(lib, rng, depth=0, shared=None):
    """A module, and its state as {key: values}, kept beside it; some parameters and modules are shared."""
    module, state, shared = lib.Module(), {}, [] if shared is None else shared
    for name in rng.permutation(["a", "b", "aa", "weight"])[: rng.integers(1, 5)]:
        kind = rng.integers(0, 4 if depth < 3 else 3)
        values = rng.integers(-9, 10, tuple(rng.integers(0, 3, rng.integers(0, 3)))).astype(float)
        if kind == 3:
            entry, below = random_tree(lib, rng, depth + 1, shared)
            if rng.random() < 0.5:
                shared.append((entry, below))
        elif shared and rng.random() < 0.5:
            entry, below = shared[rng.integers(len(shared))]
        elif kind == 2:
            persistent = bool(rng.integers(2))
            module.register_buffer(str(name), lib.array(values), persistent=persistent)
            state.update({str(name): values} if persistent else {})
            continue
        else:
            entry, below = lib.Parameter(lib.array(values)), {"": values}
            shared.append((entry, below))
        setattr(module, str(name), entry)
        state.update({f"{name}.{key}".rstrip("."): v for key, v in below.items()})
    return module, state


def assert_state(lib, module, expected):
    state = module.state_dict()
    assert sorted(state) == sorted(expected)
    for key, values in expected.items():
        np.testing.assert_array_equal(lib.values(state[key]), values)


@pytest.mark.parametrize("seed", range(40))
def test_state_is_that_of_the_tree(lib, seed):
    module, expected = random_tree(lib, np.random.default_rng(seed))
    assert_state(lib, module, expected)
    parameters, buffers = list(module.parameters()), [b for _, b in module.named_buffers()]
    assert len({id(p) for p in parameters}) == len(parameters)
    assert all(isinstance(p, lib.Parameter) for p in parameters)
    assert {id(p) for p in parameters}.isdisjoint(map(id, buffers))
    modules = [m for _, m in module.named_modules()]
    assert modules[0] is module
    assert len({id(m) for m in modules}) == len(modules)


@pytest.mark.parametrize("seed", range(20))
def test_copy_is_equal_independent_and_as_tied(lib, seed):
    module, expected = random_tree(lib, np.random.default_rng(seed))
    copied = copy.deepcopy(module)
    copied.load_state_dict({key: lib.array(values + 1) for key, values in expected.items()})
    assert_state(lib, module, expected)
    assert_state(lib, copied, {key: values + 1 for key, values in expected.items()})
    for walk in ("named_parameters", "named_buffers", "named_modules"):
        assert [k for k, _ in getattr(copied, walk)()] == [k for k, _ in getattr(module, walk)()]


@pytest.mark.parametrize("seed", range(20))
def test_mode_reaches_what_is_below(lib, seed):
    rng = np.random.default_rng(seed)
    module, _ = random_tree(lib, rng)
    modules = [m for _, m in module.named_modules()]
    assert all(m.training is True for m in modules)
    chosen = modules[rng.integers(len(modules))]
    assert chosen.eval() is chosen
    below = {id(m) for _, m in chosen.named_modules()}
    assert all(m.training is (id(m) not in below) for m in modules)
    assert [m.training for _, m in copy.deepcopy(module).named_modules()] == [m.training for m in modules]
    assert module.train() is module
    assert all(m.training is True for m in modules)


@pytest.fixture
def net(lib):
    net = lib.Module()
    net.weight, net.body = lib.Parameter(lib.array([1.0, 2.0])), lib.Module()
    net.body.bias = lib.Parameter(lib.array([[3.0, 4.0]]))
    net.body.register_buffer("mean", lib.array([5.0]))
    return net


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("key", ["head", "weight.foo", "body", "body.bias.foo", "body.", "training", "weigh"])
def test_unexpected_keys(lib, net, strict, key):
    state = {**copy.deepcopy(net.state_dict()), "weight": lib.array([7.0, 7.0]), key: lib.array([1.0])}
    if strict:
        with pytest.raises(lib.missing_key):
            net.load_state_dict(state)
    else:
        net.load_state_dict(state, strict=False)
        assert_state(lib, net, {"weight": [7, 7], "body.bias": [[3, 4]], "body.mean": [5]})


@pytest.mark.parametrize("missing", ["weight", "body.bias", "body.mean"])
def test_missing_keys(lib, net, missing):
    expected = {"weight": np.zeros(2), "body.bias": np.zeros((1, 2)), "body.mean": np.zeros(1)}
    state = {key: lib.array(values) for key, values in expected.items() if key != missing}
    before = lib.values(net.state_dict()[missing]).copy()
    with pytest.raises(lib.missing_key):
        net.load_state_dict(state)
    net.load_state_dict(state, strict=False)
    assert_state(lib, net, {**expected, missing: before})


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("shape", [(1,), (), (3,), (1, 2), (2, 1), (0,)])
def test_misshapen_arrays(lib, net, strict, shape):
    state = {**copy.deepcopy(net.state_dict()), "weight": lib.array(np.ones(shape))}
    with pytest.raises(lib.wrong_shape):
        net.load_state_dict(state, strict=strict)
    assert_state(lib, net, {"weight": [1, 2], "body.bias": [[3, 4]], "body.mean": [5]})


def test_loading_copies_in_place(lib, net):
    parameters, state = list(net.parameters()), {k: v + 1 for k, v in copy.deepcopy(net.state_dict()).items()}
    net.load_state_dict(state)
    state["weight"][0] = 100
    assert [id(p) for p in net.parameters()] == [id(p) for p in parameters]
    assert_state(lib, net, {"weight": [2, 3], "body.bias": [[4, 5]], "body.mean": [6]})


def test_names_given_anew_leave_nothing_behind(lib, net):
    net.weight = lib.Parameter(lib.array([0.0]))
    net.body.register_buffer("mean", lib.array([1.0]), persistent=False)
    assert sorted(net.state_dict()) == ["body.bias", "weight"]
    net.body.register_buffer("mean", None)
    assert net.body.mean is None
    net.body.register_buffer("mean", lib.array([1.0]))
    assert sorted(net.state_dict()) == ["body.bias", "body.mean", "weight"]
    net.body = None
    assert sorted(net.state_dict()) == ["weight"]
    assert len(list(net.parameters())) == 1
    del net.weight
    assert not hasattr(net, "weight")
    assert not net.state_dict()


def test_refusals(lib, net):
    with pytest.raises(AttributeError):
        net.missing
    with pytest.raises(AttributeError):
        del net.missing
    for name in ("weight", "body"):
        with pytest.raises(TypeError):
            setattr(net, name, lib.array([1.0]))
    for name in ("weight", "body", "forward", "training"):
        with pytest.raises(KeyError):
            net.register_buffer(name, lib.array([1.0]))
    for name in ("", "a.b"):
        with pytest.raises((KeyError, ValueError)):
            net.register_buffer(name, lib.array([1.0]))
        with pytest.raises((KeyError, ValueError)):
            setattr(net, name, lib.Parameter(lib.array([1.0])))
    with pytest.raises(NotImplementedError):
        net(1)


def test_a_refused_state_changes_nothing():
    net = Module()
    net.a, net.b = Parameter(np.zeros(1)), Buffer(np.zeros(1))
    with pytest.raises(ValueError, match="b of shape"):
        net.load_state_dict({"a": np.ones(1), "b": np.ones(2)})
    assert_state(Reference, net, {"a": [0], "b": [0]})


def test_loading_keeps_the_dtype():
    net = Module()
    net.a, net.n = Parameter(np.zeros(1, np.float32)), Buffer(np.array(0))
    net.load_state_dict({"a": np.ones(1), "n": np.array(2.0)})
    assert {k: v.dtype for k, v in net.state_dict().items()} == {"a": np.float32, "n": np.int64}


@pytest.mark.parametrize("entry", [Parameter, Buffer])
def test_parameters_and_buffers_compute_as_their_arrays(entry):
    held, array = entry(np.array([1.0, -2.0])), np.array([1.0, -2.0])
    x = np.array([3.0, 4.0])
    for result, expected in [
        (held + x, array + x),
        (x - held, x - array),
        (2 * held, 2 * array),
        (held @ x, array @ x),
        (held**2, array**2),
        (-abs(held), -abs(array)),
        (held > 0, array > 0),
        (np.exp(held), np.exp(array)),
        (np.mean(held), np.mean(array)),
        (np.where(held > 0, held, x), np.where(array > 0, array, x)),
        (np.einsum("i,i->", held, held), array @ array),
        (np.concatenate([held, x]), np.concatenate([array, x])),
    ]:
        assert not isinstance(result, entry)
        np.testing.assert_array_equal(result, expected, strict=True)
    np.testing.assert_array_equal(held.data, array)
    assert held in {held}
    assert not entry(np.array(0.0))


def test_in_place_arithmetic_changes_the_parameter_itself():
    net = Module()
    net.weight = weight = Parameter(np.ones(2))
    net.weight *= 3
    assert net.weight is weight
    np.testing.assert_array_equal(weight.data, [3, 3])


def test_a_number_or_a_list_is_not_assigned_to_a_buffers_name():
    net = Module()
    net.register_buffer("count", np.array(0))
    for value in (1, [1]):
        with pytest.raises(TypeError, match="expected an array or None, as count is a Buffer"):
            net.count = value
    net.count = net.count + 1  # a NumPy scalar
    assert net.state_dict() == {"count": 1}
