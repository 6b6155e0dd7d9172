"""A network of 152 layers that trains, and one that cannot.

Residuals carry the signal past every layer, and layer normalisation keeps each layer's share of it
of one size (He, Zhang, Ren, Sun, 2016). The plain network from weights of 0.01 passes nothing on:
the diagnosis says so.

`python docs/examples/very_deep.py`; writes very_deep.png where matplotlib is there.
"""

import numpy as np

from lamella import Network
from lamella.datasets import load_digits
from lamella.schedules import Cosine, Warmup

pixels, y = load_digits()
X = pixels / 16
order = np.random.RandomState(0).permutation(len(X))
train, test = order[len(X) // 5 :], order[: len(X) // 5]
layers = [64, *[64] * 151, 10]

residual = Network(layers, output="softmax", norm="layer", dropout=0.1, residual=True)
history = residual.fit(
    X[train],
    y[train],
    epochs=40,
    learning_rate=Warmup(steps=50, then=Cosine(1e-3)),
    diagnose=True,
)
accuracy = residual.evaluate(X[test], y[test])["accuracy"]
print(f"152 layers with residuals: accuracy {accuracy:.3f}; {history.diagnosis}")

plain = Network(layers, output="softmax", init=0.01)
stuck = plain.fit(X[train], y[train], epochs=2, batch_size=64, diagnose=True)
print(f"152 plain layers from 0.01: loss {stuck.loss[-1]:.3f}; {stuck.diagnosis}")

try:
    import matplotlib.pyplot as plt
except ModuleNotFoundError:
    print("no picture: matplotlib is not installed")
else:
    figure, axes = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for name, diagnosis in (("residual", history.diagnosis), ("plain", stuck.diagnosis)):
        assert diagnosis is not None
        norms = np.maximum(diagnosis.records[0].gradient_norms, 1e-20)
        axes.semilogy(np.arange(1, 153), norms, label=name)
    axes.set(xlabel="layer", ylabel="root mean square of dW at the start", title="152 layers")
    axes.legend()
    figure.savefig("very_deep.png", dpi=120)
    print("wrote very_deep.png")
