"""Arguments: what is wrong with them is one line on stderr."""

from __future__ import annotations

import re
import sys

import pytest

from zoo.commands import assert_fails


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["melt"], "argument COMMAND: invalid choice: 'melt' .*"),
        (["fold", "in.keras"], "the following arguments are required: -o/--output"),
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
            "argument --objective: invalid choice: 'measured' .*",
        ),
        (
            ["fold", "in.keras", "-o", "out.keras", "--runtime", "xla"],
            "argument --runtime: only with --objective measured",
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
        (["explain", "in.keras", "--runtime", "xla"], "unrecognized arguments: --runtime xla"),
        (["explain", "in.keras", "--strict"], "unrecognized arguments: --strict"),
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


def test_arguments_are_judged_before_keras_is_imported(run, monkeypatch, tmp_path):
    for name in ("keras", "tensorflow", "kerasfold.pipeline", "kerasfold.equivalence.models"):
        monkeypatch.setitem(sys.modules, name, None)  # an import of it raises
    assert run("--version")[0] == 0
    assert_fails(run("explain"), 2, "the following arguments are required: IN .*")
    assert_fails(run("explain", tmp_path / "no.keras"), 2, r"\S+no\.keras does not exist")
