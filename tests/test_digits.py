"""The example that learns, in its parts and driven as a reader would drive it."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

EXAMPLE = Path(__file__).parents[1] / "examples" / "digits.py"
WEIGHTS = EXAMPLE.with_suffix(".safetensors")


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("digits", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(*arguments):
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
    command = [sys.executable, EXAMPLE, *map(str, arguments)]
    return subprocess.run(command, env={**os.environ, **one_thread}, capture_output=True, encoding="utf-8", timeout=600)


def test_the_loss_and_its_gradient_are_those_of_torch(example):
    """On scores whose differences are multiples of ln 2, and beyond what exp can hold."""
    scores = np.array([[0, 1, 2, 3], [1000, 999, 0, 1000], [0, 0, 0, 0]]) * np.log(2)
    classes = np.array([2, 0, 3])
    leaf = torch.from_numpy(scores).requires_grad_()
    theirs = torch.nn.functional.cross_entropy(leaf, torch.from_numpy(classes))
    theirs.backward()
    loss, gradient = example.cross_entropy(scores, classes)
    exact = np.array([[1, 2, 4, 8], [2, 1, 0, 2], [1, 1, 1, 1]]) / [[15], [5], [4]]
    exact[[0, 1, 2], classes] -= 1
    # a handful of operations on numbers below 1000: some units in the last place of these
    limit = 1000 * np.log(2) * 16 * np.finfo(np.float64).eps
    assert abs(loss - theirs.item()) < limit
    assert np.abs(gradient - leaf.grad.numpy()).max() < limit
    assert np.abs(gradient - exact / 3).max() < limit


def test_in_float64_both_take_the_same_five_steps(example):
    """Losses and every gradient of the first step to nine digits, the losses of four more to seven.

    In float64 no activation lies within rounding of a ReLU's 0, so what is left is that rounding grows through some
    hundred layers: 5e-13 was seen in the first gradients, 4e-11 in the fifth loss. Whoever forgets a term, an update of
    the statistics or the momentum is off in the first digits.
    """
    images, classes = example.digits()
    images, rng = images.astype(np.float64), np.random.default_rng(1)
    network = example.ResNet34(1, 10, width=example.WIDTH, dtype=np.float64, rng=rng)
    ours, theirs = example.Reference(network.state_dict()), example.Torch(network.state_dict())
    losses = []
    for step, batch in enumerate(rng.permutation(example.TRAINING).reshape(-1, example.BATCH)[:5]):
        losses.append([learner.step(images[batch], classes[batch], 0.05) for learner in (ours, theirs)])
        assert abs(losses[step][0] - losses[step][1]) < 10.0 ** -(7 if step else 9) * losses[step][1]
        if step == 0:
            expected = {name: p.grad.numpy() for name, p in theirs.network.named_parameters()}
            assert expected.keys() == dict(ours.network.named_parameters()).keys()
            for name, p in ours.network.named_parameters():
                assert np.abs(p.grad - expected[name]).max() < 1e-9 * np.abs(expected[name]).max(), name
    state = theirs.state()
    for key, array in ours.state().items():
        assert np.abs(array - state[key]).max() < 1e-6 * max(1, np.abs(state[key]).max()), key


@pytest.mark.parametrize("name", ["reference", "torch"])
def test_a_few_steps_on_one_batch_lower_its_loss(example, name):
    images, classes = example.digits()
    state = example.ResNet34(1, 10, width=example.WIDTH, rng=np.random.default_rng(0)).state_dict()
    learner = example.SUBJECTS[name](state)
    losses = [learner.step(images[: example.BATCH], classes[: example.BATCH], example.RATE) for _ in range(10)]
    assert losses[-1] < losses[0] / 2


def test_held_out_digits_stay_out_of_training(example):
    images, classes = example.digits()
    assert images.shape == (1797, 1, 32, 32)
    assert (images.min(), images.max()) == (0, 1)
    assert len(classes[example.TRAINING :]) == 297
    seen = {image.tobytes() for image in images[: example.TRAINING]}
    assert not any(image.tobytes() in seen for image in images[example.TRAINING :])


def test_the_weights_that_ship_are_seen_the_same_by_all():
    assert WEIGHTS.stat().st_size <= 2e6
    done = run("--load", WEIGHTS)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"^(\w+) +([\d.]+)% of 297 right, (\d+) the same as reference$", done.stdout, re.M)
    subjects = ["reference", "torch"] + ["jax"] * bool(importlib.util.find_spec("jax"))
    assert [name for name, _, _ in rows] == subjects, done.stdout
    for name, right, same in rows:
        assert float(right) >= 97, name
        assert same == "297", name


def test_an_epoch_writes_weights_and_a_picture(tmp_path):
    done = run("--epochs", 1, "--subject", "reference", "--out", tmp_path / "new", "--save", tmp_path / "w.safetensors")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "held out, reference" in done.stdout
    assert (tmp_path / "new" / "digits.png").read_bytes().startswith(b"\x89PNG")
    loss, right = re.search(r"^ +1 +([\d.]+) +([\d.]+)% +[\d.]+$", done.stdout, re.M).groups()
    assert float(loss) < np.log(10)  # what guessing costs
    again = run("--load", tmp_path / "w.safetensors", "--subject", "reference")
    assert f"reference  {right}% of 297 right, 297 the same" in again.stdout, again.stdout + again.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--epochs", "0"), "--epochs"),
        (("--load", "nowhere.safetensors"), "nowhere.safetensors"),
        (("--load", EXAMPLE), "digits.py: Error while deserializing"),
        (("--load", "a", "--save", "b"), "not allowed with"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_runs(arguments, said):
    done = run(*arguments)
    assert done.returncode == 2
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
