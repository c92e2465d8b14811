"""What converters say is kept away, and nothing that anybody else says."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from kerasfold.measure.runtimes import silent


def in_a_thread(call: Callable[[], object]) -> None:
    thread = threading.Thread(target=call)
    thread.start()
    thread.join()


def speak(words: str) -> None:
    print(words)
    print(words, file=sys.stderr)
    logging.getLogger("kerasfold.test").warning(words)


def test_what_this_thread_says_is_kept_away_and_what_others_say_is_not(capfd, caplog):
    with silent():
        speak("this")
        os.write(2, b"C++\n")
        in_a_thread(lambda: speak("other"))
    speak("after")
    out, err = capfd.readouterr()
    assert out.splitlines() == ["other", "after"]
    assert [line for line in err.splitlines() if "WARNING" not in line] == ["other", "after"]
    assert [record.message for record in caplog.records] == ["other", "after"]


def test_a_handler_of_before_logs_what_others_say_and_is_as_it_was(capfd):
    with open(2, "w", closefd=False) as stream:
        handler = logging.StreamHandler(stream)
        logger = logging.getLogger("kerasfold.handled")
        logger.addHandler(handler)
        try:
            with silent():
                logger.warning("this")
                in_a_thread(lambda: logger.warning("other"))
            logger.warning("after")
            assert handler.stream is stream
        finally:
            logger.removeHandler(handler)
    assert capfd.readouterr().err.splitlines() == ["other", "after"]


def test_of_two_that_overlap_the_last_puts_all_back(capfd):
    before = sys.stdout, sys.stderr
    entered, left = threading.Event(), threading.Event()

    def first() -> None:
        with silent():
            entered.set()
            time.sleep(0.05)
        left.set()

    thread = threading.Thread(target=first)
    thread.start()
    entered.wait(10)
    with silent():
        left.wait(10)
        print("this", file=sys.stderr)
        os.write(2, b"C++\n")
    thread.join()
    assert (sys.stdout, sys.stderr) == before
    os.write(2, b"after\n")
    assert capfd.readouterr() == ("", "after\n")


def test_nested_and_failing_it_ends_as_it_began(capfd):
    before = sys.stdout, sys.stderr
    handlers = [list(handler.filters) for handler in logging.root.handlers]
    with pytest.raises(ZeroDivisionError), silent(), silent():
        print("this", 1 / 0)
    assert (sys.stdout, sys.stderr) == before
    assert [list(handler.filters) for handler in logging.root.handlers] == handlers
    assert capfd.readouterr() == ("", "")


def test_without_streams_nothing_is_wrong():
    code = (
        "import os, sys, threading; from kerasfold.quiet import quiet\n"
        "os.close(2); sys.stderr = sys.stdout = None\n"
        "with quiet(): print('this'); open('/dev/null').close()\n"
        "assert sys.stderr is None is sys.stdout\n"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
