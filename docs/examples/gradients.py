"""Vanishing and exploding gradients: fifty layers from four starts, before any training.

Weights that are too small shrink the signal and its gradient in every layer, weights that are too
large blow both up; He's scale keeps them, and a residual hands them on past the layer.

`python docs/examples/gradients.py`; writes gradients.png where matplotlib is there.
"""

from typing import Any

import numpy as np

from lamella import Diagnosis, Network
from lamella.datasets import load_digits

LAYERS, UNITS = 50, 64
pixels, y = load_digits()
X = (pixels - pixels.mean(axis=0)) / (pixels.std(axis=0) + 1e-2)

starts: dict[str, dict[str, Any]] = {
    "0.01": {"init": 0.01},
    "He": {"init": "he"},
    "twice He": {"init": 2 * np.sqrt(2 / UNITS)},
    "He, batch norm, residual": {"init": "he", "norm": "batch", "residual": True},
}
norms = {}
for name, settings in starts.items():
    net = Network([64, *[UNITS] * LAYERS, 10], output="softmax", dtype="float64", **settings)
    diagnosis = Diagnosis(X, y)
    net.fit(X, y, epochs=1, learning_rate=1e-4, callbacks=[diagnosis])
    health = diagnosis.records[0]
    norms[name] = health.gradient_norms
    first, last = health.gradient_norms[0], health.gradient_norms[-1]
    print(f"{name}: gradients {first:.1e} in the first layer, {last:.1e} in the last")
    print(f"  {str(diagnosis).splitlines()[0]}")

try:
    import matplotlib.pyplot as plt
except ModuleNotFoundError:
    print("no picture: matplotlib is not installed")
else:
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for name, values in norms.items():
        axes.semilogy(np.arange(1, LAYERS + 2), np.maximum(values, 1e-90), label=name)
    axes.set(xlabel="layer", ylabel="root mean square of dW", title="Gradients before training")
    axes.legend(title="start")
    figure.savefig("gradients.png", dpi=120)
    print("wrote gradients.png")
