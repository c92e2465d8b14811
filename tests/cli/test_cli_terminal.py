"""What the command line says while it works, and what a terminal makes of what it says."""

from __future__ import annotations

import contextlib
import functools
import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kerasfold import cli, startup
from kerasfold.commands import output, progress
from kerasfold.errors import FoldError
from kerasfold.stages import at

ROOT = Path(__file__).parents[2]


class Terminal(io.StringIO):
    """A stream that is one."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def process(*args: object, **variables: str) -> subprocess.Popen[bytes]:
    """The command line in a process of its own."""
    removed = ("TF_CPP_MIN_LOG_LEVEL", "NO_COLOR", "COLUMNS")
    environment = {name: x for name, x in os.environ.items() if name not in removed}
    return subprocess.Popen(
        [sys.executable, "-m", "kerasfold", *map(str, args)],
        env=environment | {"PYTHONPATH": str(ROOT), "TERM": "xterm"} | variables,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=functools.partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # as in a shell
    )


# As the C++ code of a device and its libraries logs: as it loads, and when it is first used.
NOISY = """
import os
import keras

os.write(2, b"E0000 as modules load\\n")
call = keras.Layer.__call__

def noisy(*args, **kwargs):
    os.write(2, b"I0000 as layers are called\\n")
    open("called", "a").close()
    return call(*args, **kwargs)

keras.Layer.__call__ = noisy
"""


def test_a_refusal_is_the_only_line_whatever_a_backend_says(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "noisy.py").write_text(NOISY)
    monkeypatch.chdir(tmp_path)
    command = process("fold", files["relu.keras"], "--strict", "-q", "--import", "noisy")
    stdout, stderr = command.communicate(timeout=300)
    assert (command.returncode, stdout) == (1, b"")
    assert re.fullmatch(rb"kerasfold: error: model 'small' is not linear: .*\n", stderr)
    assert (tmp_path / "called").exists()


def test_who_stops_reading_is_told_nothing_and_others_the_signal() -> None:
    reads, writes = os.pipe()
    os.close(reads)
    command = [sys.executable, "-m", "kerasfold", "why"]
    done = subprocess.run(command, stdout=writes, stderr=subprocess.PIPE, check=False)
    os.close(writes)
    assert (done.returncode, done.stderr) == (141, b"")


def test_what_cannot_be_printed_is_written_all_the_same(
    files: dict[str, str], tmp_path: Path
) -> None:
    written = tmp_path / "out.keras"
    command = [sys.executable, "-m", "kerasfold", "fold", files["linear.keras"], "-o", str(written)]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == (  # before, what goes on, where the machine is slow
        b"kerasfold: error: stdout cannot be written (OSError: [Errno 28] No space left on "
        b"device): the result is not printed, but files that were asked for are written"
    )
    assert written.exists()


STUBBORN = """
import pathlib
import time

pathlib.Path("begun").touch()
while True:
    try:
        time.sleep(60)
    except BaseException:
        pass
"""


def test_an_interrupt_is_one_line_whatever_is_imported(
    files: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of modules that take it for an error, as those that look for what they may import do."""
    (tmp_path / "keras.py").write_text(STUBBORN)
    monkeypatch.chdir(tmp_path)
    path = os.pathsep.join((str(tmp_path), str(ROOT)))
    command = process("explain", files["linear.keras"], "-v", PYTHONPATH=path)
    while command.poll() is None and not Path("begun").exists():
        time.sleep(0.01)
    command.send_signal(2)
    stdout, stderr = command.communicate(timeout=300)
    assert (command.returncode, stdout) == (130, b"")
    assert stderr.splitlines()[-1] == b"kerasfold: error: stopped by SIGINT"


def told(stream: io.StringIO, monkeypatch: pytest.MonkeyPatch, **how: bool) -> str:
    """What is shown of two stages."""
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "TURN", 0.01)
    with progress.shown(how.get("quiet", False), how.get("verbose", False)):
        at("reading")
        time.sleep(0.1)
        for done in range(3):
            at("comparing", done, 3, "inputs")
            time.sleep(0.03)
    return stream.getvalue()


def test_a_terminal_shows_what_goes_on_and_nothing_after(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    shown = told(Terminal(), monkeypatch)
    assert re.search(r"[|/\\-] reading \(0\.\d s\)", shown)
    assert "comparing, 2 of 3 inputs (" in shown
    assert len({line[0] for line in shown.split(progress.CLEAR) if line}) == 4
    assert shown.endswith(progress.CLEAR)
    assert "\n" not in shown


def test_its_width_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "12")
    assert max(map(len, told(Terminal(), monkeypatch).split(progress.CLEAR))) == 11


