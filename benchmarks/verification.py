"""Does `verify` see every fault, and never see one that is not there?

    python benchmarks/verification.py mutants --out verification.jsonl
    python benchmarks/verification.py folds --first 500 --count 100 --out verification.jsonl
    python benchmarks/verification.py rewrites --out verification.jsonl
    python benchmarks/verification.py table --out verification.jsonl

- `mutants`: models of all kinds (`verified.py`), each with every fault that it can have
  (`faults.py`). A fault is found where the verdict is 'different', or where a signature is
  refused. What no input shows beyond rounding does not count (`mutants.py`).
- `folds`: random graphs, folded; their folds are right, so that none may be called different.
- `rewrites`: models that are written otherwise and compute the same (`rewrites.py`).
- `hard`: models that are hard to judge: deep ones, sure ones, those with a state.

Models, graphs and rewrites have numbers, which seed them: `--first` and `--count` choose. What is
found is appended to a file, line by line, and what is in it already is not done again. `table`
prints the scores; the exit code says whether a fault was missed or a false alarm given.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, get_args

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from mutants import KINDS, mutants, shown_by_inputs
from rewrites import HARD, POLICIES, hard_model, random_model, rewritten
from rich.console import Console
from rich.table import Table
from verified import MODELS

import kerasfold
from kerasfold.choices import UntimedName

Row: TypeAlias = dict[str, Any]
FOLDS = 2000
RANDOM = 200  # graphs that are rewritten, beside the models
OBJECTIVES: tuple[UntimedName, ...] = get_args(UntimedName)
REFUSED = "refused"  # by a FoldError: the two cannot be compared


def verdict(a: keras.Model, b: keras.Model) -> tuple[str, str]:
    """What is said of two models, in one word and in full."""
    try:
        report = kerasfold.verify(a, b)
    except kerasfold.FoldError as error:
        return REFUSED, str(error)
    return report.verdict, str(report)


def mutation_rows(number: int, kinds: Container[str] = KINDS) -> Iterator[Row]:
    """All faults of one model, of some kinds."""
    name = list(MODELS)[number]
    entry = MODELS[name]
    model = entry.model()
    for mutant in mutants(model, entry, number, kinds):
        said, why = verdict(model, mutant.model)
        found = said == "different" or (mutant.is_signature and said == REFUSED)
        shown = found or mutant.is_signature or shown_by_inputs(model, mutant.model, entry)
        yield {
            "model": name,
            "kind": mutant.kind,
            "place": mutant.place,
            "verdict": said,
            "found": found,
            "shown": shown,
            "why": "" if found else why,
        }


def verify_row(a: keras.Model, b: keras.Model) -> Row:
    """What `verify` says of two models that compute the same."""
    said, why = verdict(a, b)
    return {"way": "verify", "verdict": said, "why": "" if said == "equivalent" else why}


def folded_rows(model: keras.Model, objective: UntimedName) -> Iterator[Row]:
    """What `fold` says of the fold of a model, and `verify` of the same."""
    try:
        folded = kerasfold.fold(model, objective)
    except kerasfold.EquivalenceError as error:
        yield {"way": "fold", "verdict": "different", "why": str(error)}
        folded = kerasfold.fold(model, objective, verify=False)
    else:
        said = folded.fold_report.equivalence
        yield {"way": "fold", "verdict": said.verdict, "why": "" if said.equivalent else str(said)}
    yield verify_row(model, folded)


def fold_rows(number: int) -> Iterator[Row]:
    """One random graph, folded."""
    objective = OBJECTIVES[number // 4 % len(OBJECTIVES)]
    for row in folded_rows(random_model(number), objective):
        yield {"kind": POLICIES[number % len(POLICIES)], "model": objective, **row}


def rewrite_rows(number: int) -> Iterator[Row]:
    """All true rewrites of one model."""
    for kind, name, model, other in rewritten(number):
        yield {"kind": kind, "model": name, **verify_row(model, other)}


def hard_rows(number: int) -> Iterator[Row]:
    """A model that is hard to judge: its fold, and a copy."""
    name = list(HARD)[number]
    model = hard_model(name)
    for row in folded_rows(model, "latency"):
        yield {"kind": name, "model": "folded", **row}
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    yield {"kind": name, "model": "copied", **verify_row(model, copy)}


PARTS: dict[str, tuple[Callable[[int], Iterator[Row]], int]] = {
    "mutants": (mutation_rows, len(MODELS)),
    "folds": (fold_rows, FOLDS),
    "rewrites": (rewrite_rows, len(MODELS) + RANDOM),
    "hard": (hard_rows, len(HARD)),
}


def done(out: Path) -> list[Row]:
    """What a file holds."""
    return [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []


def run(part: str, numbers: range, out: Path) -> None:
    """Append the rows of some numbers, those that are not there yet."""
    rows, _ = PARTS[part]
    there = {row["number"] for row in done(out) if row["part"] == part}
    for number in numbers:
        if number in there:
            continue
        start = time.monotonic()
        found = list(rows(number))
        spent = round(time.monotonic() - start, 2)
        with out.open("a") as file:
            for row in found or [{"verdict": "none"}]:
                file.write(json.dumps({"part": part, "number": number, "s": spent, **row}) + "\n")
        keras.utils.clear_session(free_memory=False)


def missed_of(rows: Iterable[Row]) -> list[Row]:
    """Faults that an input shows, and that were not found."""
    return [row for row in rows if row["shown"] and not row["found"]]


def alarms_of(rows: Iterable[Row]) -> list[Row]:
    """Right models that were called different, or refused."""
    return [row for row in rows if row["verdict"] in ("different", REFUSED)]


def counted(
    console: Console, title: str, columns: Sequence[str], kinds: Mapping[str, Counter[str]]
) -> Counter[str]:
    """Print how often each result came, by kind and in all; the latter."""
    table = Table(title=title)
    table.add_column("kind")
    for column in columns:
        table.add_column(column, justify="right")
    for kind, counts in kinds.items():
        table.add_row(kind, *(f"{counts[column] or ''}" for column in columns))
    total = sum(kinds.values(), Counter[str]())
    table.add_section()
    table.add_row("all", *(f"{total[column]}" for column in columns))
    console.print(table)
    return total


def scores(console: Console, rows: Sequence[Row]) -> int:
    """Print the mutation score by kind; how many were missed."""
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        result = "found" if row["found"] else row["verdict"] if row["shown"] else "not shown"
        kinds[row["kind"]][result] += 1
    columns = ("found", "equivalent", "inconclusive", REFUSED, "not shown")
    total = counted(console, "faults", columns, kinds)
    missed = missed_of(rows)
    for row in missed:
        console.print(f"[red]{row['verdict']}: {row['model']}, {row['kind']}, {row['place']}[/red]")
    shown = total.total() - total["not shown"]
    console.print(f"found {total['found']} of {shown}: {100 * total['found'] / shown:.1f} %")
    return len(missed)


def alarms(console: Console, part: str, rows: Sequence[Row]) -> int:
    """Print what is said of right models; how many were called different."""
    kinds: dict[str, Counter[str]] = defaultdict(Counter)
    for row in rows:
        kinds[f"{row['kind']}, {row['way']}"][row["verdict"]] += 1
    columns = ("equivalent", "inconclusive", "different", REFUSED)
    counted(console, part, columns, dict(sorted(kinds.items())))
    false = alarms_of(rows)
    for row in false:
        console.print(f"[red]{part} {row['number']}, {row['kind']}, {row['model']}[/red]")
    return len(false)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a part, or print the table of what was run."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=(*PARTS, "table"))
    parser.add_argument("--first", type=int, default=0, help="the first number (0)")
    parser.add_argument("--count", type=int, default=None, help="how many (all)")
    parser.add_argument("--out", type=Path, default=Path("verification.jsonl"))
    args = parser.parse_args(argv)
    if args.part != "table":
        last = PARTS[args.part][1]
        end = last if args.count is None else min(last, args.first + args.count)
        run(args.part, range(args.first, end), args.out)
    console = Console(width=130)
    rows = [row for row in done(args.out) if row["verdict"] != "none"]
    wrong = 0
    for part in PARTS if args.part == "table" else (args.part,):
        if own := [row for row in rows if row["part"] == part]:
            wrong += scores(console, own) if part == "mutants" else alarms(console, part, own)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
