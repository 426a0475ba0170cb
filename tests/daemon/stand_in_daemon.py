"""The real daemon, with the stand-in platform beside the real ones and less patience.

``python stand_in_daemon.py``, with the settings in the environment as ever.
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from qwharf import platforms, settings
from qwharf.daemon import server
from qwharf.daemon.limits import Limits

platforms._WHERE["stand-in"] = ("stand_in_platform", "StandIn")

if __name__ == "__main__":
    server.run(settings.load(), Limits(backoff_seconds=(0.0, 0.05), stop_seconds=1.0))
