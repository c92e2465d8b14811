"""Lift, plan, compose, emit, verify."""

from __future__ import annotations

from typing import Any

import keras

from kerasfold import graph as graphs
from kerasfold import plan as plans
from kerasfold import region
from kerasfold.emit import emit


def compose(regions, plan) -> dict[int, dict[Any, Any]]:
    nodes = regions.program.nodes
    composed = {}
    for index, segment in plan.segments.items():
        if segment.form == "operator":
            composed[index] = plans.operators(nodes, segment.visited)
        elif segment.form == "separable":
            first = [i for i in segment.visited if i <= segment.middle]
            last = [i for i in segment.visited if i > segment.middle]
            (depthwise,) = plans.operators(nodes, first).values()
            (pointwise,) = plans.operators(nodes, last).values()
            composed[index] = {"depthwise": depthwise, "pointwise": pointwise}
    return composed


def fold(model: keras.Model, objective: str = "latency", verify: bool = True):
    g = graphs.read(model)
    regions = region.lift(g)
    plan = plans.plan(regions, objective)
    return emit(regions, plan, compose(regions, plan))
