"""How long the command line takes to answer where no model is needed, in processes of their own.

Prints the median seconds of each command, beside those of an interpreter that does nothing, and
fails where one takes more than 0.3 s longer than that.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time

COMMANDS = {
    "nothing": ("-c", ""),
    "--version": ("-m", "kerasfold", "--version"),
    "--help": ("-m", "kerasfold", "--help"),
    "fold --help": ("-m", "kerasfold", "fold", "--help"),
    "why": ("-m", "kerasfold", "why", "KF101"),
    "a slip of the pen": ("-m", "kerasfold", "flod", "model.keras"),
    "no such file": ("-m", "kerasfold", "fold", "none.keras"),
}
MOST = 0.3  # seconds


def seconds(arguments: tuple[str, ...]) -> float:
    begun = time.perf_counter()
    subprocess.run([sys.executable, *arguments], capture_output=True)
    return time.perf_counter() - begun


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=11, help="of each command, in turns (11)")
    runs = parser.parse_args().runs
    taken = {
        name: statistics.median(times)
        for name, times in zip(
            COMMANDS,
            zip(*([seconds(x) for x in COMMANDS.values()] for _ in range(runs)), strict=True),
            strict=True,
        )
    }
    for name, median in taken.items():
        print(f"{name:20}{median:6.3f} s")
    return int(max(taken.values()) > taken["nothing"] + MOST)


if __name__ == "__main__":
    sys.exit(main())
