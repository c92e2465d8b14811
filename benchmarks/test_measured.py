"""The benchmark of measuring has every plan of its graphs, and tells the best from the chosen."""

from __future__ import annotations

import importlib
import json
from typing import Any

import numpy as np
import pytest

import kerasfold
from zoo.stopwatch import calls, few_calls, forget, started


@pytest.fixture(autouse=True)
def _nothing_known(monkeypatch):
    """Every test starts with nothing timed."""
    forget(monkeypatch)


@pytest.fixture
def benchmark():
    return importlib.import_module("measured")


def test_the_benchmark_has_every_plan_of_its_graphs(benchmark):
    for name, make in benchmark.GRAPHS.items():
        model = make()
        models = benchmark.plans(model)
        everything = [sorted(calls(m)) for m in models]
        assert sorted(calls(model)) in everything, name
        assert sorted(calls(kerasfold.fold(model, "layers", verify=False))) in everything, name
        assert len(models) >= 3
        assert {m.output_shape for m in models} == {model.output_shape}


@pytest.mark.parametrize(("chosen", "code"), [(1.0, 0), (1.06, 1)])
def test_the_benchmark_holds_the_best_against_what_is_chosen(
    chosen, code, benchmark, monkeypatch, tmp_path, capsys
):
    """A stopwatch that finds the model chosen by measuring slower than the same plan, or not."""
    found = started(few_calls, monkeypatch)
    monkeypatch.setattr(benchmark, "deploy", found.deploy)

    def timed(runs: Any, rounds: int) -> np.ndarray:
        times = np.tile([few_calls(run.model) for run in runs], (rounds, 1))
        if rounds == 7:  # the last ones: the chosen one is the first of them
            times[:, 0] *= chosen
        return times

    monkeypatch.setattr(benchmark, "paired_seconds", timed)
    out = tmp_path / "measured.json"
    options = ["--only", "expand", "--runtimes", "xla", "--rounds", "7", "--out", str(out)]
    assert benchmark.main(options) == code
    (row,) = json.loads(out.read_text())["rows"]
    assert (row["graph"], row["runtime"], row["rounds"]) == ("expand", "xla", 7)
    assert row["ratio"]["median"] == pytest.approx(1 / chosen)
    assert (row["best"], row["missed"]) == (["Conv2D 3x3"], bool(code))
    assert f"missed: {code} of 1" in capsys.readouterr().out


@pytest.mark.parametrize("option", ["--rounds", "--first-rounds", "--budget"])
def test_the_benchmark_wants_positive_numbers(option, benchmark, capsys):
    with pytest.raises(SystemExit):
        benchmark.main([option, "0"])
    assert f"{option} must be positive" in capsys.readouterr().err
