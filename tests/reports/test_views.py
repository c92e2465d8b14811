"""What a report is shown as: text, pages, pictures. And that it says only what is so."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from types import SimpleNamespace
from xml.etree import ElementTree

import keras
import numpy as np
import pytest
from keras import layers

import kerasfold
from kerasfold.measure.tried import Attempt, Tried
from kerasfold.plots.steps import Flow, Step
from kerasfold.reports import compared
from kerasfold.reports.layout import sides
from kerasfold.reports.record import Files, Kept, Merged, Pace
from kerasfold.reports.text import short
from kerasfold.reports.views import FoldReport
from zoo.making import randomise
from zoo.pages import Page

VOID = ("meta", "input", "br")  # tags that nothing closes
HOSTILE = "</script><script>alert('x')</script>&\"\\"
FORGED = "a\x1b[31m\x9b\r\nequivalent (3 inputs)\u2028\x85equivalent"


def blocks(count: int) -> keras.Model:
    """Convolutions, each with a BatchNormalization and a ReLU, and every other time a sum."""
    x = image = keras.Input((16, 16, 8), name="image")
    for i in range(count):
        y = layers.Conv2D(8, 3, padding="same", name=f"conv{i}")(x)
        y = layers.ReLU(name=f"relu{i}")(layers.BatchNormalization(name=f"bn{i}")(y))
        x = layers.Add(name=f"add{i}")([x, y]) if i % 2 else y
    return randomise(keras.Model(image, x, name="blocks"))


@pytest.fixture(scope="module")
def report() -> FoldReport:
    return kerasfold.fold(blocks(12), verify=False).fold_report


def resembling(report: FoldReport, name: str) -> FoldReport:
    """With a name in all places that are the user's."""
    flow = Flow((Step(name, name),), (Step(name, name, (), (0,)),))
    row = Kept(name, name, name, "KF101")
    return replace(
        report,
        model=name,
        merged=(Merged(name, name, (name, name), (name, name), name),),
        kept=(row,),
        apart=(row,),
        removed=(name,),
        opened=(name,),
        uncounted=(name,),
        note=name,
        flows=(flow,),
        files=Files(name, name, 1, 1, ""),
        measured=Pace(name, 2.0, 1.0),
        tried=(Tried(name, (name,), (Attempt(name, note=name),)),),
    )


# Text.


def test_the_first_line_says_what_is_asked_first(report) -> None:
    found = replace(report, files=Files("a.keras", "b.keras", 120_000, 90_000, ""))
    first, *_ = found.text(None).split("\n")
    assert first == found.headline
    assert re.fullmatch(
        r"blocks: its linear part predicted \d\.\d\d times as fast on TensorFlow and \d\.\d\d "
        r"times as fast under XLA; MACs 1\.79 M -> 1\.77 M; parameters 7,392 -> 7,008; layers "
        r"that compute 30 -> 18 \(in Keras 43 -> 31\); file 120 kB -> 90 kB; not verified; "
        r"written to b\.keras",
        first,
    )


def test_an_optimizer_in_the_first_file_is_told_from_what_a_fold_saves(report) -> None:
    found = replace(report, files=Files("a.keras", "b.keras", 120_000, 90_000, "", 25_000))
    assert "; file 120 kB -> 90 kB (25 kB of the first: its optimizer); " in found.headline


def test_more_macs_by_default_come_with_the_way_to_time_them(report) -> None:
    more = replace(report, macs_after=report.macs_before + 1)
    said = "(more, where that is predicted faster: kerasfold bench times it)"
    assert said in more.headline
    assert said not in report.headline
    assert said not in replace(more, objective="params").headline


def test_ipython_shows_the_report_as_it_is_printed(report) -> None:
    shown: list[str] = []
    for one in (report, kerasfold.fold(blocks(1)).fold_report.equivalence):
        one._repr_pretty_(SimpleNamespace(text=shown.append), False)
        assert shown.pop() == str(one)


def test_what_was_measured_is_said_in_place_of_a_prediction(report) -> None:
    found = replace(report, measured=Pace("litert", 2.0, 1.25))
    assert "measured 2 ms -> 1.25 ms on litert (1.60 times as fast)" in found.headline
    assert "predicted" not in found.headline


def test_a_model_that_is_linear_is_predicted_as_a_whole() -> None:
    model = keras.Sequential([keras.Input((8, 8, 3)), layers.Conv2D(4, 3), layers.Conv2D(4, 1)])
    assert ": predicted " in kerasfold.explain(model).headline