def test_elsewhere_it_is_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    assert told(io.StringIO(), monkeypatch) == ""
    monkeypatch.setattr(progress, "PAUSE", 0.02)
    lines = told(io.StringIO(), monkeypatch).splitlines()
    assert re.fullmatch(r"kerasfold: reading \(0\.\d s\)", lines[0])
    assert re.fullmatch(r"kerasfold: comparing, \d of 3 inputs \(0\.\d s\)", lines[-1])


def test_told_to_be_quiet_or_to_say_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "PAUSE", 0.02)
    assert told(Terminal(), monkeypatch, quiet=True) == ""
    monkeypatch.setattr(progress, "PAUSE", 60.0)
    lines = told(io.StringIO(), monkeypatch, verbose=True).splitlines()
    assert [line.split(" (")[0] for line in lines] == [
        "kerasfold: reading",
        "kerasfold: comparing, 2 of 3 inputs",
    ]


def test_what_c_code_writes_while_modules_load_is_shown_if_they_do_not(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(startup, "is_command_line", lambda: True)
    monkeypatch.setattr("warnings.simplefilter", lambda *_: None)
    monkeypatch.setattr(startup, "CHATTY", ())
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "0")
    with startup.backends_unheard() as said, startup.loading(said):
        os.write(2, b"E0000 noise")
    assert capfd.readouterr().err == ""
    with (
        contextlib.suppress(ImportError),
        startup.backends_unheard() as said,
        startup.loading(said),
    ):
        os.write(2, b"undefined symbol")
        raise ImportError
    assert capfd.readouterr().err == "undefined symbol"


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What stdout gets of a text that is said."""

    def say(text: str, stream: io.StringIO | None = None, **variables: str) -> str:
        stream = Terminal() if stream is None else stream
        for name in ("COLUMNS", "NO_COLOR"):
            monkeypatch.delenv(name, raising=False)
        for name, value in ({"TERM": "xterm", "COLUMNS": "60"} | variables).items():
            monkeypatch.setenv(name, value)
        with contextlib.redirect_stdout(stream):
            output.say(text)
        return stream.getvalue()

    return say


def test_lines_are_as_wide_as_the_terminal(said: Callable[..., str]) -> None:
    text = "  " + "word " * 40
    for columns in (60, 200):
        lines = said(text, COLUMNS=str(columns)).splitlines()
        assert columns - 5 <= max(map(len, lines)) <= columns
        assert all(line.startswith("    ") for line in lines[1:])


def test_lines_in_a_file_are_whole(said: Callable[..., str], monkeypatch) -> None:
    with contextlib.redirect_stdout(io.StringIO()) as stream:
        monkeypatch.delenv("COLUMNS", raising=False)
        output.say("word " * 100)
    assert len(stream.getvalue().splitlines()) == 1


def test_verdicts_are_coloured_on_terminals_alone(said: Callable[..., str]) -> None:
    text = "small\nNOT equivalent: wrong\nequivalently"
    red = "small\n\x1b[31mNOT equivalent\x1b[0m: wrong\nequivalently\n"
    assert said(text) == red
    for plain in ({"NO_COLOR": "1"}, {"TERM": "dumb"}, {"stream": io.StringIO()}):
        assert said(text, **plain) == f"{text}\n"


def test_encodings_without_our_signs_get_ascii() -> None:
    raw = io.BytesIO()
    stream = io.TextIOWrapper(raw, "ascii")
    with contextlib.redirect_stdout(stream):
        output.say("\u2502 3\u00d73 \u2192 1\u2026 \u2514\u2500 \u00e4")
    assert raw.getvalue().split() == b"| 3x3 -> 1... +- ?".split()


def test_a_quiet_command_prints_its_first_line(files, run, tmp_path: Path) -> None:
    code, stdout, stderr = run("fold", files["linear.keras"], "-o", tmp_path / "out.keras", "-q")
    assert (code, len(stdout.splitlines()), stderr) == (0, 1, "")


def test_a_refusal_says_names_as_they_can_be_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(argv: object) -> None:
        raise FoldError("layer 'a\x1b]0;b\x07' is odd")

    monkeypatch.setattr(cli, "parsed", refuse)
    assert cli.main([]) == 2
    assert capsys.readouterr().err == "kerasfold: error: layer 'a\\x1b]0;b\\x07' is odd\n"
