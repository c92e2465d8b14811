"""What goes on, as a bar on stderr, for who calls from Python: the command line has its own."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from kerasfold.stages import Stage, told


@contextlib.contextmanager
def bar(is_drawn: bool) -> Iterator[None]:
    """Draw each stage of what goes on meanwhile, if that is wanted."""
    if not is_drawn:
        yield
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as drawn:

        def draw(stage: Stage) -> None:
            for before in drawn.task_ids:
                drawn.remove_task(before)
            drawn.add_task(stage.words, total=stage.total or None, completed=stage.done)

        with told(draw):
            yield
