"""Slices with strides become a reshape and a slice of neighbours, where they divide the sizes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from keras import layers

import kerasfold
from kerasfold.layers.select import in_blocks
from zoo.making import chain
from zoo.same import FLOAT64, assert_same, kinds

Axes = list[tuple[int, slice]]


@st.composite
def axes(draw: st.DrawFn) -> Axes:
    """Sizes, and a slice of each; mostly such that strides divide sizes."""
    found = []
    for strides in (*[st.integers(1, 4)] * draw(st.integers(1, 3)), st.just(1)):
        step = draw(strides)
        size = step * draw(st.integers(1, 4)) + draw(st.sampled_from([0, 0, 0, 0, 1]))
        first = draw(st.integers(0, size - 1))
        found.append((size, slice(first, draw(st.integers(first + 1, size)), step)))
    return found


@given(axes())
def test_blocks_are_the_slice(axes: Axes) -> None:
    sizes, place = zip(*axes, strict=True)
    image = np.arange(np.prod(sizes)).reshape(sizes)
    blocks = in_blocks(sizes, place)
    steps = [kept.step for kept in place]
    divides = not any(n % step for n, step in zip(sizes, steps, strict=True))
    assert (blocks is not None) == (divides and max(steps) > 1)
    if blocks is not None:
        assert np.array_equal(image.reshape(blocks[0])[blocks[1]], image[place])
        assert all(kept.step in (None, 1) for kept in blocks[1])


@pytest.mark.parametrize(
    ("shape", "place"),
    [
        ((32, 36, 16), (slice(1, None, 2), slice(None, None, 3))),
        ((32, 35, 16), (slice(None, None, 4), slice(1, 30))),
        ((900, 16), (slice(2, 890, 3),)),
        ((8, 12, 16, 16), (slice(None, None, 2), slice(1, None, 2), slice(None, None, 4))),
    ],
)
def test_a_slice_behind_an_activation(shape: Any, place: tuple[slice, ...]) -> None:
    model = chain(shape, layers.ReLU(), lambda x: x[:, *place], layers.ReLU(), dtype="float64")
    folded = kerasfold.fold(model)
    assert kinds(folded) == ["Reshape", "ReLU", "ReLU"]  # activations compute what is read alone
    assert_same(model, folded, FLOAT64)
    again = kerasfold.fold(folded)
    assert kinds(again) == kinds(folded)
    assert not again.fold_report.merged


@pytest.mark.parametrize("shape", [(33, 36, 16), (None, 36, 16)])
def test_what_strides_do_not_divide_stays_a_slice(shape: Any) -> None:
    model = chain(shape, layers.ReLU(), lambda x: x[:, ::2, ::2], layers.ReLU(), dtype="float64")
    assert kinds(kerasfold.fold(model)) == ["ReLU", "ReLU"]


@pytest.mark.parametrize(
    ("runtime", "shape", "place", "kind"),
    [
        ("onnxruntime", (32, 36, 16), (slice(None, None, 2), slice(None, None, 3)), "pool"),
        ("onnxruntime", (33, 35, 16), (slice(None, None, 2), slice(None, None, 2)), "pool"),
        ("onnxruntime", (320, 16), (slice(None, None, 2),), "pool"),
        ("onnxruntime", (8, 12, 16, 16), (slice(None, None, 2),) * 3, "slice"),
        ("xla", (32, 36, 16), (slice(None, None, 2), slice(None, None, 3)), "blocks"),
        ("litert", (32, 36, 16), (slice(None, None, 2), slice(None, None, 3)), "blocks"),
    ],
)
def test_where_layers_have_another_layout_a_slice_is_a_pool(
    runtime: str, shape: Any, place: tuple[slice, ...], kind: str
) -> None:
    model = chain(shape, layers.ReLU(), lambda x: x[:, *place], layers.ReLU(), dtype="float64")
    folded = kerasfold.fold(model, runtime=runtime)
    made = {"pool": f"AveragePooling{len(place)}D", "blocks": "Reshape"}
    other = [made[kind]] if kind in made else []
    assert kinds(folded) == [*other, "ReLU", "ReLU"]
    assert_same(model, folded, FLOAT64)
    report = folded.fold_report
    assert report.macs_after == 0
    assert not kerasfold.explain(folded, runtime=runtime).merged


def test_channels_first_stays_a_slice() -> None:
    with_axes = layers.MaxPooling2D(1, data_format="channels_first", dtype="float64")
    model = chain(
        (16, 36, 32), with_axes, lambda x: x[:, :, ::2, ::2], layers.ReLU(), dtype="float64"
    )
    assert "Reshape" not in kinds(kerasfold.fold(model))


def test_strides_along_channels_merge_as_they_did() -> None:
    steps = (lambda x: x[..., ::2], lambda x: layers.Permute((2, 1, 3))(x), lambda x: x[..., 1::2])
    model = chain((112, 96, 64), layers.ReLU(), *steps, layers.ReLU(), dtype="float64")
    report = kerasfold.fold(model, verify=False).fold_report
    assert "a slice" in " ".join(row.kind for row in report.merged)
