"""What `kerasfold verify` writes beside its verdict: JUnit XML, a page, inputs to replay."""

from __future__ import annotations

import importlib
import json
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import keras
import numpy as np
import pytest

import kerasfold
from kerasfold.equivalence.report import EquivalenceReport
from kerasfold.junit import junit
from kerasfold.reports.compared import page
from zoo.commands import assert_fails
from zoo.pages import Page

HOSTILE = "<script>alert('x')</script>\x00&\"]]>"


def report(name: str = "scores", shift: float = 1.0) -> EquivalenceReport:
    """Of two models with an output that agrees and, with a shift, one that does not."""

    def made(offset: float) -> keras.Model:
        i = keras.Input((6,), name="x")
        heads = [keras.layers.Dense(6, kernel_initializer="identity", name=n) for n in "ab"]
        model = keras.Model(i, [head(i) for head in heads])
        heads[1].bias.assign(offset * np.eye(6)[0])
        return model

    x = np.random.default_rng(0).normal(size=(30, 6))
    found = kerasfold.verify(made(0.0), made(shift), x, labels=x.argmax(axis=1))
    renamed = replace(found.outputs[1], name=name)
    renamed = replace(renamed, agreement=replace(renamed.agreement, output=name))
    return replace(found, outputs=(found.outputs[0], renamed))


def inconclusive(found: EquivalenceReport) -> EquivalenceReport:
    outputs = tuple(replace(out, doubt="noise hides it") for out in found.outputs)
    return replace(found, verdict="inconclusive", outputs=outputs, reason="noise hides it")


def test_a_page_holds_the_verdict_and_each_output() -> None:
    text = page(report(), "a.keras against b.keras")
    assert "<h1>a.keras against b.keras</h1>" in text
    assert ">different</strong>" in text
    assert text.count("<tr><td>") == 2 + 2 * (2 + 6)  # outputs; agreement, accuracy, classes
    assert "prefers-color-scheme: dark" in text
    assert "script" not in Page(text).seen


def test_nothing_in_a_page_comes_from_elsewhere() -> None:
    assert not re.search(r"https?:|src=|href=|@import|url\(", page(report(), "a against b"))


def test_names_are_escaped() -> None:
    text = page(report(HOSTILE), HOSTILE)
    assert "<script" not in text
    assert "&lt;script&gt;" in text
    assert Page(text).seen.count("script") == 0
    suite = ElementTree.fromstring(junit(report(HOSTILE), HOSTILE))
    shown = HOSTILE.replace("\x00", "\N{REPLACEMENT CHARACTER}")
    assert suite.get("name") == shown
    assert suite.findall("testcase")[1].get("name") == f"output {shown}"


def test_a_notebook_shows_the_report_as_it_is_printed() -> None:
    shown = report(HOSTILE)._repr_html_()
    assert "NOT equivalent" in shown
    assert "<script" not in shown
    assert "&lt;script&gt;" in shown


def test_junit_has_a_test_for_each_output() -> None:
    found = report()
    suite = ElementTree.fromstring(junit(found, "a against b"))
    assert {key: suite.get(key) for key in ("tests", "failures", "errors")} == {
        "tests": "3",
        "failures": "1",
        "errors": "0",
    }
    good, bad, signature = suite.findall("testcase")
    assert (signature.get("name"), len(signature)) == ("signature", 0)
    assert (good.get("name"), len(good)) == ("output a", 0)
    assert bad.find("failure").get("message") == found.outputs[1].reason
    assert bad.find("failure").text == str(found)


def test_junit_calls_what_was_not_shown_an_error() -> None:
    suite = ElementTree.fromstring(junit(inconclusive(report(shift=0.0)), "a against b"))
    assert (suite.get("failures"), suite.get("errors")) == ("0", "2")
    assert suite.find("testcase/error").get("message") == "noise hides it"


def test_junit_has_a_test_for_the_signature() -> None:
    x, y = keras.Input((3,), name="x"), keras.Input((3,), name="y")
    found = kerasfold.verify(keras.Model(x, 2.0 * x), keras.Model(y, 2.0 * y))
    suite = ElementTree.fromstring(junit(found, "a against b"))
    (test,) = (test for test in suite.findall("testcase") if test.find("failure") is not None)
    assert test.get("name") == "signature"
    assert "'x'" in test.find("failure").get("message")


def test_junit_has_a_test_for_a_verdict_that_is_no_outputs() -> None:
    found = replace(report(shift=0.0), verdict="different", reason="other shapes")
    suite = ElementTree.fromstring(junit(found, "a against b"))
    (failure,) = suite.findall("testcase/failure")
    assert failure.get("message") == "other shapes"


def test_verify_writes_what_it_is_asked_for(files, run, tmp_path) -> None:
    xml, html = tmp_path / "r.xml", tmp_path / "r.html"
    pair = (files["linear.keras"], files["other.keras"])
    code, stdout, stderr = run("verify", *pair, "--junit", xml, "--html", html, "--json")
    assert (code, stderr) == (1, "")
    found = json.loads(stdout)
    assert ElementTree.parse(xml).getroot().get("name") == "linear.keras against other.keras"
    assert found["outputs"][0]["name"] in html.read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["r.html", "r.xml"]


