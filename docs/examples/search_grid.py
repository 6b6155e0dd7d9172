"""Grid search: every combination of width, depth and rate on the digits, each in three folds.

The best one is then trained on all rows, with a diagnosis.

`python docs/examples/search_grid.py`; 36 networks, on every processor one at a time.
"""

import numpy as np

import lamella
from lamella.datasets import load_digits

X, y = load_digits()
configs = lamella.grid(
    layers=[(64, 32, 10), (64, 96, 10), (64, 96, 48, 10)],
    learning_rate=[1e-3, 3e-3, 1e-2, 3e-2],
    output="softmax",
    epochs=12,
)
fitted = lamella.fit_many(configs, X / 16, y, cv=3)

# Three folds of a configuration follow one another.
accuracy = np.array([f.score["accuracy"] if f.score else 0.0 for f in fitted]).reshape(-1, 3)
print(f"{'layers':<18} {'rate':>6} {'accuracy':>9} {'+-':>6}")
ranking = np.argsort(-accuracy.mean(axis=1))
for i in ranking:
    layers = "-".join(map(str, configs[i]["layers"]))
    mean, deviation = accuracy[i].mean(), accuracy[i].std()
    print(f"{layers:<18} {configs[i]['learning_rate']:>6g} {mean:>9.4f} {deviation:>6.4f}")

winner = configs[ranking[0]]
net = lamella.Network(winner["layers"], output="softmax")
history = net.fit(X / 16, y, epochs=12, learning_rate=winner["learning_rate"], diagnose=True)
print(f"the best on all rows: {history.diagnosis}")
