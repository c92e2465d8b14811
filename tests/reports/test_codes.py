"""Codes of reasons: each reason of the package has one, and `kerasfold why` explains it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import keras
import pytest

import kerasfold
from kerasfold.reasons import BY_CODE, REASONS, code_of
from zoo.commands import assert_fails

ROOT = Path(__file__).parents[2] / "kerasfold"
# What these refuse is a note, or never said.
UNSAID = {
    ROOT / name
    for name in (
        *("read/parts.py", "equivalence/ranges.py", "equivalence/reached.py"),
        *("inverse/numbers.py", "inverse/products.py", "inverse/skeleton.py"),
        *("inverse/stored.py", "plan/numbers.py"),
    )
}
OWN = REASONS[-1].code  # of reasons that rules of others give


def text_of(node: ast.expr) -> str:
    """A string, with a number for what is filled into it; "" of what is none."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(
            part.value if isinstance(part, ast.Constant) else "7" for part in node.values
        )
    return ""


def refusals() -> Iterator[str]:
    """What the package says where it refuses."""
    for path in sorted({*ROOT.rglob("*.py")} - UNSAID):
        for node in ast.walk(ast.parse(path.read_text())):
            named = isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Refused"
            if named and node.args and (text := text_of(node.args[0])):
                yield "it (Block) " * (path.name in ("inside.py", "nodes.py")) + text


# What is said where nothing is raised.
SAID = {
    "ReLU is not linear, or kerasfold has no rule for it": "KF101",
    "MyNorm extends BatchNormalization, and kerasfold has no rule for what it does": "KF101",
    "it (Block) computes with weights of its own": "KF107",
    "a nested model (Branches) counts its calls": "KF107",
    "nothing before it merges into it": "KF601",
    "its activation is not linear, and nothing before it merges into it": "KF601",
    "its activation 'relu' is not linear": "KF102",
    "it casts float32 to float64, and nothing before it merges into it": "KF106",
    "merged, its weights would not fit their dtype": "KF501",
    "its weights are shared with another call": "KF404",
    "merging it into what follows does not pay under this objective": "KF401",
    "merging it would be slower on TensorFlow and under XLA, as predicted": "KF402",
    "merging it would take 1,234 weights in place of 12, for 1.01 times the speed": "KF403",
    "of what it reads, merging it would be slower under XLA, as predicted": "KF402",
    "merged, the whole model is no faster on litert": "KF402",
    "an output has its name of it": "KF602",
    "the mask that it hands on is read by 'lstm'": "KF105",
    "it is called with training=True": "KF104",
    "3 of its 8 gains are not positive, and only positive ones pass 'pad'": "KF110",
    "it broadcasts along the batch: ['1', 'None']": "KF108",
    "it does not work along what is computed before it, and is a step of its own": "KF302",
    "a bias that zero padding must not see, before a rearrangement": "KF202",
    "because it is Tuesday": OWN,
}


@pytest.mark.parametrize(("reason", "code"), SAID.items())
def test_a_reason_has_the_code_of_its_words(reason: str, code: str) -> None:
    assert code_of(reason) == code


def test_what_stays_for_what_it_reads_says_so() -> None:
    x = image = keras.Input((8, 8, 3))
    for name in ("first", "second"):
        x = keras.layers.Conv2D(4, 3, padding="same", name=name)(x)
    report = kerasfold.explain(keras.Model(image, x), "layers")
    reasons = {kept.layer: (kept.code, kept.reason) for kept in (*report.kept, *report.apart)}
    code, why = reasons["first"]
    assert why.startswith("zero padding between two layers")
    assert reasons["second"] == (code, f"of what it reads, {why}")


def test_every_refusal_of_the_package_has_a_code() -> None:
    texts = list(refusals())
    assert len(texts) > 80
    assert [text for text in texts if code_of(text) == OWN] == []


def test_every_code_is_given() -> None:
    given = {code_of(text) for text in (*refusals(), *SAID)}
    assert given == BY_CODE.keys()


def test_what_is_explained_has_no_words_of_ours() -> None:
    for reason in REASONS:
        words = f"{reason.title} {reason.meaning} {reason.way_out}"
        assert not re.search(
            r"\b(lift|lifted)\b|affine|image of ones|own error|barrier\b", words
        ), reason.code


def test_why_explains_a_code(run) -> None:
    code, stdout, stderr = run("why", "kf202")
    assert (code, stderr) == (0, "")
    assert stdout.startswith("KF202: zero padding between two layers\n")
    assert 'Conv2D(8, 3, padding="same") -> Conv2D(8, 3, padding="same")' in stdout
    assert "\nWhat to do: pad once" in stdout


def test_why_lists_all_codes(run) -> None:
    code, stdout, _ = run("why")
    assert code == 0
    assert [line.split()[0] for line in stdout.splitlines()] == sorted(BY_CODE)


def test_why_knows_no_other_code(run) -> None:
    assert_fails(run("why", "KF999"), 2, r"KF999 is no code of a report: `kerasfold why` lists .*")


def test_why_loads_nothing_that_takes_time() -> None:
    script = (
        "import sys\nsys.argv = sys.orig_argv = ['kerasfold', 'why', 'KF101']\n"
        "from kerasfold.cli import main\nassert main(['why', 'KF101']) == 0\n"
        "assert not {'keras', 'numpy', 'rich'} & sys.modules.keys()"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (run.returncode, run.stderr) == (0, "")
