"""ResNet-34, eight channels wide, learns handwritten digits: in the reference and, beside it, in PyTorch.

    python examples/digits.py                                      both, step by step; the curves as a picture
    python examples/digits.py --subject reference --save PATH      one of them; its weights as safetensors
    python examples/digits.py --load examples/digits.safetensors   no training: do all see the same digits?

The digits come with scikit-learn. Both networks begin with the same weights and see the same batches. They part all the
same, for sums are rounded in another order, and in float32 that soon puts an activation on the other side of a ReLU's
0, where its gradient jumps. Seen with seed 0: one of 227,200 activations in the second step, 1,491 in the third, and
losses that are 1e-6 apart in the first and 1e-2 in the fourth. That this is rounding and no mistake shows with
`--dtype float64`: after an epoch, 60 steps, the losses are still less than 1e-8 apart.
"""

import argparse
import importlib.util
import os
import sys
import time
from itertools import pairwise
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the products are small: a second thread would be waited for
import numpy as np
from nnspec.reference.resnet34 import ResNet34
from nnspec.reference.sgd import SGD
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

WIDTH, CLASSES, TRAINING, BATCH = 8, 10, 1500, 25
RATE, MOMENTUM, WEIGHT_DECAY = 0.02, 0.9, 5e-4
COLOURS = {"reference": "#0072b2", "torch": "#d55e00"}  # told apart by the colour-blind too

# -- data and loss -----------------------------------------------------------------------------------------------------


