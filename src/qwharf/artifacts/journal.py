"""Which parts of an unfinished file are finished: appended to as they are safely on the disk."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path


class Journal:
    """The list of finished tensors, appended to as they are safely on the disk."""

    def __init__(self, path: Path, digest: str, tensors: int) -> None:
        self.path = path
        self.digest = digest
        self.tensors = tensors

    def read(self) -> frozenset[int]:
        """Indices of the finished tensors; none where the journal is another plan's, or damaged.

        A last line cut short by a crash is ignored.
        """
        try:
            lines = self.path.read_bytes().split(b"\n")[:-1]
            head = json.loads(lines[0])
        except (OSError, ValueError, IndexError):
            return frozenset()
        if not isinstance(head, dict) or head.get("plan") != self.digest:
            return frozenset()
        done: set[int] = set()
        for line in lines[1:]:
            try:
                indices = json.loads(line)
            except ValueError:
                break
            if not isinstance(indices, list):
                break
            done.update(i for i in indices if type(i) is int and 0 <= i < self.tensors)
        return frozenset(done)

    def start(self, done: frozenset[int]) -> None:
        """Write it anew with what is ``done``."""
        text = f'{{"plan": "{self.digest}"}}\n{json.dumps(sorted(done))}\n'
        with self.path.open("wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())

    def add(self, indices: Sequence[int]) -> None:
        """Note that ``indices`` are finished and on the disk."""
        with self.path.open("ab") as file:
            file.write(json.dumps(sorted(indices)).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
