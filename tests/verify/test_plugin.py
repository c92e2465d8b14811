"""The plugin of pytest, taken by suites that are made up here."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import pytest

from zoo.commands import conv_bn
from zoo.exports import exported

pytest_plugins = ("kerasfold.pytest_plugin", "pytester")

ROOT = Path(__file__).parents[2]
CONFTEST = 'pytest_plugins = "kerasfold.pytest_plugin"\n'
NOTHING_LOADED = """
def pytest_unconfigure():
    import sys
    assert "kerasfold.pytest_plugin" in sys.modules
    assert not {"keras", "tensorflow", "numpy"} & sys.modules.keys()
"""
BESIDE = """
import sys

def test_what_needs_keras_waits_for_it():
    import kerasfold
    assert "keras" not in sys.modules
    import keras
    assert "kerasfold.pipeline" not in sys.modules
    assert type(keras.__loader__).__module__ != "kerasfold.startup"
    image = keras.Input((8,))
    model = keras.Model(image, keras.layers.Dense(2)(keras.layers.Dense(3)(image)))
    assert len(model.fold().layers) == 2
    assert keras.Model.fold is kerasfold.fold
    from kerasfold import FoldError, verify
    assert verify(model, model.fold(objective="layers")).equivalent
    assert not any(type(finder).__name__ == "_Watch" for finder in sys.meta_path)
"""


def suite(folder: Path, conftest: str, tests: str) -> subprocess.CompletedProcess[str]:
    """A suite in a process of its own."""
    (folder / "conftest.py").write_text(conftest)
    (folder / "test_suite.py").write_text(tests)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


def example(fixture: str) -> str:
    """The test in the docstring of a fixture."""
    plugin = sys.modules["kerasfold.pytest_plugin"]
    doc = inspect.getdoc(getattr(plugin, fixture)) or ""
    return textwrap.dedent(doc[doc.index("    def test_") :])


def readme() -> str:
    """The suite in the README."""
    text = (ROOT / "README.md").read_text()
    start = text.index("pytest_plugins = ")
    return text[start : text.index("```", start)]


def test_a_suite_that_uses_no_fixture_loads_nothing(tmp_path: Path) -> None:
    result = suite(tmp_path, CONFTEST + NOTHING_LOADED, "def test_nothing():\n    pass\n")
    assert result.returncode == 0, result.stdout + result.stderr


def test_a_suite_has_all_of_kerasfold_once_it_imports_keras(tmp_path: Path) -> None:
    result = suite(tmp_path, CONFTEST, BESIDE)
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize("fixture", ["fold_equivalent", "assert_models_equivalent", "README"])
def test_the_examples_pass(fixture: str, files: dict[str, str], pytester: pytest.Pytester) -> None:
    for name in ("model", "rewritten"):
        (pytester.path / f"{name}.keras").write_bytes(Path(files["linear.keras"]).read_bytes())
    pytester.makeconftest(CONFTEST)
    source = readme() if fixture == "README" else example(fixture)
    pytester.makepyfile(source)
    passed = pytester.runpytest("-p", "no:cacheprovider", "--kerasfold-update-golden")
    passed.assert_outcomes(passed=source.count("def test_"))


def test_a_failure_is_shown_where_the_suite_asks(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import keras
        import kerasfold

        def test_two_models():
            a, b = (keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]) for _ in "ab")
            kerasfold.assert_equivalent(a, b)
        """
    )
    shown = pytester.runpytest("-p", "no:cacheprovider").stdout.str()
    assert "kerasfold.assert_equivalent(a, b)" in shown
    assert "equivalence/models.py" not in shown


def test_a_golden_file_is_written_when_that_is_asked_for(
    files: dict[str, str], pytester: pytest.Pytester
) -> None:
    model, update = pytester.path / "model.keras", "--kerasfold-update-golden"
    model.write_bytes(Path(files["linear.keras"]).read_bytes())
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(example("golden"))

    def run(*options: str) -> pytest.RunResult:
        return pytester.runpytest("-p", "no:cacheprovider", *options)

    missing = run()
    missing.assert_outcomes(failed=1)
    missing.stdout.fnmatch_lines([f"E*there is no golden file *release-1.npz: `pytest {update}`*"])
    for options in ([update], []):
        run(*options).assert_outcomes(passed=1)
    model.write_bytes(Path(files["other.keras"]).read_bytes())
    changed = run()
    changed.assert_outcomes(failed=1)
    changed.stdout.fnmatch_lines(["E*NOT equivalent: output 'bn' differs*", f"E*{update}*anew)"])


def test_a_difference_fails_with_the_report_alone(
    files: dict[str, str], pytester: pytest.Pytester
) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(
        f"""
        def test_models(assert_models_equivalent):
            assert_models_equivalent({files["linear.keras"]!r}, {files["other.keras"]!r})
        """
    )
    result = pytester.runpytest("-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["E*AssertionError: NOT equivalent: output 'bn' differs*", "E*bn:*"]
    )
    result.stdout.no_fnmatch_line("*pytest_plugin.py*")


def test_what_is_deployed_is_compared_with_its_original(
    assert_models_equivalent: Callable[..., Any], tmp_path: Path
) -> None:
    built = exported(conv_bn(), tmp_path, "model.onnx")
    assert assert_models_equivalent(conv_bn(), built).equivalent
    with pytest.raises(AssertionError, match="less accurate"):
        assert_models_equivalent(conv_bn(last_scale=1.2), built)


def test_a_fold_that_differs_fails_with_the_report(
    fold_equivalent: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a rule that forgets the shift of a BatchNormalization makes it."""
    from kerasfold.lift.rules import RULES

    def forgetful(layer, x):
        return x.scale(layer.gamma)

    monkeypatch.setitem(RULES, keras.layers.BatchNormalization, forgetful)
    with pytest.raises(AssertionError, match=r"(?s)'small' is not handed out: NOT equivalent.*bn"):
        fold_equivalent(conv_bn())


def test_a_golden_file_is_of_one_model(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(CONFTEST)
    pytester.makepyfile(
        """
        import keras

        def model(seed):
            keras.utils.set_random_seed(seed)
            return keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="y")])

        def test_first(golden):
            golden(model(1), "same")

        def test_second(golden):
            golden(model(2), "same")

        def test_empty(golden):
            golden(model(1), "")
        """
    )
    result = pytester.runpytest("-p", "no:cacheprovider", "--kerasfold-update-golden")
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(["E*NOT equivalent*", "E*the name of the file is empty*"])
