"""A report inside a `.keras` file: under a key of its metadata, which Keras does not read."""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from kerasfold.errors import FoldError, words_of
from kerasfold.reports.stored import plain, restored
from kerasfold.reports.views import FoldReport

KEY = "kerasfold"
MOST = 1 << 26  # bytes that metadata may unpack to
_METADATA = "metadata.json"


def put(report: FoldReport, path: Path) -> None:
    """Write a report into the metadata of a `.keras` file, in place of one that is there.

    A zip file has its list of contents at the end: what is no longer in it stays as a gap of a
    few bytes. A member more would make Keras unpack the whole archive when it loads it.
    """
    with zipfile.ZipFile(path, "a") as archive:
        before = archive.getinfo(_METADATA)
        metadata = json.loads(archive.read(before))
        metadata[KEY] = plain(report)
        archive.filelist.remove(before)
        del archive.NameToInfo[_METADATA]
        text = json.dumps(metadata, allow_nan=False)
        archive.writestr(_METADATA, text, zipfile.ZIP_DEFLATED)


def report_in(path: str | Path) -> FoldReport:
    """The report in a `.keras` file. Raises `FoldError`, where there is none."""
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(_METADATA).file_size > MOST:
                raise ValueError(f"metadata of more than {MOST} bytes")
            metadata: Any = json.loads(archive.read(_METADATA))
    except (OSError, zipfile.BadZipFile, KeyError, ValueError, NotImplementedError) as error:
        raise FoldError(f"{path} is no .keras file that can be read ({words_of(error)})") from error
    if not isinstance(metadata, dict) or KEY not in metadata:
        raise FoldError(
            f"{path} holds no report: `kerasfold fold` and `kerasfold.save` put one into the "
            ".keras files that they write, model.save() does not"
        )
    return sized(restored(FoldReport, metadata[KEY]), path)


def sized(report: FoldReport, path: str | Path) -> FoldReport:
    """With the size of the file as it is, the report in it included."""
    if report.files is None:
        return report
    return replace(report, files=replace(report.files, bytes_after=Path(path).stat().st_size))
