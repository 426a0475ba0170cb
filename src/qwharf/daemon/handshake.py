"""How a daemon in the background tells the command that started it how it went.

The command gives it a pipe as standard output and says so in the environment. The daemon writes
one line there when it listens or cannot, then turns its standard output away; a daemon that dies
without a word ends the pipe. So nobody has to poll, and reasons arrive as what they are.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from typing import Any

from qwharf.daemon.wire import error_to_json
from qwharf.errors import QwharfError

VARIABLE = "QWHARF_HANDSHAKE"


class Handshake:
    """The daemon's end; does nothing in a daemon that runs in the foreground."""

    def __init__(self) -> None:
        self.wanted = os.environ.pop(VARIABLE, None) is not None

    def ready(self, url: str) -> None:
        """It listens at ``url``."""
        self._say({"ready": url})

    def failed(self, error: QwharfError) -> None:
        """It cannot start."""
        self._say(error_to_json(error))

    def _say(self, what: Any) -> None:
        if not self.wanted:
            return
        self.wanted = False
        with contextlib.suppress(OSError):  # the command may have been interrupted: go on alone
            os.write(1, json.dumps(what).encode("utf-8") + b"\n")
        nowhere = os.open(os.devnull, os.O_WRONLY)
        sys.stdout.flush()
        os.dup2(nowhere, 1)
        os.close(nowhere)
