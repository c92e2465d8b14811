"""Every block of the README runs, and says the truth."""

import re
import shlex
from pathlib import Path

import keras
import pytest

from kerasfold import cli
from kerasfold.rules import RULES

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


def test_every_block_is_of_a_kind_that_runs():
    assert {kind for kind, _ in BLOCKS} == {"python", "sh"}


def test_the_two_setup_commands_stand_on_lines_of_their_own():
    commands = [line for line in README.splitlines() if line.startswith("pip install")]
    assert commands == [
        "pip install . && kerasfold fold examples/digits.keras -o folded.keras",
        'pip install ".[test]" && pytest',
    ]


def test_python_blocks_run_one_after_another(capsys):
    known = set(RULES)
    names: dict = {"__name__": "readme"}
    try:
        for kind, source in BLOCKS:
            if kind == "python":
                exec(compile(source, "README.md", "exec"), names)
    finally:
        for kind in set(RULES) - known:
            del RULES[kind]
    assert "block" in capsys.readouterr().out


def test_shell_blocks_run(tmp_path, monkeypatch, capsys):
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    lines = [line for kind, source in BLOCKS if kind == "sh" for line in source.splitlines()]
    runs = [line.split("&&")[-1].strip() for line in lines if "kerasfold" in line]
    assert len(runs) == 5
    for line in runs:
        assert cli.main(shlex.split(line)[1:]) == 0, line
    assert (tmp_path / "folded.keras").exists()


@pytest.mark.parametrize(
    "kind", [k for k in RULES if isinstance(k, type)], ids=lambda k: k.__name__
)
def test_every_lifted_layer_is_in_the_table(kind):
    table = README[README.index("## What is lifted") : README.index("Everything else is a barrier")]
    stem = re.sub(r"[123]D", "", kind.__name__)
    family = {"ConvTranspose": "Transpose", "DepthwiseConv": "DepthwiseConv"}.get(stem, stem)
    assert issubclass(kind, keras.layers.Layer)
    assert family in table, kind.__name__
