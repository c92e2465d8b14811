"""What a command gives: text, JSON, and an exit code."""

from __future__ import annotations

import json
import math
import sys
from typing import Any

DONE, DIFFERENT, UNUSABLE, INCONCLUSIVE = 0, 1, 2, 3
CODES = {"equivalent": DONE, "different": DIFFERENT, "inconclusive": INCONCLUSIVE}  # of verdicts


def show(report: Any, as_json: bool) -> None:
    """Print a report, as text or as JSON."""
    if as_json:
        say_json(report.to_dict())
    else:
        say(str(report))


def say_json(value: Any) -> None:
    """Print plain values as JSON."""
    say(json.dumps(_finite(value), indent=2, allow_nan=False))


def _finite(value: Any) -> Any:
    """The same with null for infinities and NaN, which JSON has not."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def say(text: str) -> None:
    """Print what the terminal can say of a text."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding), flush=True)
