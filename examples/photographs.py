"""Two photographs through ResNet-34, in the reference and in PyTorch: does every layer do what the specification says?

    python examples/photographs.py [SIZE]

SIZE is the height and width in pixels that the photographs are reduced to (default: 224).
The photographs come with scikit-learn; the weights are drawn from a seed and the same for both. Each of the network's
nodes is judged by itself, on what it was given: in evaluation, and in a step of training, there and back, for which the
cotangent of the scores is drawn as well. Exit status 1 if one is out of bounds.
"""

import sys
from collections import defaultdict

import numpy as np
from lockstep import end_to_end, judge, observe
from lockstep_back import judge_step, observe_step
from nnspec.adapters import load
from sklearn.datasets import load_sample_images

SIZE = int(sys.argv[1]) if sys.argv[1:] else 224


def averaged(image, size):
    """(H, W, 3) -> (size, size, 3): the middle square, each new pixel the mean of the area that it covers."""
    side = min(image.shape[:2])
    top, left = ((n - side) // 2 for n in image.shape[:2])
    square = image[top : top + side, left : left + side].astype(np.float64)
    edges = np.arange(size + 1) * side / size
    pixels = np.arange(side)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    weights = np.clip(overlap, 0, None) * size / side  # (size, side): how much of a pixel falls into a new one
    return np.einsum("ir,rsc,js->ijc", weights, square, weights, optimize=True)


def photographs():
    """(2, 3, 224, 224), with the mean and the deviation per channel that torchvision's weights expect."""
    images = np.stack([averaged(image, SIZE) for image in load_sample_images().images]) / 255
    normalised = (images - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    return np.ascontiguousarray(normalised.transpose(0, 3, 1, 2), np.float32)


def weights(state, rng):
    """The state of a network as after some training: no norm is idle, and activations keep their size."""
    drawn = {}
    for key, array in state.items():
        normal = rng.standard_normal(array.shape, np.float32)
        if array.ndim == 4:
            drawn[key] = normal * np.sqrt(2 / array[0].size, dtype=np.float32)
        elif array.ndim == 2:
            drawn[key] = normal / 20
        elif key.endswith(("running_var", "weight")):
            drawn[key] = rng.uniform(0.5, 1.5, array.shape).astype(np.float32)
        elif array.ndim == 1:
            drawn[key] = normal / 5
    return drawn


def evaluation(framework, network, x):
    """How many modules were seen, the scores, and the verdict on every node."""
    before = framework.state(network)
    scores, seen = observe(framework, network, x)
    return len(seen), scores, judge(seen, before, framework.state(network), training=False)


def training(framework, network, x):
    """Likewise of a step there and back: every node's cotangent, and the gradient of every parameter, are nodes too."""
    before = framework.state(network)
    cotangent = np.random.default_rng(1).standard_normal((len(x), 1000), np.float32)
    step = observe_step(framework, network, x, cotangent)
    return len(step.seen), step.seen["fc"][1], judge_step(step, before, framework.state(network))


def in_float64(x):
    """The reference's scores in float64, in evaluation, and by how much rounding to float32 moves a score."""
    subject = load("reference")
    network = subject.framework.construct(subject.classes["ResNet34"], (), {}, np.dtype(np.float64))
    drawn = weights(subject.framework.state(network), np.random.default_rng(0))
    subject.framework.load_entries(network, {key: array.astype(np.float64) for key, array in drawn.items()})
    subject.framework.set_training(network, False)
    return end_to_end(network, x.astype(np.float64), 2.0**-24)


def main():
    """Judge both networks in both modes and print the worst node of each kind."""
    x, table, missed = photographs(), defaultdict(dict), 0
    exact, deviation = in_float64(x)
    for subject in (load("reference"), load("torch")):
        framework = subject.framework
        network = framework.construct(subject.classes["ResNet34"], (), {}, np.dtype(np.float32))
        framework.load_entries(network, weights(framework.state(network), np.random.default_rng(0)))
        for mode in (evaluation, training):
            framework.set_training(network, mode is training)
            modules, scores, verdicts = mode(framework, network, x)
            column = f"{subject.name}, {mode.__name__}"
            for verdict in verdicts:
                worst, nodes = table[verdict.kind].get(column, (0.0, 0))
                table[verdict.kind][column] = max(worst, verdict.worst), nodes + 1
                if verdict.worst > 1:
                    missed += 1
                    print(f"{column}: {verdict.name} ({verdict.kind}): error {verdict.worst:.3g} times its bound")
            best = ", ".join(f"{row.argmax()}" for row in scores)
            print(f"{column}: {modules} modules seen; classes of the highest scores: {best}", flush=True)
            if mode is evaluation:  # end to end a figure only: over so many layers a bound says nothing
                away = np.abs(scores - exact).max() / deviation
                print(
                    f"{column}: no score is further from its value than {away:.2f} deviations of rounding", flush=True
                )
    columns = list(next(iter(table.values())))
    print("\nlargest error ÷ bound (nodes)".ljust(30) + "".join(column.rjust(26) for column in columns))
    for kind, row in table.items():
        cells = [f"{row[c][0]:.3f} ({row[c][1]})" if c in row else "" for c in columns]
        print(kind.ljust(29) + "".join(cell.rjust(26) for cell in cells))
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
