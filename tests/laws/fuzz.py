"""Random compositions, sums, concatenations and frames of operators against the oracle.

    PYTHONPATH=tests python -m laws.fuzz --rank1 100000 --rank23 5000 --seed 0

NumPy only. Prints what was checked, what was refused and why, and the worst error; stops at
the first failure with a program that shows it, and exit code 1.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np

from laws.checks import (
    Failure,
    Tally,
    check_composition,
    check_concatenation,
    check_frame,
    check_sum,
    check_unknown_siblings,
    check_unknown_size,
)
from laws.draws import numpy_pick

CHECKS = (
    check_composition,
    check_composition,
    check_composition,
    check_unknown_size,
    check_unknown_size,
    check_sum,
    check_concatenation,
    check_unknown_siblings,
    check_frame,
)


def run(rank1: int, rank23: int, seed: int) -> Tally:
    """So many random cases; raises `Failure` at the first broken law."""
    tally = Tally()
    for case in range(rank1 + rank23):
        rng = np.random.default_rng((seed, case))
        pick = numpy_pick(rng)
        rank = 1 if case < rank1 else pick(2, 3)
        check = CHECKS[pick(0, len(CHECKS) - 1)]
        try:
            check(tally, pick, rank)
        except Failure as failure:
            raise Failure(f"seed {seed}, case {case}: {failure}") from None
    return tally


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rank1", type=int, default=10_000, metavar="N", help="cases in 1-D")
    parser.add_argument("--rank23", type=int, default=500, metavar="M", help="cases in 2-D and 3-D")
    parser.add_argument("--seed", type=int, default=0, metavar="S")
    arguments = parser.parse_args()
    began = time.perf_counter()
    try:
        tally = run(arguments.rank1, arguments.rank23, arguments.seed)
    except Failure as failure:
        print(failure)
        return 1
    print(tally)
    print(
        f"{arguments.rank1} cases in 1-D, {arguments.rank23} in 2-D and 3-D, "
        f"in {time.perf_counter() - began:.0f} s"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
