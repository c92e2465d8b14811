"""Reports are kept: in the file of a fold, as JSON that follows a schema."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

import kerasfold
from kerasfold.read.weights import digest
from kerasfold.reports.record import Pace
from kerasfold.reports.stored import plain, restored, schema
from kerasfold.reports.views import FoldReport
from zoo.attempts import TRIED
from zoo.commands import assert_fails, conv_bn


@pytest.fixture(scope="module")
def folded() -> keras.Model:
    return conv_bn(activation="relu").fold()


def rewritten(path: Path, change: Any) -> None:
    """A file with other metadata."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    metadata = json.loads(members["metadata.json"])
    change(metadata)
    members["metadata.json"] = json.dumps(metadata).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)


def test_a_saved_fold_keeps_its_report(folded, tmp_path) -> None:
    kerasfold.save(folded, tmp_path / "folded.keras")
    assert kerasfold.report_of(tmp_path / "folded.keras") == folded.fold_report
    assert kerasfold.report_of(folded) is folded.fold_report
    assert [path.name for path in tmp_path.iterdir()] == ["folded.keras"]


def test_the_report_says_what_was_folded_by_what() -> None:
    model = conv_bn()
    report = model.fold("macs").fold_report
    assert (report.version, report.objective) == (kerasfold.__version__, "macs")
    assert report.original == digest(model)
    model.layers[1].bias.assign_add([1.0] * 4)
    assert report.original != digest(model)


def test_keras_loads_what_was_saved_as_any_other_file(folded, tmp_path) -> None:
    path = tmp_path / "folded.keras"
    kerasfold.save(folded, path)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert sorted(archive.namelist()) == ["config.json", "metadata.json", "model.weights.h5"]
        assert json.loads(archive.read("metadata.json"))["keras_version"] == keras.__version__
    x = np.random.default_rng(0).normal(size=(2, *folded.input_shape[1:]))
    loaded = keras.saving.load_model(path)
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), folded.predict(x, verbose=0))


def test_what_keras_does_with_a_fold_is_keras_s(folded, tmp_path) -> None:
    folded.save(tmp_path / "plain.keras")
    for again in (copy.deepcopy(folded), pickle.loads(pickle.dumps(folded))):
        assert [layer.name for layer in again.layers] == [layer.name for layer in folded.layers]
    with pytest.raises(kerasfold.FoldError, match=r"plain\.keras holds no report: `kerasf"):
        kerasfold.report_of(tmp_path / "plain.keras")


def test_a_model_that_is_no_fold_has_no_report(tmp_path) -> None:
    model = conv_bn()
    for asked in (kerasfold.report_of, lambda m: kerasfold.save(m, tmp_path / "x.keras")):
        with pytest.raises(kerasfold.FoldError, match="'small' has no report of a fold"):
            asked(model)
    assert list(tmp_path.iterdir()) == []


def test_a_fold_is_saved_whole_or_not_at_all(folded, tmp_path, monkeypatch) -> None:
    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("kerasfold.keeping.put", full)
    with pytest.raises(kerasfold.FoldError, match="No space left on device"):
        kerasfold.save(folded, tmp_path / "folded.keras")
    with pytest.raises(kerasfold.FoldError, match="unknown extension"):
        kerasfold.save(folded, tmp_path / "folded.h5")
    assert list(tmp_path.iterdir()) == []


def test_a_fold_of_the_user_s_own_layers_is_saved(tmp_path) -> None:
    class Doubled(layers.Layer):
        def call(self, x):
            return keras.ops.relu(2 * x)

    model = keras.Sequential([keras.Input((4,)), layers.Dense(3), Doubled(name="own")])
    kerasfold.save(model.fold(open_layers=False), tmp_path / "own.keras")
    assert kerasfold.report_of(tmp_path / "own.keras").layers_after == 2


def test_a_report_is_printed_later(files, run, tmp_path) -> None:
    out, source = tmp_path / "out.keras", Path(files["linear.keras"])
    assert run("fold", source, "-o", out)[0] == 0
    code, stdout, stderr = run("report", out)
    assert (code, stderr) == (0, "")
    assert f"; equivalent; written to {out}\n" in stdout
    values = json.loads(run("report", out, "--json")[1])
    assert values["files"] == {
        "read": str(source),
        "written": str(out),
        "bytes_before": source.stat().st_size,
        "bytes_after": out.stat().st_size,
        "sha256": hashlib.sha256(source.read_bytes()).hexdigest(),
        "training": 0,
    }
    assert_fails(run("report", source), 2, r"\S+linear\.keras holds no report: .*")
    assert_fails(run("report", files["legacy.h5"]), 2, r"\S+ has an unknown extension: .*")


def test_a_report_of_a_later_schema_is_refused_by_name(folded, tmp_path) -> None:
    path = tmp_path / "later.keras"
    kerasfold.save(folded, path)
    rewritten(path, lambda metadata: metadata["kerasfold"].update(schema=99))
    with pytest.raises(kerasfold.FoldError, match="a report of schema 99, and this kerasfold"):
        kerasfold.report_of(path)


@pytest.mark.parametrize(
    "change",
    [
        {"merged": 3},
        {"merged": [{"into": 3, "kind": "", "layers": []}]},
        {"macs_before": "many"},
        {"flows": [{"before": 1, "after": 2}]},
        {"model": None},
    ],
)
def test_what_is_no_report_is_refused(folded, tmp_path, change) -> None:
    path = tmp_path / "odd.keras"
    kerasfold.save(folded, path)
    rewritten(path, lambda metadata: metadata["kerasfold"].update(change))
    with pytest.raises(kerasfold.FoldError, match="no report that follows schema 1"):
        kerasfold.report_of(path)


def test_json_goes_there_and_back(folded) -> None:
    found = {"measured": Pace("litert", 2.0, 1.0), "tried": TRIED, "note": "é"}
    measured = replace(folded.fold_report, **found)
    for report in (measured, kerasfold.explain(conv_bn())):
        assert restored(FoldReport, json.loads(json.dumps(plain(report)))) == report


def test_json_follows_its_schema(folded, run) -> None:
    jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed")
    published = json.loads(run("schema")[1])
    jsonschema.Draft202012Validator.check_schema(published)
    measured = replace(folded.fold_report, tried=TRIED)
    for report in (folded.fold_report, kerasfold.explain(conv_bn()), measured):
        values = report.to_dict()
        jsonschema.validate(values, published)
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**values, "macs_before": "many"}, published)


def test_the_schema_says_what_each_value_is() -> None:
    found = schema(FoldReport)
    assert found["title"] == "kerasfold report, version 1"
    assert found["properties"]["params_after"]["description"] == "weights of the folded model."
    described = {name for name, value in found["properties"].items() if "description" in value}
    assert found["properties"].keys() - described == {"schema"}


def test_a_fold_that_was_trained_is_not_said_to_be_verified(tmp_path) -> None:
    folded = keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(2), keras.layers.ReLU()]
    ).fold()
    assert kerasfold.report_of(folded) == folded.fold_report
    folded.compile("sgd", "mse")
    folded.fit(np.ones((8, 4)), np.ones((8, 2)), verbose=0)
    folded.weights[0].assign(folded.weights[0] + 1)
    kerasfold.save(folded, tmp_path / "trained.keras")
    for report in (kerasfold.report_of(folded), kerasfold.report_of(tmp_path / "trained.keras")):
        assert report.equivalence is None
        assert "not verified" in report.headline
        assert "its weights are others now than those that were verified" in str(report)