def digits():
    """Images (1797, 1, 32, 32) from 0 to 1, and their classes; the first 1500 are for training, the rest is held out.

    Pixels are repeated four times each way: of 8×8 the network's five strides of 2 would leave one pixel half-way. The
    order is drawn, always the same, so that images are held out and not writers.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    images = data.images[order, None].astype(np.float32) / 16
    return images.repeat(4, axis=2).repeat(4, axis=3), data.target[order]


def cross_entropy(scores, classes):
    """The mean over the batch of −log softmax(scores)[class], and its gradient by the scores."""
    shifted = scores - scores.max(1, keepdims=True)  # leaves softmax as it is, and exp cannot overflow
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    wanted = np.eye(scores.shape[1], dtype=scores.dtype)[classes]
    return -(wanted * log_p).sum() / len(scores), (np.exp(log_p) - wanted) / len(scores)


# -- two networks that learn -------------------------------------------------------------------------------------------


class Reference:
    """nnspec.reference: pullbacks and SGD written out in NumPy."""

    def __init__(self, state):
        self.network = ResNet34(1, CLASSES, width=WIDTH, dtype=state["conv1.weight"].dtype)
        self.network.load_state_dict(state)
        self.optimiser = SGD(self.network.parameters(), RATE, MOMENTUM, WEIGHT_DECAY)

    def step(self, images, classes, rate):
        """The loss of a batch, and one step against its gradient."""
        self.optimiser.zero_grad()
        scores, pullback = self.network.vjp(images)
        loss, cotangent = cross_entropy(scores, classes)
        pullback(cotangent)
        self.optimiser.lr = rate
        self.optimiser.step()
        return float(loss)

    def scores(self, images):
        """(N, 1, 32, 32) -> (N, 10), in evaluation."""
        scores = self.network.eval()(images)
        self.network.train()
        return scores

    def state(self):
        return self.network.state_dict()


class Torch:
    """torch.nn, autograd and torch.optim."""

    def __init__(self, state):
        import torch
        from nnspec.adapters import torch_blocks
        from nnspec.adapters.for_torch import Torch

        torch.set_num_threads(int(os.environ["OPENBLAS_NUM_THREADS"]))
        self.torch, self.to_numpy = torch, Torch().state
        self.network = torch_blocks.ResNet34(1, CLASSES, width=WIDTH)
        self.network.to(torch.from_numpy(state["conv1.weight"]).dtype)
        self.network.load_state_dict({key: torch.tensor(array) for key, array in state.items()})
        self.optimiser = torch.optim.SGD(self.network.parameters(), RATE, MOMENTUM, weight_decay=WEIGHT_DECAY)

    def step(self, images, classes, rate):
        """The loss of a batch, and one step against its gradient."""
        self.optimiser.zero_grad()
        scores = self.network(self.torch.from_numpy(images))
        loss = self.torch.nn.functional.cross_entropy(scores, self.torch.from_numpy(classes))
        loss.backward()
        self.optimiser.param_groups[0]["lr"] = rate
        self.optimiser.step()
        return loss.item()

    def scores(self, images):
        """(N, 1, 32, 32) -> (N, 10), in evaluation."""
        with self.torch.inference_mode():
            scores = self.network.eval()(self.torch.from_numpy(images)).numpy()
        self.network.train()
        return scores

    def state(self):
        return self.to_numpy(self.network)


SUBJECTS = {"reference": Reference, "torch": Torch}


def jax_scores(state, images):
    """The same network once more, as a function of its state: evaluation in jax.numpy."""
    from jax import lax
    from jax import numpy as jnp

    state = {key: jnp.asarray(array) for key, array in state.items()}

    def conv(x, name, stride=1, padding=0):
        weight, around = state[f"{name}.weight"], [(padding, padding)] * 2
        return lax.conv_general_dilated(x, weight, (stride, stride), around, precision="highest")  # no TF32 on a GPU

    def norm(x, name):
        parts = ("running_mean", "running_var", "weight", "bias")
        mean, var, weight, bias = (state[f"{name}.{part}"][:, None, None] for part in parts)
        return (x - mean) / jnp.sqrt(var + 1e-5) * weight + bias

    def relu(x):
        return jnp.maximum(x, 0)

    def block(x, name, stride):
        y = relu(norm(conv(x, f"{name}.conv1", stride, padding=1), f"{name}.bn1"))
        y = norm(conv(y, f"{name}.conv2", padding=1), f"{name}.bn2")
        if f"{name}.downsample.0.weight" in state:
            x = norm(conv(x, f"{name}.downsample.0", stride), f"{name}.downsample.1")
        return relu(y + x)

    x = relu(norm(conv(jnp.asarray(images), "conv1", stride=2, padding=3), "bn1"))
    x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 1, 3, 3), (1, 1, 2, 2), ((0, 0), (0, 0), (1, 1), (1, 1)))
    for stage, blocks in enumerate((3, 4, 6, 3), start=1):
        for number in range(blocks):
            x = block(x, f"layer{stage}.{number}", stride=2 if stage > 1 and number == 0 else 1)
    return np.asarray(jnp.matmul(x.mean((2, 3)), state["fc.weight"].T, precision="highest") + state["fc.bias"])


# -- training ----------------------------------------------------------------------------------------------------------


def train(names, epochs, seed, dtype):
    """The networks by name, the loss of each at every step, and its accuracy on the held-out digits at every epoch."""
    images, classes = digits()
    images, rng = images.astype(dtype), np.random.default_rng(seed)
    state = ResNet34(1, CLASSES, width=WIDTH, dtype=dtype, rng=rng).state_dict()
    learners = {name: SUBJECTS[name](state) for name in names}
    losses, accuracies = {name: [] for name in names}, {name: [] for name in names}
    start, steps = time.perf_counter(), epochs * (TRAINING // BATCH)
    print("epoch" + "".join(f"{name}: loss".rjust(19) + "  held out" for name in names) + "   seconds", flush=True)
    for epoch in range(1, epochs + 1):
        for batch in rng.permutation(TRAINING).reshape(-1, BATCH):
            rate = RATE * (1 - len(losses[names[0]]) / steps)  # falls to 0
            for name, learner in learners.items():
                losses[name].append(learner.step(images[batch], classes[batch], rate))
        line = f"{epoch:5}"
        for name, learner in learners.items():
            right = learner.scores(images[TRAINING:]).argmax(1) == classes[TRAINING:]
            accuracies[name].append(float(right.mean()))
            line += f"{np.mean(losses[name][-TRAINING // BATCH :]):19.4f}{right.mean():10.1%}"
        print(line + f"{time.perf_counter() - start:10.1f}", flush=True)
    return learners, losses, accuracies


def apart(learners, losses, images):
    """In words, how far two networks are from each other that began as one."""
    away = difference(losses)
    words = [f"The losses differ by {away[0]:.0e} in the first step"]
    for limit in (1e-6, 1e-4, 1e-2):
        above = np.flatnonzero(away > limit)
        words.append(f"by more than {limit:.0e} " + (f"first in step {above[0] + 1}" if len(above) else "in none"))
    ours, theirs = (learner.scores(images).argmax(1) for learner in learners.values())
    same = f"{np.sum(ours == theirs)} of {len(ours)} held-out digits"
    return f"{', '.join(words)}.\nTrained, they see the same class in {same}."


def difference(losses):
    """|loss − loss| at every step; where there is none, float64's unit at 1, so that it has a logarithm."""
    return np.maximum(np.abs(np.subtract(*losses.values())), 2.0**-53)


# -- curves ------------------------------------------------------------------------------------------------------------


def sparkline(values, width=48):
    """At most `width` characters, each the mean of its share of the values, from ▁ for the least to █ for the most."""
    edges = np.linspace(0, len(values), min(width, len(values)) + 1).astype(int)
    means = np.array([np.mean(values[a:b]) for a, b in pairwise(edges)])
    span = np.ptp(means) or 1
    return "".join("▁▂▃▄▅▆▇█"[int(level)] for level in (means - means.min()) / span * 7.99)


def show(losses, accuracies):
    """Print what the picture shows, a line for each curve with its first and its last value."""
    rows = [(f"loss, {name} (log)", np.log10(values), "{:.1e}", values) for name, values in losses.items()]
    rows += [(f"held out, {name}", values, "{:.1%}", values) for name, values in accuracies.items()]
    if len(losses) == 2:
        early = difference(losses)[:48]
        rows.append((f"apart in steps 1 to {len(early)} (log)", np.log10(early), "{:.0e}", early))
    for title, heights, form, values in rows:
        print(f"{title:30} {form.format(values[0]):>7} {sparkline(heights)} {form.format(values[-1])}")


