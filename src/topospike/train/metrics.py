"""Stage train: ``metrics.jsonl``, one JSON object a line, and how it stays in step with a resume.

The length of the file in bytes goes into every checkpoint; a resumed run cuts the file back to it,
so the epochs it trains again appear once. It does not read or draw anything.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from topospike.errors import CheckpointError


class MetricsLog:
    """Appends records to a file, each on disk before the call returns; ``None`` writes nothing."""

    def __init__(self, path: Path | None) -> None:
        self.path = path

    @property
    def offset(self) -> int:
        """Length of the file in bytes."""
        return self.path.stat().st_size if self.path is not None and self.path.exists() else 0

    def write(self, kind: str, record: Mapping[str, Any]) -> None:
        """Append ``{"kind": kind, **record}``; NaN and infinity are not JSON and are refused."""
        if self.path is None:
            return
        line = json.dumps({"kind": kind, **record}, allow_nan=False) + "\n"
        with self.path.open("ab") as stream:
            stream.write(line.encode())
            stream.flush()
            os.fsync(stream.fileno())

    def truncate(self, offset: int) -> None:
        """Cut the file back to ``offset`` bytes.

        Raises
        ------
        CheckpointError
            The file is shorter than that: it is not the one the checkpoint was written with.
        """
        if self.path is None:
            return
        if self.offset < offset:
            raise CheckpointError(
                f"{self.path} has {self.offset} bytes, but the checkpoint was written when it had "
                f"{offset}. Restore the file, or start over with resume=False."
            )
        if self.path.exists():
            os.truncate(self.path, offset)
