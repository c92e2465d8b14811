"""The benchmark suite: its models are what they are called, and it reports what it measured.

pytest has this folder on the path, as it has that of every test.
"""

from __future__ import annotations

import functools
import importlib
import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest

import kerasfold
from kerasfold.errors import FoldError
from kerasfold.measure.stopwatch import Times
from zoo.processes import stops


@pytest.fixture(scope="module")
def models():
    return importlib.import_module("models")


@pytest.fixture(scope="module")
def suite():
    pytest.importorskip("matplotlib")
    return importlib.import_module("suite")


def entry(models, name):
    return next(e for e in models.MODELS if e.name == name)


# models


def test_names_are_single_words_of_their_own(models):
    names = [e.name.lower() for e in models.MODELS]
    assert len(set(names) | set(models.GROUPS)) == len(names) + len(models.GROUPS)
    assert not [name for name in names if len(name.split()) != 1]
    assert {"four-poolings", "four-strides", "repvgg", "same-on-same", "mobilenetv2"} <= set(names)


def test_models_are_the_same_each_time_and_have_biases(models):
    first, second = (entry(models, "3x3-3x3-same-56").build() for _ in range(2))
    for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert all(np.all(layer.bias) for layer in first.layers)


PLAIN = (
    "RepVGG",
    "MobileOne",
    "DBB",
    "ExpandNet",
    "SESR",
    "3x3-wide-1x1-128",
    "3x3-pool-112",
    "pool-1x1-56",
    "transition-56",
    "separable-relu-56",
    "strided-residual-28",
)
NARROW = ("ResNet50-pruned", "MobileNetV2-pruned")  # with what leaves no more than a plain form


def test_these_have_a_plain_form(models):
    assert tuple(e.name for e in models.MODELS if e.plain) == PLAIN + NARROW


@pytest.mark.parametrize("name", PLAIN)
def test_plain_networks_take_and_give_the_same_and_are_what_folding_finds(models, name):
    model, plain = entry(models, name).build(), entry(models, name).plain()
    assert (model.input_shape, model.output_shape) == (plain.input_shape, plain.output_shape)
    found, best = kerasfold.explain(model), kerasfold.explain(plain)
    assert found.macs_after == best.macs_before
    assert found.params_after == best.params_before
    assert found.layers_after == best.layers_before


@pytest.mark.parametrize("name", NARROW)
def test_pruned_networks_have_no_more_left_than_narrow_ones(models, name):
    model, narrow = entry(models, name).build(), entry(models, name).plain()
    assert (model.input_shape, model.output_shape) == (narrow.input_shape, narrow.output_shape)
    found, built = kerasfold.explain(model), kerasfold.explain(narrow)
    assert built.macs_before < 0.6 * found.macs_before
    assert found.macs_after <= built.macs_before
    assert found.layers_after <= built.layers_before


def test_steps_are_there_alone_and_in_pairs(models):
    steps = models.chosen(["steps"])
    none = len(models.WIDER)  # behind a mean of all pixels
    assert len(steps) == len(models.STEPS) * (1 + len(models.STEPS)) - none
    assert entry(models, "slice+shift").build().output_shape == (None, 28, 28, 16)


def test_the_same_third_is_dead_wherever_it_is_added_up(models):
    model = models.pruned(models.nets.network(models.nets.repvgg))
    convs = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert convs
    for conv in convs:
        dead = ~np.any(np.asarray(conv.kernel), axis=(0, 1, 2))
        assert np.flatnonzero(dead).tolist() == sorted(models.dead(conv.filters))
        assert not np.any(np.asarray(conv.bias)[dead]) if conv.use_bias else True


def test_models_are_chosen_by_name_and_group(models):
    assert [e.name for e in models.chosen(["repvgg", "RESNET50"])] == ["RepVGG", "ResNet50"]
    assert [e.name for e in models.chosen(["repvgg", "ResNet50"], False)] == ["RepVGG"]
    assert {e.group for e in models.chosen(["seeds", "pooling"])} == {"seeds", "pooling"}
    assert models.chosen(None) == [e for e in models.MODELS if e.group != "steps"]
    with pytest.raises(ValueError, match="no model or group melons: choose of seeds, blocks,"):
        models.chosen(["seeds", "melons"])


# suite