def draw(losses, accuracies, path):
    """Write the curves as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure((8, 3 * (len(losses) + 1)), layout="constrained")
    loss, held_out, *drift = figure.subplots(len(losses) + 1)
    for name, values in losses.items():
        style = {"color": COLOURS[name], "linestyle": "-" if name == "reference" else "--", "marker": "."}
        epochs, means = np.arange(1, len(accuracies[name]) + 1), np.reshape(values, (-1, TRAINING // BATCH)).mean(1)
        steps = np.arange(1, len(values) + 1) / (TRAINING // BATCH)
        loss.semilogy(steps, values, color=COLOURS[name], linewidth=0.5, alpha=0.4)
        loss.semilogy(epochs, means, label=f"{name}: mean of an epoch", **style)
        held_out.plot(epochs, np.multiply(accuracies[name], 100), label=name, **style)
    held_out.axhline(97, color="grey", linewidth=0.7)
    loss.set(xlabel="epoch", ylabel="loss of a batch")
    held_out.set(xlabel="epoch", ylabel="right, % of 297 held out")
    loss.legend(), held_out.legend()
    for panel in drift:
        panel.loglog(np.arange(1, len(values) + 1), difference(losses), color="black", linewidth=0.7, marker=".")
        panel.set(xlabel="step", ylabel="|loss, reference − loss, torch|")
    figure.suptitle("ResNet-34, width 8, on scikit-learn's digits")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


# -- weights -----------------------------------------------------------------------------------------------------------


def compare(state, names):
    """Print what each network makes of the held-out digits; whether all see the same class in every one of them."""
    images, classes = digits()
    images, classes = images[TRAINING:], classes[TRAINING:]
    scores = {name: SUBJECTS[name](state).scores(images) for name in names}
    if len(names) == 2 and importlib.util.find_spec("jax"):
        scores["jax"] = jax_scores(state, images)
    elif len(names) == 2:
        print("jax is not installed, and not compared")
    seen = {name: s.argmax(1) for name, s in scores.items()}
    first = seen[names[0]]
    for name, guesses in seen.items():
        of_all = f"{np.mean(guesses == classes):.1%} of {len(classes)} right"
        print(f"{name:10} {of_all}, {np.sum(guesses == first)} the same as {names[0]}")
    second, highest = np.sort(scores[names[0]], axis=1)[:, -2:].T
    off = max(np.abs(s - scores[names[0]]).max() for s in scores.values())
    print(
        f"scores are at most {off:.1e} apart; the highest of a digit is at least {(highest - second).min():.2g} ahead"
    )
    return all(np.array_equal(guesses, first) for guesses in seen.values())


def positive(text):
    """An integer of at least 1, for argparse."""
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def main():
    """The command line. Exit status 1 where loaded weights are not seen the same by all, 2 where nothing could run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=positive, default=12, help="over the 1500 digits (12)")
    parser.add_argument("--subject", choices=[*SUBJECTS, "both"], default="both", help="which network (both)")
    parser.add_argument("--dtype", choices=["float32", "float64"], default="float32", help="to train in (float32)")
    parser.add_argument("--seed", type=int, default=0, help="of the first weights and of the batches (0)")
    parser.add_argument("--out", type=Path, default=Path("nnspec-report"), help="folder of digits.png (nnspec-report)")
    weights = parser.add_mutually_exclusive_group()
    weights.add_argument("--save", type=Path, metavar="PATH", help="write the weights; of both, the reference's")
    weights.add_argument("--load", type=Path, metavar="PATH", help="train nothing: what do all make of these?")
    arguments = parser.parse_args()
    names = list(SUBJECTS) if arguments.subject == "both" else [arguments.subject]
    if "torch" in names and not importlib.util.find_spec("torch"):
        parser.error("PyTorch is not installed: pip install torch==2.13.0, or choose --subject reference")
    if arguments.load:
        try:
            return 0 if compare(load_file(arguments.load), names) else 1
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            parser.error(f"--load {arguments.load}: {error}")
    learners, losses, accuracies = train(names, arguments.epochs, arguments.seed, arguments.dtype)
    print()
    show(losses, accuracies)
    if len(names) == 2:
        images, _ = digits()
        print(apart(learners, losses, images[TRAINING:].astype(arguments.dtype)))
    draw(losses, accuracies, arguments.out / "digits.png")
    print(f"curves: {arguments.out / 'digits.png'}")
    if arguments.save:
        arguments.save.parent.mkdir(parents=True, exist_ok=True)
        origin = {"subject": names[0], "epochs": str(arguments.epochs), "seed": str(arguments.seed)}
        save_file(learners[names[0]].state(), arguments.save, metadata=origin)
        print(f"weights: {arguments.save}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
