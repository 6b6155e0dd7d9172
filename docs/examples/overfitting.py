"""Overfitting, and two cures: a wide network learns 200 digits by heart.

`python docs/examples/overfitting.py`; writes overfitting.png where matplotlib is there.
"""

from typing import Any

import numpy as np

from lamella import Network
from lamella.datasets import load_digits

pixels, y = load_digits()
X = pixels / 16
order = np.random.RandomState(0).permutation(len(X))
train, test = order[:200], order[200:]

curves = {}
cures: dict[str, dict[str, Any]] = {
    "plain": {},
    "l2 = 0.01": {"l2": 0.01},
    "dropout = 0.5": {"dropout": 0.5},
}
for name, settings in cures.items():
    net = Network([64, 256, 256, 10], output="softmax", **settings)
    history = net.fit(
        X[train], y[train], epochs=150, validation_data=(X[test], y[test]), learning_rate=1e-3
    )
    # What the penalty adds is no error.
    plain = Network([64, 256, 256, 10], output="softmax")
    plain.parameters = net.parameters
    known, unknown = plain.evaluate(X[train], y[train]), plain.evaluate(X[test], y[test])
    curves[name] = history.metrics["val_accuracy"]
    print(
        f"{name:<14} loss {known['loss']:.4f} on the 200 it learned, {unknown['loss']:.4f} on"
        f" others; accuracy {unknown['accuracy']:.3f}"
    )

try:
    import matplotlib.pyplot as plt
except ModuleNotFoundError:
    print("no picture: matplotlib is not installed")
else:
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for name, accuracy in curves.items():
        axes.plot(accuracy, label=name)
    axes.set(xlabel="epoch", ylabel="accuracy on others", ylim=(0.8, 0.96))
    axes.set_title("200 digits learned, 1,597 to answer")
    axes.legend()
    figure.savefig("overfitting.png", dpi=120)
    print("wrote overfitting.png")
