"""Compares each `NAME-folded.keras` with the `NAME.keras` beside it, for a pre-commit hook.

    python verify_pairs.py FILE...

The files are those of a commit: either of a pair will do. `NAME.folded.keras` is such a fold too.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

MODEL = ".keras"
FOLDED = ("-folded.keras", ".folded.keras")  # the first is what `kerasfold fold` calls it


def pairs(files: Sequence[str]) -> list[tuple[Path, Path]]:
    """The originals and folds that some files belong to, where there is a fold."""
    stems = {_stem(file) for file in files}
    both = [(Path(stem + MODEL), Path(stem + end)) for stem in sorted(stems) for end in FOLDED]
    return [(original, folded) for original, folded in both if folded.exists()]


def _stem(file: str) -> str:
    return file.removesuffix(next((end for end in (*FOLDED, MODEL) if file.endswith(end)), ""))


def verify(original: Path, folded: Path) -> int:
    """The exit code of `kerasfold verify`, in a process of its own, where it starts up silently."""
    command = [sys.executable, "-m", "kerasfold", "verify", str(original), str(folded)]
    return subprocess.run(command, check=False).returncode


def main(files: Sequence[str]) -> int:
    """The largest exit code of `kerasfold verify` over all pairs."""
    codes = []
    for original, folded in pairs(files):
        print(f"{folded}: ", end="", flush=True)
        codes.append(verify(original, folded))
    return max(codes, default=0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