@pytest.mark.parametrize(
    ("other", "message"),
    [("nothere.tflite", "nothere.tflite does not exist"), ("bad.keras", "bad.keras ")],
    ids=["missing", "damaged"],
)
def test_junit_has_the_error_where_nothing_is_compared(
    files, run, tmp_path, monkeypatch: pytest.MonkeyPatch, other: str, message: str
) -> None:
    """And not what an earlier run found."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bad.keras").write_bytes(b"no model")
    (tmp_path / "r.xml").write_text("<testsuite/>")
    code, _, stderr = run("verify", files["linear.keras"], other, "--junit", "r.xml")
    suite = ElementTree.parse("r.xml").getroot()
    assert (code, suite.get("tests"), suite.get("errors")) == (2, "1", "1")
    said = suite.find("testcase/error").get("message")
    assert message in said
    assert said in stderr


def test_what_is_dumped_shows_the_difference_again(files, run, tmp_path) -> None:
    pair, dumped = (files["linear.keras"], files["other.keras"]), tmp_path / "x.npz"
    first = json.loads(run("verify", *pair, "--dump", dumped, "--json")[1])
    code, stdout, _ = run("verify", *pair, "--data", dumped, "--json")
    assert code == 1
    assert json.loads(stdout)["max_abs_error"] == pytest.approx(first["max_abs_error"], rel=1e-9)


def test_nothing_is_dumped_where_nothing_differs(files, run, tmp_path) -> None:
    pair, dumped = (files["linear.keras"], files["legacy.h5"]), tmp_path / "x.npz"
    dumped.write_bytes(b"of a run before")
    code, _, stderr = run("verify", *pair, "--dump", dumped)
    assert (code, dumped.exists()) == (0, False)
    assert stderr == f"kerasfold: no inputs show a difference: {dumped} not written\n"


def test_a_loose_signature(run, tmp_path) -> None:
    paths = []
    for name in ("x", "y"):
        i = keras.Input((3,), name=name)
        paths.append(tmp_path / f"{name}.keras")
        keras.Model(i, keras.layers.Dense(2, kernel_initializer="ones")(i)).save(paths[-1])
    assert run("verify", *paths)[0] == 1
    assert run("verify", *paths, "--loose-signature")[0] == 0


def test_what_is_deployed_is_held_against_its_original(files, run, tmp_path) -> None:
    """Percentiles of its errors stand in the page."""
    model = keras.saving.load_model(files["linear.keras"])
    model.export(tmp_path / "saved", verbose=False)
    html = tmp_path / "r.html"
    pair = (files["linear.keras"], tmp_path / "saved")
    code, stdout, _ = run("verify", *pair, "--html", html, "--atol", "1e-3")
    assert (code, "equivalent within atol 0.001" in stdout) == (0, True)
    assert html.read_text().count("<td>absolute</td>") == 1
    assert "allowed (atol 0.001, rtol 0)" in html.read_text()
    assert "table" in Page(html.read_text()).seen
    assert_fails(run("verify", pair[0], tmp_path), 2, r"\S+ is a directory, not a file")


def test_inconclusive_is_exit_code_3(files, run, monkeypatch) -> None:
    found = inconclusive(report(shift=0.0))
    command = importlib.import_module("kerasfold.commands.verify")
    monkeypatch.setattr(command, "verify", lambda *args, **options: found)
    code, stdout, stderr = run("verify", files["linear.keras"], files["linear.keras"])
    assert (code, stderr) == (3, "")
    assert stdout.startswith("inconclusive: noise hides it (")


def test_a_fold_whose_accuracy_cannot_be_told_is_written_with_exit_code_3(
    files, run, tmp_path, monkeypatch
) -> None:
    def unsure(*args: object, **options: object) -> keras.Model:
        folded = kerasfold.fold(*args, **options)
        found = inconclusive(folded.fold_report.equivalence)
        folded.fold_report = replace(folded.fold_report, equivalence=found)
        return folded

    monkeypatch.setattr(importlib.import_module("kerasfold.commands.fold"), "fold", unsure)
    code, stdout, stderr = run("fold", files["linear.keras"], "-o", tmp_path / "out.keras")
    assert (code, stderr) == (3, "")
    assert "inconclusive: noise hides it (" in stdout
    assert (tmp_path / "out.keras").exists()


def test_a_tolerance_and_a_size(files, run, tmp_path) -> None:
    assert run("verify", files["linear.keras"], files["other.keras"], "--atol", "1e3")[0] == 0
    keras.Sequential([keras.Input((None, None, 2)), keras.layers.Conv2D(2, 3)]).save(
        free := tmp_path / "free.keras"
    )
    assert run("verify", free, free, "--input-shape", "7,5,2")[0] == 0
    result = run("verify", free, free, "--input-shape", "7,5,3")
    assert_fails(result, 2, r"input_shape=\[\(7, 5, 3\)\] does not fit the inputs .*")


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--junit", "r.txt"], r"r\.txt has an unknown extension: expected \.xml"),
        (["--html", "none/r.html"], r"output folder \S+none does not exist"),
        (["--dump", "x.npy"], r"x\.npy has an unknown extension: expected \.npz"),
        (["--atol", "-1"], r"argument --atol: expected a number, 0 or more.*'-1'.*"),
        (["--rtol", "inf"], r"argument --rtol: expected a number, 0 or more.*'inf'.*"),
        (["--input-shape", "3,0"], r"argument --input-shape: expected a whole number .*'0'.*"),
    ],
)
def test_where_nothing_can_be_written_nothing_is_compared(
    files, run, tmp_path, monkeypatch, args, message
) -> None:
    monkeypatch.chdir(tmp_path)
    command = importlib.import_module("kerasfold.commands.verify")
    monkeypatch.setattr(command, "load", lambda *args: pytest.fail("a model was loaded"))
    assert_fails(run("verify", files["linear.keras"], files["linear.keras"], *args), 2, message)
    assert list(Path().iterdir()) == []


def test_help_lists_the_exit_codes(run) -> None:
    for args in (["--help"], ["verify", "--help"]):
        text = " ".join(run(*args)[1].split())
        assert all(f"{code} " in text.split("exit codes:")[1] for code in range(4))
