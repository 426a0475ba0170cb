"""Settings come from the environment, and a wrong one is named."""

from pathlib import Path

import pytest

from qwharf import settings
from qwharf.errors import UsageError


def test_one_home_holds_everything(tmp_path: Path) -> None:
    s = settings.load({"QWHARF_HOME": str(tmp_path)})
    assert s.store_dir == tmp_path / "data" / "store"
    assert s.log_dir == tmp_path / "state" / "logs"
    assert s.daemon_url == "http://127.0.0.1:8383"


@pytest.mark.parametrize("port", ["0", "65536", "http", "-1", "８", "1.5"])
def test_a_wrong_port_is_named(port: str) -> None:
    with pytest.raises(UsageError) as e:
        settings.load({"QWHARF_PORT": port})
    assert e.value.subject == "QWHARF_PORT"
    assert e.value.found == port


def test_the_world_needs_a_key() -> None:
    with pytest.raises(UsageError, match="QWHARF_HOST"):
        settings.load({"QWHARF_HOST": "0.0.0.0"})
    s = settings.load({"QWHARF_HOST": "0.0.0.0", "QWHARF_API_KEY": "k"})
    assert s.api_key == "k"


def test_ipv6_is_bracketed() -> None:
    assert settings.load({"QWHARF_HOST": "::1"}).daemon_url == "http://[::1]:8383"
