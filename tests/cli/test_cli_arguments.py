"""Arguments: what is wrong with them is one line on stderr."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

from kerasfold.choices import ObjectiveName, RuntimeName, UntimedName
from kerasfold.commands.parser import COMPLETED
from kerasfold.cost import OBJECTIVES, UNTIMED
from kerasfold.equivalence.formats import KINDS
from kerasfold.measure.runtimes import RUNTIMES
from kerasfold.paths import DEPLOYED
from zoo.commands import assert_fails

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["melt"], "argument COMMAND: invalid choice: 'melt' .*"),
        (["fold"], "the following arguments are required: IN"),
        (["fold", "in.keras", "-q", "-v"], "argument -v/--verbose: not allowed with .* -q/--quiet"),
        (
            ["explain", "in.keras", "--objective", "beauty"],
            "argument --objective: invalid choice: .*",
        ),
        (["verify", "a.keras"], "the following arguments are required: B"),
        (
            ["bench", "a.keras", "b.keras", "--runs", "0"],
            "argument --runs: expected a whole number .*'0'",
        ),
        (
            ["bench", "a.keras", "b.keras", "--batch", "x"],
            "argument --batch: expected a whole number .*'x'",
        ),
        (
            ["explain", "in.keras", "--objective", "measured"],
            "argument --objective: 'measured' times models that it builds, and explain builds "
            "none: kerasfold fold IN --objective measured does, .*",
        ),
        (
            ["fold", "in.keras", "-o", "o.keras", "--objective", "macs", "--runtime", "xla"],
            "argument --runtime: only with --objective latency or measured",
        ),
        (
            ["fold", "in.keras", "-o", "out.keras", "--objective", "macs", "--budget", "5"],
            "argument --budget: only with --objective measured",
        ),
        (
            ["fold", "in.keras", "-o", "o.keras", "--objective", "measured", "--budget", "0"],
            "argument --budget: expected a number above 0.*'0'",
        ),
        (
            ["fold", "in.keras", "-o", "o.keras", "--objective", "measured", "--budget", "inf"],
            "argument --budget: expected a number above 0.*'inf'",
        ),
        (
            ["fold", "in.keras", "-o", "o.keras", "--objective", "measured", "--budget", "long"],
            "argument --budget: expected a number above 0.*'long'",
        ),
        (
            ["bench", "a.keras", "b.keras", "--runtime", "abacus"],
            "argument --runtime: invalid choice: 'abacus' .*",
        ),
        (
            ["explain", "in.keras", "--objective", "params", "--batch", "8"],
            "argument --batch: only with --objective latency or measured",
        ),
        (
            ["explain", "in.keras", "--runtime", "abacus"],
            "argument --runtime: invalid choice: 'abacus' .*",
        ),
        (
            ["explain", "in.keras", "--batch", "0"],
            "argument --batch: expected a whole number .*'0'",
        ),
        (["explain", "in.keras", "--strict"], "unrecognized arguments: --strict"),
        (
            ["fold", "in.keras", "--objectvie=macs", "--exact-nubmers"],
            "unrecognized arguments: --objectvie=macs --exact-nubmers: "
            r"did you mean --objective --exact-numbers\?",
        ),
    ],
)
def test_wrong_arguments(run, args, message):
    assert_fails(run(*args), 2, rf"{message} \(see kerasfold.* --help\)")


def test_help_and_version_print_and_succeed(run):
    for args in (["--help"], ["fold", "--help"]):
        code, stdout, stderr = run(*args)
        assert (code, stderr) == (0, "")
        assert stdout.startswith("usage: kerasfold")
    code, stdout, stderr = run("--version")
    assert (code, stderr) == (0, "")
    assert re.fullmatch(r"kerasfold \S.*\n", stdout)


PROGRAM = """
import sys
sys.argv = ["kerasfold"]  # as the command is named
from kerasfold.cli import main

codes = [main(arguments.split()) for arguments in {lines!r}]
loaded = {{"keras", "tensorflow", "scipy", "numpy", "rich", "h5py"}} & sys.modules.keys()
print(codes, loaded)
"""


def test_nothing_is_loaded_to_answer_at_once(files, tmp_path):
    lines = (
        "--help",
        "--version",
        "why KF101",
        "melt",
        "why KF999999",
        "report no.keras",
        "explain",
        "explain no.keras",
        "verify a.txt b.keras",
        f"verify {files['linear.keras']} {files['linear.keras']} --html x.txt",
        f"fold {files['linear.keras']} -o none/x.keras",
        f"fold {files['linear.keras']} --budget 3",
    )
    program = PROGRAM.format(lines=lines)
    command = [sys.executable, "-c", program]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == f"{[0] * 3 + [2] * 9} set()"
    assert len(done.stderr.splitlines()) == 9


def test_choices_are_the_rows_of_their_tables():
    assert get_args(ObjectiveName) == tuple(OBJECTIVES)
    assert get_args(UntimedName) == UNTIMED
    assert get_args(RuntimeName) == tuple(RUNTIMES)
    assert tuple(KINDS) == DEPLOYED


def test_a_shell_completes_commands_options_and_files(run):
    shtab = pytest.importorskip("shtab")
    assert {name: COMPLETED[name] for name in shtab.FILE} == shtab.FILE
    code, script, stderr = run("completion", "bash")
    assert (code, stderr) == (0, "")
    for word in ("fold", "--objective", "measured", "--no-verify"):
        assert word in script
    done = subprocess.run(["bash", "-n"], input=script, text=True, capture_output=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_scripts_for_shells_are_an_extra(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "shtab", None)
    message = r"scripts for shells .*: pip install 'kerasfold\[completion\]'"
    assert_fails(run("completion", "zsh"), 2, message)
    assert_fails(run("completion", "sh"), 2, r"argument shell: invalid choice: 'sh' .*")


@pytest.mark.parametrize("backend", ["abacus", "none"])
def test_a_backend_that_keras_has_not(files, backend):
    command = [sys.executable, "-m", "kerasfold", "explain", files["linear.keras"]]
    environment = {**os.environ, "KERAS_BACKEND": backend}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    result = done.returncode, done.stdout, done.stderr
    message = (
        rf"Keras cannot be loaded with KERAS_BACKEND={backend} \(.*\): install that backend, .*"
    )
    assert_fails(result, 2, message)
