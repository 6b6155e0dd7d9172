"""scikit-learn's own tests of its multilayer perceptrons, run against the estimators.

The module's source, as it is installed, with the import of the two classes pointing here: what it
defines becomes this module's, so that pytest collects it. Meanwhile scikit-learn's own passes,
gradients and updates raise, so that nobody else does the work.

Exceptions, none of which is a test left out:

- `global_random_seed` is a fixture of scikit-learn's own conftest; here it is one seed.
- Warnings are no errors here, as in scikit-learn's own run.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from sklearn.neural_network import _multilayer_perceptron, _stochastic_optimizers

pytestmark = pytest.mark.filterwarnings("default")

IMPORT = "from sklearn.neural_network import MLPClassifier, MLPRegressor\n"


def _source() -> tuple[str, str]:
    """Return the installed module's source, pointing at the estimators, and its path."""
    spec = importlib.util.find_spec("sklearn.neural_network.tests.test_mlp")
    assert spec is not None
    assert spec.origin is not None
    text = Path(spec.origin).read_text()
    assert text.count(IMPORT) == 1
    return text.replace(
        IMPORT, IMPORT.replace("sklearn.neural_network", "lamella.sklearn")
    ), spec.origin


exec(compile(*_source(), "exec"), globals())


@pytest.fixture(scope="session")
def global_random_seed() -> int:
    """Return the seed of a test that holds for every seed."""
    return 42


@pytest.fixture(autouse=True)
def nobody_else_works(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make scikit-learn's own computation raise."""

    def raises(*_args: Any, **_kwargs: Any) -> None:
        raise AssertionError("scikit-learn's own computation was called")

    base = _multilayer_perceptron.BaseMultilayerPerceptron
    own = ("_backprop", "_compute_loss_grad", "_forward_pass", "_forward_pass_fast")
    for name in (*own, "_fit_stochastic"):
        monkeypatch.setattr(base, name, raises)
    for optimizer in (_stochastic_optimizers.SGDOptimizer, _stochastic_optimizers.AdamOptimizer):
        monkeypatch.setattr(optimizer, "_get_updates", raises)


def test_the_estimators_are_these() -> None:
    """The source above imports what it is meant to test."""
    names = ("MLPClassifier", "MLPRegressor")
    assert {globals()[name].__module__.partition(".")[0] for name in names} == {"lamella"}
    assert sum(name.startswith("test_") for name in globals()) > 40


def test_scikit_learn_itself_cannot_work_here() -> None:
    """What raises is what scikit-learn's own estimators need."""
    own = _multilayer_perceptron.MLPClassifier(max_iter=1)
    with pytest.raises(AssertionError, match="own computation"):
        own.fit([[0.0], [1.0]], [0, 1])
