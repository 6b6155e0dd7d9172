"""Depth against width: the parity of n bits, folded by a deep circuit and counted by a shallow one.

Whether a sum of n = 2^k bits is even is a saw with n teeth. Each layer of two relu units folds the
line once, so k such layers are enough, 2 log2(n) units; one hidden layer needs a unit for every
kink, n of them (Telgarsky, 2016, "Benefits of depth in neural networks"). Both are built by hand
here and are right on every input. Gradient descent does not find the small deep one; what it does
find is learned and drawn for several shapes. The best start of each is trained once more with a
diagnosis, and so is the worst.

`python docs/examples/depth.py`; writes depth.png where matplotlib is there.
"""

import itertools
from typing import Any

import numpy as np

import lamella
from lamella import Dense, Network


def bits(n: int) -> np.ndarray:
    """Return all inputs of n bits, (2^n, n)."""
    return np.array(list(itertools.product([0.0, 1.0], repeat=n)))


def folding(n: int) -> Network:
    """Return log2(n) layers of two units: each maps s to n - |n - 2 s|, a tent."""
    k = int(np.log2(n))
    net = Network([n, *[2] * k, Dense(1, "identity")], dtype="float64")
    values = net.parameters
    for layer in range(1, k + 1):
        # s = a - 2 b of the two units before, or the sum of the bits; then 2 s and 4 s - 2 n.
        row = np.ones(n) if layer == 1 else np.array([1.0, -1.0])
        values[f"W{layer}"] = np.stack([2 * row, 4 * row])
        values[f"b{layer}"] = np.array([0.0, -2.0 * n])
    values[f"W{k + 1}"], values[f"b{k + 1}"] = np.array([[1.0, -1.0]]) / n, np.zeros(1)
    net.parameters = values
    return net


def counting(n: int) -> Network:
    """Return one layer of n units, one for every kink of the saw."""
    net = Network([n, n, Dense(1, "identity")], dtype="float64")
    slopes = np.array([1.0, *[2.0 * (-1) ** i for i in range(1, n)]])
    net.parameters = {
        "W1": np.ones((n, n)),
        "b1": -np.arange(n, dtype=float),
        "W2": slopes[None],
        "b2": np.zeros(1),
    }
    return net


n = 16
X = bits(n)
odd = X.sum(axis=1) % 2
for name, net in (("deep", folding(n)), ("shallow", counting(n))):
    units = sum(layer.units for layer in net.layers[:-1])
    right = np.mean((net.predict(X) > 0.5) == odd)
    print(
        f"{name:<8} {len(net.layers) - 1} hidden layers, {units:>2} units: {right:.0%} of {len(X)}"
    )
    assert right == 1.0

# What training finds, from five starts each: all inputs of 8 bits, every shape about 600 weights.
X, y = bits(8), bits(8).sum(axis=1) % 2
shapes = {"60": [60], "20-20": [20, 20], "15-15-15": [15, 15, 15], "13-13-13-13": [13] * 4}
configs: list[dict[str, Any]] = [
    {"layers": [8, *hidden, 1], "output": "sigmoid", "hidden": "tanh", "init": "lecun",
     "seed": seed, "epochs": 300, "batch_size": 32, "learning_rate": 0.01}
    for hidden in shapes.values() for seed in range(5)
]  # fmt: skip
fitted = lamella.fit_many(configs, 2 * X - 1, y)
losses = np.array([f.history.loss for f in fitted if f.history]).reshape(len(shapes), 5, -1)


def diagnosed(hidden: list[int], seed: int) -> lamella.Diagnosis | None:
    """Train one of them once more, to the same bits, and say how it went inside."""
    net = Network([8, *hidden, 1], output="sigmoid", hidden="tanh", init="lecun", seed=seed)
    return net.fit(2 * X - 1, y, epochs=300, learning_rate=0.01, diagnose=True).diagnosis


for (name, hidden), runs in zip(shapes.items(), losses, strict=True):
    print(f"learned, {name:<12} median loss after 300 epochs {np.median(runs[:, -1]):.2g}")
    order = np.argsort(runs[:, -1])
    for which, seed in (("best", int(order[0])), ("worst", int(order[-1]))):
        print(f"  {which}, {runs[seed, -1]:.2g}: {diagnosed(hidden, seed)}")

try:
    import matplotlib.pyplot as plt
except ModuleNotFoundError:
    print("no picture: matplotlib is not installed")
else:
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for name, runs in zip(shapes, losses, strict=True):
        axes.semilogy(np.median(runs, axis=0), label=f"{name} units")
    axes.set(xlabel="epoch", ylabel="loss, median of 5 starts", title="Parity of 8 bits, learned")
    axes.legend()
    figure.savefig("depth.png", dpi=120)
    print("wrote depth.png")
