"""Optimizers compared: the same network from the same start, each at the best of its rates.

`python docs/examples/optimizers.py`; writes optimizers.png where matplotlib is there.
"""

from typing import Any

import numpy as np

import lamella
from lamella.datasets import load_digits

X, y = load_digits()
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
configs: list[dict[str, Any]] = [
    {"layers": [64, 128, 64, 10], "output": "softmax", "optimizer": optimizer,
     "learning_rate": rate, "epochs": 15}
    for optimizer, choices in rates.items() for rate in choices
]  # fmt: skip
fitted = lamella.fit_many(configs, X / 16, y, validation=0.2)

best: dict[str, tuple[float, np.ndarray, float]] = {}
for config, result in zip(configs, fitted, strict=True):
    name, rate = str(config["optimizer"]), float(config["learning_rate"])
    if result.history is None or result.score is None:
        continue  # it diverged
    loss = result.history.loss
    if name not in best or loss[-1] < best[name][1][-1]:
        best[name] = (rate, loss, result.score["accuracy"])
print(f"{'optimizer':<10} {'rate':>7} {'loss':>9} {'accuracy':>9}")
for name, (rate, loss, accuracy) in sorted(best.items(), key=lambda pair: pair[1][1][-1]):
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
