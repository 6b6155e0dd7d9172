"""A search that learns as it goes: Optuna proposes settings in rounds, `fit_many` tries each round.

`python docs/examples/search_optuna.py` (needs Optuna). A round is as many networks as keep all
processors busy; what it found decides where the next one looks. The best is then trained on all
rows, with a diagnosis.
"""

from typing import Any

import optuna

import lamella
from lamella.datasets import load_digits

ROUNDS, AT_ONCE = 5, 8

X, y = load_digits()
optuna.logging.set_verbosity(optuna.logging.WARNING)
study = optuna.create_study(
    direction="maximize", sampler=optuna.samplers.TPESampler(seed=0, constant_liar=False)
)


def proposed(trial: optuna.Trial) -> dict[str, Any]:
    """Return a configuration in which Optuna chose the numbers."""
    width = trial.suggest_int("width", 8, 128, log=True)
    depth = trial.suggest_int("depth", 1, 3)
    return {
        "layers": (64, *[width] * depth, 10),
        "learning_rate": trial.suggest_float("learning_rate", 1e-4, 1e-1, log=True),
        "l2": trial.suggest_float("l2", 1e-6, 1e-2, log=True),
        "output": "softmax",
        "epochs": 6,
    }


print(f"{'round':>5} {'best':>7} {'width':>6} {'depth':>6} {'rate':>8} {'l2':>8}")
for round_ in range(1, ROUNDS + 1):
    trials = [study.ask() for _ in range(AT_ONCE)]
    fitted = lamella.fit_many([proposed(t) for t in trials], X / 16, y, validation=0.25)
    for trial, result in zip(trials, fitted, strict=True):
        if result.score is None:  # it diverged
            study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(trial, result.score["accuracy"])
    p = study.best_params
    print(
        f"{round_:>5} {study.best_value:>7.4f} {p['width']:>6} {p['depth']:>6}"
        f" {p['learning_rate']:>8.2g} {p['l2']:>8.2g}"
    )

p = study.best_params
net = lamella.Network((64, *[p["width"]] * p["depth"], 10), output="softmax", l2=p["l2"])
history = net.fit(X / 16, y, epochs=6, learning_rate=p["learning_rate"], diagnose=True)
print(f"the best on all rows: {history.diagnosis}")