@pytest.fixture(scope="module")
def measured(suite):
    """Measures as the suite does, what it was asked for before not again."""
    known = functools.cache(suite.measure)
    return lambda entry, runtime, variants, limits: known(entry, runtime, tuple(variants), limits)


@pytest.fixture
def start(suite, monkeypatch, tmp_path):
    """Runs the suite here, on one or two models; the rows of its file, by model and runtime."""
    monkeypatch.setattr(suite, "measure_apart", suite.measure)

    def call(*options: str) -> dict:
        out = tmp_path / "suite.json"
        common = ("--pairs", "2", "--seconds", "0", "--out", str(out))
        assert suite.main([*common, "--variants", "layers", "latency", "plain", *options]) == 0
        rows = json.loads(out.read_text())["rows"]
        assert sorted(p.name for p in tmp_path.iterdir()) == ["suite.json", "suite.png"]
        return {(row["model"], row["runtime"]): row for row in rows}

    return call


SMALL = ("--only", "average-pooling", "transition-56", "--runtimes", "tensorflow", "litert")


def test_the_suite_measures_prints_and_draws(start, suite, measured, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(suite, "measure_apart", measured)
    rows = start(*SMALL)
    models, runtimes = ("average-pooling", "transition-56"), ("tensorflow", "litert")
    assert list(rows) == [(model, runtime) for model in models for runtime in runtimes]
    for (model, _), row in rows.items():
        variants = ["layers", "latency"] + ["plain"] * (model == "transition-56")
        assert list(row["ratios"]) == variants
        assert list(row["seconds"]) == ["original", *variants]
        assert list(row["to_plain"]) == variants[1:2] * (model == "transition-56")
        assert list(row["errors"]) == variants[:2]
        assert max(row["errors"].values()) < 1e-5
        assert (row["deployments"], row["failed"]) == (2, {})
    printed = capsys.readouterr().out
    for part in (
        "original / variant",
        "geometric means",
        "latency slower than the original: 0 of 4",
        "latency slower than the plain network: 0 of 2",
        f"keras {keras.__version__}",
    ):
        assert part in printed
    assert (tmp_path / "suite.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_goes_on_where_it_was_broken_off(start, suite, measured, monkeypatch, tmp_path):
    asked = []

    def measure(entry, runtime, variants, limits):
        asked.append((entry.name, runtime))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return measured(entry, runtime, variants, limits)

    monkeypatch.setattr(suite, "measure_apart", measure)
    with pytest.raises(KeyboardInterrupt):
        start(*SMALL)
    (first,) = json.loads((tmp_path / "suite.json").read_text())["rows"]
    rows = start(*SMALL, "--append")
    assert asked[2:] == [
        ("average-pooling", "litert"),
        ("transition-56", "tensorflow"),
        ("transition-56", "litert"),
    ]
    assert len(rows) == 4
    assert rows["average-pooling", "tensorflow"] == first
    start(*SMALL, "--append")
    assert len(asked) == 5


def test_a_variant_that_a_file_lacks_is_measured_with_those_it_has(start):
    one = ("--only", "transition-56", "--runtimes", "tensorflow")
    start(*one, "--variants", "latency")
    (row,) = start(*one, "--variants", "plain", "--append").values()
    assert row["variants"] == ["latency", "plain"]
    assert list(row["to_plain"]) == ["latency"]


def test_a_file_of_another_machine_is_not_mixed_with(start, suite, measured, monkeypatch, capsys):
    monkeypatch.setattr(suite, "measure_apart", measured)
    one = ("--only", "average-pooling", "--runtimes", "tensorflow")
    start(*one)
    monkeypatch.setattr(suite, "cpu", lambda: "an abacus")
    with pytest.raises(SystemExit):
        start(*one, "--append")
    assert "suite.json was measured on " in capsys.readouterr().err


def test_what_is_slower_is_said(start, suite, monkeypatch, capsys):
    def timed(deploys, trials, rounds, **limits):
        """Original, layers, latency, plain, and the original again: seconds of some runs."""
        seconds = np.array([1.0, 1.25, 0.5, 0.4, 1.0])
        shape = (trials, rounds, len(deploys) + 1)
        samples = seconds * np.random.default_rng(0).uniform(0.999, 1.001, shape)
        return Times([[trial[:, [i]] for i in range(len(seconds))] for trial in samples])

    monkeypatch.setattr(suite, "timed", timed)
    (row,) = start("--only", "transition-56", "--runtimes", "tensorflow").values()
    assert row["slower"] == ["layers"]
    assert row["slower_than_plain"] == ["latency"]
    assert row["seconds"] == pytest.approx(
        {"original": 1.0, "layers": 1.25, "latency": 0.5, "plain": 0.4}, rel=1e-2
    )
    assert row["ratios"]["latency"]["median"] == pytest.approx(2.0, rel=1e-2)
    printed = capsys.readouterr().out
    assert "layers slower than the original: 1 of 1" in printed
    assert "  transition-56 on tensorflow: 0.80 (0.80-0.80)" in printed
    assert "latency slower than the original: 0 of 1" in printed
    assert "latency slower than the plain network: 1 of 1" in printed


@pytest.mark.parametrize("fails", ["original", "latency"])
def test_what_a_runtime_refuses_is_said(start, suite, monkeypatch, capsys, fails):
    real, calls = suite.deployer, []

    def deployer(*args):
        calls.append(args)
        if len(calls) == {"original": 1, "latency": 3}[fails]:
            raise FoldError("no such kernel")
        return real(*args)

    monkeypatch.setattr(suite, "deployer", deployer)
    (row,) = start("--only", "transition-56", "--runtimes", "tensorflow").values()
    assert row["failed"] == {fails: "no such kernel"}
    assert list(row["ratios"]) == ([] if fails == "original" else ["layers", "plain"])
    printed = capsys.readouterr().out
    assert f"failed: transition-56 on tensorflow, {fails}: no such kernel" in printed


@pytest.mark.parametrize(("group", "verify"), [("applications", False), ("seeds", True)])
def test_how_folds_are_asked_for(suite, models, monkeypatch, group, verify):
    asked = []

    def fold(model, objective, **options):
        asked.append((objective, options))
        return model

    monkeypatch.setattr(suite, "kerasfold", SimpleNamespace(fold=fold))
    it = entry(models, "average-pooling")._replace(group=group)
    for variant in ("original", "layers", "latency", "told", "measured"):
        limits = suite.Limits(2, 2, 0.0, 7.0, verify=False, batch=8)
        suite.form(variant, it, "the model", "xla", limits)
    there = {"runtime": "xla", "batch_size": 8}
    assert asked == [
        ("layers", {"verify": verify}),
        ("latency", {"verify": verify}),
        ("latency", {"verify": verify} | there),
        ("measured", {"verify": verify, "budget": 7.0, "progress": False} | there),
    ]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--only", "melons"), "no model or group melons"),
        (("--only", "ResNet50", "--no-applications"), "no model is left"),
    ],
)
def test_wrong_arguments_measure_nothing(suite, tmp_path, capsys, options, message):
    with pytest.raises(SystemExit):
        suite.main([*options, "--out", str(tmp_path / "suite.json")])
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wrong", [1.0, np.nan])
def test_a_variant_that_a_runtime_computes_wrongly_is_not_timed(
    start, suite, monkeypatch, capsys, wrong
):
    real, calls = suite.deployer, []

    def deployer(*args):
        calls.append(args)
        deploy = real(*args)
        run = deploy()
        return deploy if len(calls) != 2 else lambda: lambda: [y + wrong for y in run()]

    monkeypatch.setattr(suite, "deployer", deployer)
    (row,) = start("--only", "transition-56", "--runtimes", "tensorflow").values()
    assert row["failed"]["layers"].startswith("its outputs are wrong there, by ")
    assert list(row["seconds"]) == ["original", "latency", "plain"]
    assert "tensorflow, layers: its outputs are wrong there" in capsys.readouterr().out


LIMITS = (2, 2, 0.0, 1.0, False)


def test_models_are_measured_in_processes_of_their_own(suite, models):
    it, limits = entry(models, "average-pooling"), suite.Limits(*LIMITS)
    row = suite.measure_apart(it, "litert", ["layers", "latency"], limits)
    assert list(row["ratios"]) == ["layers", "latency"]


@pytest.mark.parametrize(
    ("runtime", "variant"), [("litert", "layers"), ("openvino", "original"), ("xla", "original")]
)
def test_a_process_that_stops_costs_what_it_was_making(suite, models, runtime, variant):
    it = entry(models, "average-pooling")
    row = suite.measure_apart(it, runtime, ["layers", "latency"], LIMITS, stops)
    assert row["failed"] == {variant: "its process stopped with exit code 7"}
