"""Engines that are really installed here (`qwharf engine install …`): each does what it says."""

import os

import pytest

from qwharf import engines, settings
from qwharf.engines import doctor
from qwharf.engines.installed import Installed

HOME = os.environ.get("QWHARF_HOME")
"""As the tests were started with, before any of them changes it."""


def own() -> list[Installed]:
    where = settings.load({"QWHARF_HOME": HOME} if HOME else {})
    return [x for x in engines.installed(settings=where) if x.source == "qwharf"]


@pytest.mark.engines
@pytest.mark.platforms
@pytest.mark.timeout(900)
@pytest.mark.parametrize("installed", own(), ids=lambda x: f"{x.engine}-{x.version}")
def test_it_works(installed: Installed) -> None:
    health = doctor.examine(installed)
    assert health.works, health.problems
    if installed.engine != "llama.cpp":
        assert health.version is not None and health.version.startswith(installed.version)
