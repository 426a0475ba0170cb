"""Which model, format and platform fit a machine, and with how much context.

:func:`plans` lists everything that fits, :func:`best` finds the best plan for one model on any
platform, :func:`choose` that which ``up`` can carry out. Arithmetic only: nothing is started and
nothing is looked up.
"""

from __future__ import annotations

from qwharf.fit.planning import best, choose, plans, threads
from qwharf.fit.refusing import most_context
from qwharf.fit.rules import PLATFORMS
from qwharf.fit.wishes import Wishes

__all__ = ["PLATFORMS", "Wishes", "best", "choose", "most_context", "plans", "threads"]
