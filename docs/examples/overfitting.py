"""Overfitting, and two cures: a wide network learns 400 digits, a fifth with a wrong label.

Left alone it learns the wrong labels by heart, and answers others worse for it; an l2 penalty or
dropout keep it from that. Nothing is wrong inside any of the three, says their diagnosis:
overfitting is seen on other rows alone.

`python docs/examples/overfitting.py`; writes overfitting.png where matplotlib is there.
"""

from typing import Any

import numpy as np

from lamella import Network
from lamella.datasets import load_digits

pixels, y = load_digits()
X = pixels / 16
random = np.random.RandomState(0)
order = random.permutation(len(X))
train, test = order[:400], order[400:]
labels = y[train].copy()
wrong = random.rand(400) < 0.2
labels[wrong] = random.randint(0, 10, wrong.sum())

cures: dict[str, dict[str, Any]] = {
    "plain": {},
    "l2 = 0.01": {"l2": 0.01},
    "dropout = 0.6": {"dropout": 0.6},
}
curves = {}
for name, settings in cures.items():
    net = Network([64, 256, 256, 10], output="softmax", **settings)
    history = net.fit(
        X[train], labels, epochs=100, validation_data=(X[test], y[test]), diagnose=True
    )
    curves[name] = history.metrics["val_accuracy"]
    learned = net.evaluate(X[train], labels)["accuracy"]
    print(f"{name:<14} learned {learned:.3f} of the labels, answers {curves[name][-1]:.3f} right")
    print(f"  {history.diagnosis}")

try:
    import matplotlib.pyplot as plt
except ModuleNotFoundError:
    print("no picture: matplotlib is not installed")
else:
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for name, accuracy in curves.items():
        axes.plot(np.arange(1, len(accuracy) + 1), accuracy, label=name)
    axes.set(xlabel="epoch", ylabel="accuracy on others", ylim=(0.8, 0.96))
    axes.set_title("400 digits learned, a fifth of them with a wrong label")
    axes.legend(loc="lower right")
    figure.savefig("overfitting.png", dpi=120)
    print("wrote overfitting.png")
