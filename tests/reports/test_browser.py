"""The page of a report in a real browser: what is clicked, sorted and looked for.

Where playwright has no browser of its own, KERASFOLD_CHROMIUM names one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import pytest
from keras import layers

import kerasfold

PHONE, LAPTOP, WIDE = (390, 844), (1280, 800), (1920, 1080)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as playwright:
        path = os.environ.get("KERASFOLD_CHROMIUM")
        try:
            found = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        except api.Error as error:
            pytest.skip(f"no Chromium: {str(error).splitlines()[0]}")
        yield found
        found.close()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    x = image = keras.Input((16, 16, 3), name="image")
    for i in (2, 10, 1):
        x = layers.Conv2D(4, 3, padding="same", name=f"conv{i}")(x)
        x = layers.ReLU(name=f"relu{i}")(layers.BatchNormalization(name=f"bn{i}")(x))
    x = layers.Dropout(0.5)(x)
    report = kerasfold.fold(keras.Model(image, x)).fold_report
    path = tmp_path_factory.mktemp("pages") / "report.html"
    path.write_text(report.html(), encoding="utf-8")
    return path


@pytest.fixture
def opened(browser: Any, page: Path) -> Iterator[Callable[..., Any]]:
    """Opens the page in a window of some size; in the end, nothing went wrong in any."""
    problems: list[str] = []
    windows = []

    def open_page(size: tuple[int, int] = LAPTOP, scheme: str = "light") -> Any:
        window = browser.new_page(
            viewport={"width": size[0], "height": size[1]}, color_scheme=scheme
        )
        window.on("console", lambda message: problems.append(message.text))
        window.on("pageerror", lambda error: problems.append(str(error)))
        window.on("request", lambda request: problems.append(request.url))
        window.goto(page.as_uri())
        problems.remove(page.as_uri())
        windows.append(window)
        return window

    yield open_page
    for window in windows:
        window.close()
    assert problems == []


def test_a_step_that_is_chosen_says_what_it_was_and_why(opened) -> None:
    window = opened()
    window.locator('.after .step[data-name="bn10"]').click()
    said = window.locator(".detail").inner_text()
    assert "Conv2D 3x3" in said
    assert "conv10 + bn10" in said
    chosen = window.locator(".step.chosen").evaluate_all("all => all.map(x => x.dataset.name)")
    assert chosen == ["conv10", "bn10", "bn10"]
    window.locator('.before .step[data-name="relu1"]').press("Enter")
    said = window.locator(".detail").inner_text()
    assert "KF101" in said
    assert "a weighted sum of its inputs" in said


def test_a_kept_layer_says_why_where_the_mouse_is(opened) -> None:
    title = opened().locator('.after .step[data-name="relu2"] title').text_content()
    assert "why: ReLU is not linear" in title


def test_a_table_sorts_both_ways(opened) -> None:
    window = opened()
    head = window.locator("table.sorts").first.locator("th").first

    def column() -> list[str]:
        cells = window.locator("table.sorts").first.locator("tbody tr td:first-child")
        return cells.all_inner_texts()

    assert column() == ["bn2", "bn10", "bn1"]
    head.locator("button").click()
    assert (column(), head.get_attribute("aria-sort")) == (["bn1", "bn2", "bn10"], "ascending")
    head.locator("button").click()
    assert (column(), head.get_attribute("aria-sort")) == (["bn10", "bn2", "bn1"], "descending")


def test_what_is_typed_is_looked_for(opened) -> None:
    window = opened()
    window.locator("#find").fill("bn10")
    shown = window.locator("table.sorts tbody tr:visible")
    assert shown.count() == 1
    assert window.locator(".step:not(.dimmed)").count() == 2
    window.locator("#find").fill("")
    assert window.locator(".step.dimmed").count() == 0


def test_a_phone_shows_one_side_at_a_time(opened) -> None:
    window = opened(PHONE)
    before, after = (window.locator(f".{side} svg") for side in ("before", "after"))
    assert (before.is_visible(), after.is_visible()) == (False, True)
    window.get_by_role("button", name="before", exact=True).click()
    assert (before.is_visible(), after.is_visible()) == (True, False)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [PHONE, LAPTOP, WIDE])
def test_a_page_fits_its_window(opened, size, scheme) -> None:
    window = opened(size, scheme)
    assert window.evaluate("document.documentElement.scrollWidth") <= size[0]
    text = window.locator(".step text").last
    assert text.evaluate("x => x.getBoundingClientRect().height") >= 11  # pixels
    colours = window.evaluate(
        "['color', 'background-color'].map(x => getComputedStyle(document.body)[x])"
    )
    light = [sum(map(int, c[4:-1].split(","))) > 384 for c in colours]  # of ink and of paper
    assert light == [scheme == "dark", scheme == "light"]
