"""Random search: settings drawn from distributions, the best ones trained longer.

`python docs/examples/search_random.py`; 40 networks on a fifth of the time that the last 5 get.
Random draws find good rates sooner than a grid of as many (Bergstra, Bengio, 2012, "Random search
for hyper-parameter optimization"). The winner is then trained on all rows, with a diagnosis.
"""

import lamella
from lamella.datasets import load_digits

X, y = load_digits()
configs = lamella.sample(
    40,
    seed=1,
    layers=lambda r: (64, *[int(r.choice([16, 32, 64, 128]))] * int(r.randint(1, 4)), 10),
    learning_rate=lambda r: 10 ** r.uniform(-4, -1),
    l2=lambda r: 10 ** r.uniform(-6, -2),
    batch_size=[16, 32, 64],
    optimizer=["adam", "adamw"],
    hidden=["relu", "tanh"],
    output="softmax",
    epochs=4,
)


def accuracy(fitted: lamella.Fitted) -> float:
    """Return how good it is on the rows held out; nothing where it diverged."""
    return fitted.score["accuracy"] if fitted.score else 0.0


# The same quarter of the rows is held out of every network.
first = lamella.fit_many(configs, X / 16, y, validation=0.25)
best = sorted(first, key=accuracy, reverse=True)[:5]
longer = [{**configs[fitted.index], "epochs": 20} for fitted in best]
final = lamella.fit_many(longer, X / 16, y, validation=0.25)

print("layers             hidden optimizer     rate       l2       4  20 epochs")
for config, before, after in zip(longer, best, final, strict=True):
    layers = "-".join(map(str, config["layers"]))
    print(
        f"{layers:<18} {config['hidden']:<6} {config['optimizer']:<9}"
        f" {config['learning_rate']:>8.2g} {config['l2']:>8.2g}"
        f" {accuracy(before):>7.4f} {accuracy(after):>10.4f}"
    )

winner = longer[max(final, key=accuracy).index]
net = lamella.Network(winner["layers"], hidden=winner["hidden"], output="softmax", l2=winner["l2"])
history = net.fit(
    X / 16, y, epochs=20, batch_size=winner["batch_size"], optimizer=winner["optimizer"],
    learning_rate=winner["learning_rate"], diagnose=True,
)  # fmt: skip
print(f"the best on all rows: {history.diagnosis}")