@pytest.mark.parametrize("end", [[], [layers.ReLU()]], ids=["linear", "activated"])
def test_what_is_nothing_any_more_is_not_as_fast_as_before(end: list[keras.Layer]) -> None:
    identities = [layers.Conv2D(8, 1) for _ in range(2)]
    model = keras.Sequential([keras.Input((64, 64, 8)), *identities, *end])
    for layer in identities:
        layer.kernel.assign(np.eye(8)[None, None])
    found = kerasfold.explain(model)
    assert "nothing linear left in it; MACs 524 k -> 0;" in found.headline
    assert all(pace.gain == math.inf for pace in found.predicted)
    assert ", as predicted" not in found.html()


def test_merges_of_one_shape_share_a_line(report) -> None:
    text = report.text()
    assert "\n   12 x Conv2D + BatchNormalization -> Conv2D 3x3\n" in text
    assert "\n   12 x ReLU: ReLU is not linear, or kerasfold has no rule for it [KF101]\n" in text
    assert len(text.splitlines()) < 20


def test_all_calls_are_listed_where_that_is_asked(report) -> None:
    text = report.text(None, verbose=True)
    for i in range(12):
        assert f"\n  bn{i}: conv{i} + bn{i} -> Conv2D 3x3\n" in text
        assert f"\n  relu{i} (ReLU): ReLU is not linear" in text


@pytest.mark.parametrize("width", [60, 110, 200])
def test_lines_are_as_wide_as_they_may_be(report, width) -> None:
    assert max(map(len, report.text(width).splitlines())) <= width


def test_a_report_has_no_words_of_ours(report) -> None:
    text = report.text(None, verbose=True) + report.html()
    assert not re.search(r"lift rule|\baffine\b|image of ones|own error", text)


def test_numbers_are_short() -> None:
    numbers = [0, 999, 9_999, 10_000, 123_456, 999_600, 3_870_000_000]
    assert list(map(short, numbers)) == ["0", "999", "9,999", "10 k", "123 k", "1e+06", "3.87 G"]


# Only what is so.


def test_a_vector_of_an_image_is_said_to_be_flattened() -> None:
    x = image = keras.Input((4, 4, 2))
    x = layers.Flatten()(layers.Conv2D(3, 4)(x))
    model = keras.Model(image, layers.Dense(5)(x))
    folded = kerasfold.fold(model, "layers")
    (merged,) = folded.fold_report.merged
    assert merged.kind == "Flatten + Dense"
    assert [type(layer).__name__ for layer in folded.layers[1:]] == ["Flatten", "Dense"]


def test_layers_are_counted_in_both_ways(report) -> None:
    folded = kerasfold.fold(blocks(2), verify=False)
    found = folded.fold_report
    assert found.keras_layers_before == len(blocks(2).layers)
    assert found.keras_layers_after == len(folded.layers)
    assert (found.layers_before, found.layers_after) == (5, 3)


def test_layers_kept_whole_are_named() -> None:
    x = sequence = keras.Input((6, 8))
    x = layers.MultiHeadAttention(2, 4, name="mha")(x, x)
    model = keras.Model(sequence, layers.Dense(3)(layers.Dense(2)(x)))
    report = kerasfold.explain(model)
    assert report.uncounted == ("mha",)
    assert "(without 1 layer kept whole)" in report.headline


# Pages.


def test_a_page_holds_all_and_comes_from_nowhere_else(report) -> None:
    text = report.html()
    seen = Page(text, VOID).seen
    assert (seen.count("svg"), seen.count("table")) == (3, 2)
    assert not re.search(r"https?:|src=|href=|@import|url\(", text)
    assert "prefers-color-scheme: dark" in text
    assert text.count('class="step g') == 2 * 12 + 12
    for title, row in (("because", "KF101"), ("kind", "Conv2D 3x3"), ("from", "conv0 + bn0")):
        assert title in text
        assert row in text


def test_what_the_user_named_is_escaped(report) -> None:
    hostile = resembling(report, HOSTILE)
    scripts = Page(report.html(), VOID).seen.count("script")
    assert Page(hostile.html(), VOID).seen.count("script") == scripts
    assert "<script>alert" not in hostile.html() + hostile.svg() + hostile._repr_html_()
    ElementTree.fromstring(hostile.svg())
    assert hostile.text(None, verbose=True).count(HOSTILE) > 10


