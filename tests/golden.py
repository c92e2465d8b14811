"""What kerasfold plans, writes and says of many models, as it did before the house was built.

`python tests/golden.py` writes it down; `test_golden.py` holds the code of today against it. It
stands only while code is moved.
"""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
from hypothesis import HealthCheck, given, settings

import kerasfold
from kerasfold.lift.regions import lift
from kerasfold.plan.choose import plan
from kerasfold.read.graph import read
from laws.random_graphs import Recipe, Step, build, recipes
from zoo.cases import CASES

HERE = Path(__file__).parent
PLANS, RECIPES, WEIGHTS = (HERE / f"golden_{n}" for n in ("plans.gz", "recipes.gz", "weights.npz"))
OBJECTIVES = ("latency", "macs", "params", "layers")
GRAPHS = 300
FOLDED = 30


def drawn() -> list[Recipe]:
    """Random graphs, as Hypothesis draws them."""
    found: list[Recipe] = []

    @given(recipe=recipes(bilinear=True))
    @settings(max_examples=8 * GRAPHS, deadline=None, derandomize=True, database=None,
              suppress_health_check=list(HealthCheck))  # fmt: skip
    def draw(recipe: Recipe) -> None:
        found.append(recipe)

    draw()
    unlike = list({repr(r): r for r in found if len(r.steps) > 2}.values())
    return unlike[:: len(unlike) // GRAPHS][:GRAPHS]


def stored() -> list[Recipe]:
    with gzip.open(RECIPES, "rt") as file:
        return [eval(line, {"Recipe": Recipe, "Step": Step}) for line in file]


def benchmarks() -> Any:
    sys.path.append(str(HERE.parent / "benchmarks"))
    try:
        import models
    finally:
        sys.path.pop()
    return models


def every_model() -> Iterator[tuple[str, keras.Model]]:
    for i, recipe in enumerate(stored()):
        keras.backend.clear_session()
        yield f"graph {i}", build(recipe)
    for case in CASES:
        keras.backend.clear_session()
        yield f"case {case.id}", case.model("float32")
    for entry in benchmarks().MODELS:
        keras.backend.clear_session()
        yield f"model {entry.name}", entry.build()


def geometry(g: Any) -> str:
    if g is None:
        return "identity"
    axes = [
        f"{a.size}:{a.taps}/{a.stride}*{a.dilation}^{a.upsampling} {a.crop}{a.pad}{a.same}"
        for a in g.axes
    ]
    flags = "".join(str(int(f)) for f in (g.biased, g.ones, g.steady, g.vector, g.normalised))
    return f"[{', '.join(axes)}] {g.channels} {g.groups} {flags}"


def cost(c: Any) -> str:
    return f"{c.macs:.12g} {c.params:.12g} {c.layers} {c.unconvolved} {c.seconds:.9g}"


def described(model: keras.Model, objective: str) -> list[str]:
    found = plan(lift(read(model)), objective)
    lines = [f"{cost(found.cost)} | {cost(found.original)}"]
    for s in found.forms.values():
        terms = "; ".join(f"{read}: {geometry(g)}" for read, g in s.reads.items())
        siblings = tuple(form.node for form in getattr(s, "siblings", ()))
        own = " ".join(
            str(x)
            for x in (
                getattr(s, "middle", getattr(s, "pool", None)),
                getattr(s, "stages", ()),
                getattr(s, "tiling", ()),
                getattr(s, "pool_first", False),
                siblings,
            )
            if x not in (None, (), False)
        )
        lines.append(f"{s.node} {s.name} {s.visited} <{terms}> {cost(s.cost)} {own} {s.refusal}")
    lines += [f"apart {node}: {why}" for node, why in found.apart.items()]
    lines += str(kerasfold.explain(model, objective)).splitlines()
    return [" ".join(line.split()) for line in lines]


def plans() -> Iterator[tuple[str, list[str]]]:
    for name, model in every_model():
        for objective in OBJECTIVES:
            yield f"{name} {objective}", described(model, objective)


def weights() -> Iterator[tuple[str, list[np.ndarray]]]:
    for i, recipe in enumerate(stored()[: 3 * FOLDED : 3]):
        for objective in ("latency", "layers"):
            keras.backend.clear_session()
            model = build(recipe)
            folded = model.fold(objective=objective, verify=False)
            yield f"{3 * i} {objective}", folded.get_weights()


def main() -> None:
    with gzip.open(RECIPES, "wt") as file:
        file.writelines(f"{recipe!r}\n" for recipe in drawn())
    with gzip.open(PLANS, "wt") as file:
        json.dump(dict(plans()), file, indent=0)
    found = {f"{name} {k}": w for name, ws in weights() for k, w in enumerate(ws)}
    np.savez_compressed(WEIGHTS, **found)


if __name__ == "__main__":
    main()
