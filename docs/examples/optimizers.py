"""Optimizers compared: the same network from the same start, each at the best of its rates.

The best is the one of least loss whose training the diagnosis finds nothing wrong with. Adagrad
shows why: at 0.1 its loss is the least, but the first steps leave more than half of the first
layer's units dead, so that it learns with a smaller network than the others.

`python docs/examples/optimizers.py`; writes optimizers.png where matplotlib is there.
"""

from typing import Any

import numpy as np

import lamella
from lamella.datasets import load_digits

pixels, y = load_digits()
X = pixels / 16
held_out = np.random.RandomState(0).permutation(len(X)) < len(X) // 5
rates = {
    "sgd": [0.03, 0.1, 0.3],
    "momentum": [0.003, 0.01, 0.03],
    "nesterov": [0.003, 0.01, 0.03],
    "rmsprop": [3e-4, 1e-3, 3e-3],
    "adagrad": [0.01, 0.03, 0.1],
    "adam": [1e-3, 3e-3, 1e-2],
    "nadam": [1e-3, 3e-3, 1e-2],
    "lion": [1e-4, 3e-4, 1e-3],
}
network: dict[str, Any] = {"layers": [64, 128, 64, 10], "output": "softmax"}
configs: list[dict[str, Any]] = [
    {**network, "optimizer": optimizer, "learning_rate": rate, "epochs": 15}
    for optimizer, choices in rates.items() for rate in choices
]  # fmt: skip
fitted = lamella.fit_many(configs, X, y, validation=held_out)


def diagnosed(name: str, rate: float) -> lamella.Diagnosis:
    """Train once more, to the same bits, and say how it went inside."""
    net = lamella.Network(**network)
    history = net.fit(
        X[~held_out], y[~held_out], epochs=15, optimizer=name, learning_rate=rate, diagnose=True
    )
    assert history.diagnosis is not None
    return history.diagnosis


best: dict[str, tuple[float, np.ndarray, float]] = {}
tried = [f for f in fitted if f.history and f.score]  # the others diverged
for result in sorted(tried, key=lambda f: f.history.loss[-1] if f.history else np.inf):
    config = configs[result.index]
    name, rate = config["optimizer"], config["learning_rate"]
    if name in best or not result.history or not result.score:
        continue
    diagnosis = diagnosed(name, rate)
    if diagnosis.findings():
        print(f"passed over: {name} {rate:g}, loss {result.history.loss[-1]:.5f}; {diagnosis}")
    else:
        best[name] = (rate, result.history.loss, result.score["accuracy"])
print(f"{'optimizer':<10} {'rate':>7} {'loss':>9} {'accuracy':>9}")
for name, (rate, loss, accuracy) in best.items():
    print(f"{name:<10} {rate:>7g} {loss[-1]:>9.5f} {accuracy:>9.3f}")

try:
    import matplotlib.pyplot as plt
except ModuleNotFoundError:
    print("no picture: matplotlib is not installed")
else:
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for name, (rate, loss, _) in best.items():
        axes.semilogy(np.arange(1, len(loss) + 1), loss, label=f"{name} {rate:g}")
    axes.set(xlabel="epoch", ylabel="loss", title="The digits, each optimizer at its best rate")
    axes.legend(ncols=2)
    figure.savefig("optimizers.png", dpi=120)
    print("wrote optimizers.png")
