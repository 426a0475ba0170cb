"""What runs where, as data: format x hardware x platform x version, with the source of every cell.

Each platform has a TOML file beside this one; :mod:`qwharf.compatibility.reader` checks it when it
is first read. :func:`lookup` answers for one combination, :func:`instead` says what works in its
place. Whether a model fits in memory is no question for here: see :mod:`qwharf.fit`.
"""

from __future__ import annotations

from qwharf.compatibility.cells import (
    Adapters,
    Cell,
    Device,
    Facts,
    Kind,
    Sure,
    Verdict,
    device_of,
    devices,
)
from qwharf.compatibility.looking import (
    canonical,
    facts,
    instead,
    lookup,
    names,
    runs_anywhere,
    slice_of,
)

__all__ = [
    "Adapters",
    "Cell",
    "Device",
    "Facts",
    "Kind",
    "Sure",
    "Verdict",
    "canonical",
    "device_of",
    "devices",
    "facts",
    "instead",
    "lookup",
    "names",
    "runs_anywhere",
    "slice_of",
]
