"""The command line over `fold`, `explain` and `verify`, and a stopwatch for two stored models.

Files are loaded with Keras's safe mode on, and no code in them is ever run.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Iterator, Sequence

from kerasfold import startup, stopping
from kerasfold.commands.output import (
    DIFFERENT,
    DONE,
    RED,
    UNUSABLE,
    close_stdout,
    has_colour,
    in_colour,
)
from kerasfold.commands.parser import parsed
from kerasfold.commands.progress import shown
from kerasfold.errors import (
    EquivalenceError,
    FoldError,
    NonlinearLayerError,
    UnusableError,
    words_of,
)
from kerasfold.legible import legible
from kerasfold.stages import at


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: the arguments, without the name of the program; None for those of the process.

    Returns:
        The exit code. 0: done, or equivalent. 1: not equivalent, also a fold that its verification
        refused, or with --strict not linear. 2: unusable input or arguments, or a stdout that
        cannot be written, with one line on stderr. 3: inconclusive: nothing was shown of two
        models. 128 + n: stopped by signal n; 141 where nobody reads any more what is printed, of
        which nothing is said.
    """
    path = list(sys.path)
    try:
        args = parsed(argv)
        if os.getcwd() not in sys.path:
            sys.path.append(os.getcwd())
        with shown(args.quiet, args.verbose), startup.backends_unheard() as said:
            at("loading Keras")
            with startup.loading(said), _backend_named():
                command = importlib.import_module(f"kerasfold.commands.{args.command}")
            with stopping.raised():
                return int(command.run(args))
    except SystemExit as finished:  # --help and --version
        return int(finished.code or DONE)
    except KeyboardInterrupt as stop:
        return _fail(*stopping.said_of(stop))
    except BrokenPipeError:
        close_stdout()
        return stopping.UNREAD
    except (EquivalenceError, NonlinearLayerError) as refusal:
        return _fail(str(refusal), DIFFERENT)
    except FoldError as problem:
        return _fail(str(problem), UNUSABLE)
    except OSError as problem:  # what is written to is full, or closed
        return _fail(words_of(problem), UNUSABLE)
    except Exception as bug:
        return _fail(
            f"unexpected {words_of(bug)}: a defect of kerasfold or of a layer in the model; call "
            "kerasfold from Python to see where",
            UNUSABLE,
        )
    finally:
        sys.path[:] = path


@contextlib.contextmanager
def _backend_named() -> Iterator[None]:
    """Say so where Keras has not the backend that the environment names."""
    try:
        yield
    except Exception as error:
        backend = os.environ.get("KERAS_BACKEND")
        if backend is None or hasattr(sys.modules.get("keras"), "Model"):
            raise
        raise UnusableError(
            f"Keras cannot be loaded with KERAS_BACKEND={backend} ({words_of(error)}): install "
            "that backend, or name one that is installed"
        ) from error


def _fail(message: str, code: int) -> int:
    word = in_colour("error:", RED) if has_colour(sys.stderr) else "error:"
    print(f"kerasfold: {word} {legible(' '.join(message.split()))}", file=sys.stderr)
    return code
