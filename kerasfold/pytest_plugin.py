"""Fixtures of pytest with which a suite tests what it folds, or rewrites by hand.

A suite takes them with one line in its `conftest.py`:

    pytest_plugins = "kerasfold.pytest_plugin"

Neither Keras nor its backend is imported before a test asks for one of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import keras

    from kerasfold.equivalence.report import EquivalenceReport


UPDATE = "--kerasfold-update-golden"
_WRITTEN = pytest.StashKey[set[Path]]()  # in this session: what else goes by that name is no other


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option by which golden files are written."""
    parser.getgroup("kerasfold").addoption(
        UPDATE, action="store_true", help="write the files of the fixture `golden` anew"
    )


@pytest.fixture(scope="session")
def fold_equivalent() -> Callable[..., keras.Model]:
    """A function that folds a model, and fails the test where the fold is not equivalent.

    Called as `fold_equivalent(model, **options)`, of a model or the path of its file and the
    options of `kerasfold.fold`, it returns the folded model. The failure has the whole report.

        def test_the_fold_is_smaller(fold_equivalent):
            folded = fold_equivalent("model.keras", objective="params")
            assert folded.fold_report.params_after < folded.fold_report.params_before
    """

    def folded(model: keras.Model | str | os.PathLike[str], **options: Any) -> keras.Model:
        __tracebackhide__ = True
        from kerasfold.errors import EquivalenceError
        from kerasfold.pipeline import fold

        try:
            return fold(_model(model), **options)
        except EquivalenceError as difference:
            raise AssertionError(str(difference)) from None

    return folded


@pytest.fixture(scope="session")
def assert_models_equivalent() -> Callable[..., EquivalenceReport]:
    """A function that fails the test unless two models compute the same, as accurately.

    Called as `assert_models_equivalent(a, b, **options)`, of models or the paths of their files
    and the options of `kerasfold.verify`, it returns the report, which a failure has in full. The
    second may be what was deployed of the first.

        def test_the_rewritten_model_is_the_old_one(assert_models_equivalent):
            assert_models_equivalent("model.keras", "rewritten.keras")
    """

    def compared(
        a: keras.Model | str | os.PathLike[str],
        b: keras.Model | str | os.PathLike[str],
        **options: Any,
    ) -> EquivalenceReport:
        __tracebackhide__ = True
        from kerasfold.equivalence.formats import kind_of
        from kerasfold.equivalence.models import verify

        is_deployed = isinstance(b, (str, os.PathLike)) and kind_of(b) is not None
        report = verify(_model(a), b if is_deployed else _model(b), **options)
        if not report.equivalent:
            raise AssertionError(str(report))
        return report

    return compared


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[..., EquivalenceReport]:
    """A function that fails the test unless a model computes what its original did.

    Called as `golden(model, name, **options)`, of a model or the path of its file, it compares the
    model with what the original gave on fixed inputs, which `golden/NAME.npz` beside the test has,
    or the file whose path (`.npz`) is given for a name. The original itself is not needed. Options
    are those of `kerasfold.golden.check_golden` (`atol`, `rtol`). With
    `pytest --kerasfold-update-golden` the file is written, of the first model that is given for it.

        def test_the_build_is_what_was_released(golden):
            golden("model.keras", "release-1")
    """

    def checked(
        model: keras.Model | str | os.PathLike[str], name: str | os.PathLike[str], **options: Any
    ) -> EquivalenceReport:
        __tracebackhide__ = True
        from kerasfold.golden import check_golden, write_golden

        given = os.fspath(name)
        if not given:
            raise AssertionError("golden(model, name): the name of the file is empty")
        path = request.path.parent / (given if given.endswith(".npz") else f"golden/{given}.npz")
        loaded = _model(model)
        written = request.config.stash.setdefault(_WRITTEN, set())
        if request.config.getoption(UPDATE) and path not in written:
            written.add(path)
            path.parent.mkdir(parents=True, exist_ok=True)
            write_golden(loaded, path)
        elif not path.exists():
            raise AssertionError(
                f"there is no golden file {path}: `pytest {UPDATE}` writes it, of the model that "
                "is tested; commit it"
            )
        report = check_golden(loaded, path, **options)
        if not report.equivalent:
            raise AssertionError(f"{report}\n  (against {path}; `pytest {UPDATE}` writes it anew)")
        return report

    return checked


def _model(model: keras.Model | str | os.PathLike[str]) -> keras.Model:
    """A model as it is; one in a file is loaded, with nothing in it run."""
    if not isinstance(model, (str, os.PathLike)):
        return model
    from kerasfold.files import load
    from kerasfold.paths import check_input

    check_input(os.fspath(model))
    return load(os.fspath(model), {}, known_by="in conftest.py, import")