def test_a_page_of_a_large_model_is_small(report) -> None:
    """ResNet50 has 175 calls."""
    flow = report.flows[0]
    per_call = (len(report.html()) - len(replace(report, flows=()).html())) / len(flow.before)
    assert 180 * per_call < 300_000


def test_a_comparison_is_on_the_page() -> None:
    page = kerasfold.fold(blocks(1)).fold_report.html()
    assert '<div class="verdict equivalent">' in page
    assert "<td>relu0</td>" in page


def test_a_notebook_shows_groups(report) -> None:
    html = report._repr_html_()
    assert html.startswith("<div><p><b>blocks: its linear part predicted")
    assert ">12 x</td>" in html
    assert "script" not in Page(html, VOID).seen


# Pictures.


def test_a_picture_is_a_document(report) -> None:
    picture = ElementTree.fromstring(report.svg())
    names = [text.text for text in picture.iter("{http://www.w3.org/2000/svg}text")]
    assert names.count("relu0") == 2
    assert names.count("conv0") == 1


def test_graphviz_gets_both_graphs(report) -> None:
    text = report.dot()
    assert text.startswith('digraph "blocks" {')
    assert text.count("subgraph cluster_") == 2
    assert 'label="bn0\\nConv2D 3x3"' in text
    assert text.count(" -> ") == (3 * 12 + 2 * 6) + (2 * 12 + 2 * 6) + 2 * 12


def test_a_step_stands_beside_what_it_was(report) -> None:
    before, after = sides(report.flows[0])
    for place, step in enumerate(after.steps):
        assert after.rows[place] == max(step.calls)
    assert list(before.rows) == list(range(len(before.steps)))


def test_no_two_lanes_cross_one_row(report) -> None:
    before, _ = sides(report.flows[0])
    skipping = [edge for edge in before.edges if edge.lane]
    assert len(skipping) == 6
    for one in skipping:
        for other in skipping:
            apart = one.end <= other.start or other.end <= one.start
            assert one is other or one.lane != other.lane or apart


def test_commands_write_pages_and_pictures(files, run, tmp_path) -> None:
    views = {name: tmp_path / f"out.{name}" for name in ("html", "svg", "dot")}
    options = [part for name, path in views.items() for part in (f"--{name}", path)]
    assert run("fold", files["relu.keras"], "-o", tmp_path / "out.keras", *options)[0] == 0
    written = {name: path.read_text() for name, path in views.items()}
    assert "<!doctype html>" in written["html"]
    for path in views.values():
        path.unlink()
    assert run("explain", files["relu.keras"], *options)[0] == 0
    assert run("report", tmp_path / "out.keras", *options)[0] == 0
    assert {name: path.read_text() for name, path in views.items()} == written
    assert run("explain", files["relu.keras"], "--html", tmp_path / "page.txt")[0] == 2


@pytest.mark.parametrize("view", ["text", "html", "dot", "svg", "_repr_html_"])
def test_names_are_neither_commands_to_a_terminal_nor_lines(report: FoldReport, view: str) -> None:
    shown = getattr(resembling(report, FORGED), view)
    for said in [shown(), *([shown(verbose=True), shown(None)] if view == "text" else [])]:
        lines = said.splitlines()
        assert lines == said.removesuffix("\n").split("\n")
        assert all(line.isprintable() for line in lines)
        assert not any(line.strip().startswith("equivalent") for line in lines)
        assert r"a\x1b[31m\x9b\r\nequivalent" in said.replace("\\\\", "\\")


@pytest.mark.parametrize("weight", [1.0, 2.0])
def test_a_name_forges_no_verdict(weight: float) -> None:
    x = keras.Input((4,), name="x")
    models = [keras.Model(x, layers.Dense(1, name=FORGED)(x)) for _ in range(2)]
    models[1].set_weights([weight * w for w in models[0].get_weights()])
    report = kerasfold.verify(*models)
    lines = str(report).splitlines()
    assert all(line.isprintable() for line in lines)
    begun = [line for line in lines if line.strip().startswith("equivalent")]
    assert begun == (lines[:1] if weight == 1 else [])
    page = compared.page(report, FORGED)
    assert all(line.isprintable() for line in page.split("\n"))
    assert report.to_dict()["outputs"][0]["name"] == FORGED  # plain values are as they are
