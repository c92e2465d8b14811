"""Fixtures of pytest with which a suite tests what it folds, or rewrites by hand.

A suite takes them with one line in its `conftest.py`:

    pytest_plugins = "kerasfold.pytest_plugin"

Neither Keras nor its backend is imported before a test asks for one of them.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    import keras

    from kerasfold.equivalence.report import EquivalenceReport


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
    and the options of `kerasfold.verify`, it returns the report, which a failure has in full.

        def test_the_rewritten_model_is_the_old_one(assert_models_equivalent):
            assert_models_equivalent("model.keras", "rewritten.keras")
    """

    def compared(
        a: keras.Model | str | os.PathLike[str],
        b: keras.Model | str | os.PathLike[str],
        **options: Any,
    ) -> EquivalenceReport:
        __tracebackhide__ = True
        from kerasfold.equivalence.models import verify

        report = verify(_model(a), _model(b), **options)
        if not report.equivalent:
            raise AssertionError(str(report))
        return report

    return compared


def _model(model: keras.Model | str | os.PathLike[str]) -> keras.Model:
    """A model as it is; one in a file is loaded, with nothing in it run."""
    if not isinstance(model, (str, os.PathLike)):
        return model
    from kerasfold.files import check_input, load

    check_input(os.fspath(model))
    return load(os.fspath(model), {})
