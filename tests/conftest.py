"""Fixtures that several folders of tests share.

What needs Keras is imported by the fixture that needs it: the laws of the algebra need none.
"""

from __future__ import annotations

import os

# Of small matrices, BLAS's own threads wait for each other, and for those of other workers; read
# when NumPy is imported.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile(
    "same_each_time",
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
settings.load_profile("same_each_time")
os.environ.pop("COLUMNS", None)  # which whoever runs the tests in parallel sets


# Of each room something: run as `pytest -m smoke`.
SMOKE = (
    "algebra/test_refusals.py",
    "algebra/test_sums.py",
    "cli/test_cli_arguments.py",
    "cli/test_cli_fold.py",
    "fold/test_bad_input.py",
    "fold/test_blocks.py",
    "read/test_warnings.py",
    "test_docstrings.py",
    "test_house.py",
    "verify/test_verify.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of some files."""
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here) and str(item.path.relative_to(here)) in SMOKE:
            item.add_marker("smoke")


@pytest.fixture
def fresh() -> Iterator[None]:
    """Seeds are set, and the dtype policy is given back."""
    import keras

    before = keras.config.dtype_policy()
    keras.utils.set_random_seed(0)
    yield
    keras.config.set_dtype_policy(before)


@pytest.fixture
def float64() -> Iterator[None]:
    """Layers are made in float64."""
    from zoo.making import policy

    with policy("float64"):
        yield


@pytest.fixture
def rules_restored() -> Iterator[None]:
    """Lift rules that a test adds are gone after it."""
    from kerasfold.lift.rules import RULES

    before = dict(RULES)
    yield
    RULES.clear()
    RULES.update(before)


@pytest.fixture
def no_strips(monkeypatch: pytest.MonkeyPatch) -> None:
    """A border is computed by tiles, or not apart from the interior."""
    from kerasfold.forms.framed import Framed

    monkeypatch.setattr(Framed, "propose", lambda *_: None)


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Stored models, by what they are."""
    import keras

    from zoo.commands import conv_bn

    folder = tmp_path_factory.mktemp("models")
    models = {
        "linear.keras": conv_bn(),
        "legacy.h5": conv_bn(),
        "relu.keras": conv_bn(activation="relu"),
        "other.keras": conv_bn(last_scale=1.2),
    }
    a, b = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    image = keras.Input((8, 8, 3))
    models["folded.keras"] = keras.Model(image, keras.layers.Conv2D(4, 3, padding="same")(image))
    models["two.keras"] = keras.Model([a, b], keras.layers.Dense(2)(keras.layers.Add()([a, b])))
    for name, model in models.items():
        model.save(folder / name)
    return {name: str(folder / name) for name in models}


@pytest.fixture
def run(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    """Runs the command line; its exit code, standard output and standard error."""
    from kerasfold.cli import main

    monkeypatch.setattr("kerasfold.commands.progress.PAUSE", 1e6)  # however slow the machine is

    def call(*args: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main([str(arg) for arg in args])
        return (code, *capsys.readouterr())

    return call


@pytest.fixture
def nothing_known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is timed yet."""
    from zoo.stopwatch import forget

    forget(monkeypatch)


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Any]:
    """Starts a stopwatch by which a model takes what a function says."""
    from zoo.stopwatch import started

    return lambda price: started(price, monkeypatch)
