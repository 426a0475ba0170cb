"""The pocket model on every engine that is installed here, proven through the gateway.

vLLM and mlx-lm where they are; the embedded llama.cpp is proven in ``tests/spine``.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from qwharf import pipeline, platforms
from qwharf import settings as settings_module
from qwharf.daemon.client import DaemonClient
from qwharf.daemon.starting import free_port
from qwharf.errors import VerificationFailed
from qwharf.fit import Wishes
from qwharf.settings import Settings
from qwharf.types import Check

pytestmark = [pytest.mark.engines, pytest.mark.platforms]
CONTEXT = 2048
OF_OTHER_MODELS = {"thinking-absent", "thinking-stays-on"}
CANNOT: dict[str, set[str]] = {
    "vllm": {"sampling-defaults"},
    "mlx": {"sampling-defaults", "logprobs", "json-format"},
}
"""What an engine lacks, or does not show; everything else must pass."""


BEYOND_POCKET = {"tool-nested-json"}
"""What the pocket model may fail at without a grammar, which Qwen3 does not."""


class Notes:
    """An observer who remembers the checks."""

    def __init__(self) -> None:
        self.checks: list[Check] = []

    def step(self, name: str, text: str) -> None: ...
    def progress(self, label: str, done_bytes: int, total_bytes: int | None) -> None: ...
    def check(self, check: Check) -> None:
        self.checks.append(check)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    """A home of its own that knows the engines of the user's."""
    users = settings_module.load().data_dir / "engines"
    home = tmp_path / "home"
    (home / "data").mkdir(parents=True)
    if users.is_dir():
        (home / "data" / "engines").symlink_to(users)
    monkeypatch.setenv("QWHARF_HOME", str(home))
    monkeypatch.setenv("QWHARF_PORT", str(free_port()))
    settings = settings_module.load()
    yield settings
    client = DaemonClient(settings)
    if client.is_running():
        client.shutdown()


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("platform", sorted(CANNOT))
def test_it_is_deployed_and_proven(platform: str, home: Settings) -> None:
    here = platforms.get(platform).availability()
    if not here.installed:
        pytest.skip(f"{here.reason}; {here.hint}")
    notes = Notes()
    wishes = Wishes(platform=platform, context_tokens=CONTEXT)
    try:
        report = pipeline.up(pipeline.Request(model="pocket", wishes=wishes), home, notes).report
    except VerificationFailed as e:
        report = e.facts["report"]
    skipped = {c.id for c in notes.checks if c.status == "skip"}
    assert skipped <= CANNOT[platform] | OF_OTHER_MODELS, notes.checks
    failed = {c.id for c in report.checks if c.status == "fail"}
    assert failed <= BEYOND_POCKET, notes.checks
    deployment = DaemonClient(home).get("pocket")
    assert deployment.verified == ("fail" if failed else "pass")
    assert deployment.engine
