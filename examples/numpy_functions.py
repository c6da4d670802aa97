"""An MLP and its optimiser in functional style, which nnspec makes into classes. Try: nnspec check numpy_functions.py

The functions hold nothing: the state of the network and of the optimiser goes in and comes out.
"""

from itertools import pairwise

import numpy as np

NETWORKS = ("mlp",)


def init(block, sizes, dtype):
    """Return the state of a new network, by key."""
    rng, widths = np.random.default_rng(), (sizes["in_features"], *sizes["hidden_features"], sizes["out_features"])
    state = {}
    for n, (i, o) in enumerate(pairwise(widths), start=1):
        state[f"fc{n}.weight"] = rng.normal(0, 1, (o, i)).astype(dtype)
        state[f"fc{n}.bias"] = np.zeros(o, dtype)
    return state


def layers(state, x):
    """Return the input of each layer, and what follows the last, and the result."""
    passed = [x]
    for n in range(1, len(state) // 2 + 1):
        x = np.matmul(passed[-1], state[f"fc{n}.weight"].T) + state[f"fc{n}.bias"]
        passed.append(np.maximum(x, 0))
    return passed, x


def apply(block, state, x, training):
    """Return the result and the state after the call."""
    if x.ndim == 0 or x.shape[-1] != state["fc1.weight"].shape[1]:
        raise ValueError("expected as many features as the first layer takes")
    return layers(state, x)[1], state


def apply_vjp(block, cotangent, state, x, training):
    """Return the gradient of x, and those of the parameters by key."""
    passed, gradients = layers(state, x)[0], {}
    for n in reversed(range(1, len(passed))):
        rows = cotangent.reshape(-1, cotangent.shape[-1])
        before = passed[n - 1]
        gradients[f"fc{n}.weight"] = rows.T @ before.reshape(-1, before.shape[-1])
        gradients[f"fc{n}.bias"] = rows.sum(0)
        cotangent = cotangent @ state[f"fc{n}.weight"]
        if n > 1:
            cotangent = np.where(before > 0, cotangent, np.zeros((), cotangent.dtype))
    return cotangent, gradients


def sgd_init(params):
    """Return the state of a new optimiser: no velocities."""
    if not params:
        raise ValueError("expected at least one parameter")
    return {}


def sgd_update(params, gradients, state, *, lr, momentum=0.0, weight_decay=0.0):
    """Return the parameters after a step, and the velocities. A parameter without a gradient rests."""
    if min(lr, momentum, weight_decay) < 0:
        raise ValueError(f"{lr=}, {momentum=}, {weight_decay=}: expected at least 0")
    params, state = dict(params), dict(state)
    for key, gradient in gradients.items():
        p, number = params[key], gradient.dtype.type
        if gradient.shape != p.shape:
            raise ValueError(f"gradient of shape {gradient.shape}: expected {p.shape}")
        velocity = gradient.copy()
        if weight_decay:
            velocity += number(weight_decay) * p
        if momentum and key in state:
            velocity += number(momentum) * state[key]
        params[key], state[key] = p - number(lr) * velocity, velocity
    return params, state
