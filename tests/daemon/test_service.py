"""Deployments on a program that runs for itself: what becomes of them in every turn it takes."""

import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from daemon_homes import eventually
from stand_in_service import Service, service_wish

from qwharf.daemon.limits import Limits
from qwharf.daemon.managed import Managed
from qwharf.daemon.patience import TooSlowError, Turns
from qwharf.daemon.state import State
from qwharf.daemon.supervisor import Supervisor
from qwharf.errors import EngineError, StorageError, UnknownDeployment, UsageError

QUICK = {
    "backoff_seconds": (0.0, 0.01),
    "look_seconds": 0.02,
    "look_again_seconds": 0.01,
    "return_seconds": 0.02,
}


class Harbour:
    """Supervisors over one memory and one service, as daemons follow each other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.service = Service()
        self.memory = State(folder / "state.db")
        self.all: list[Supervisor] = []

    def daemon(self, **limits: float) -> Supervisor:
        made = Supervisor(
            self.memory,
            self.folder / "logs",
            limits=Limits(**{**QUICK, **limits}),  # type: ignore[arg-type]
            platform_of=lambda name: self.service,
        )
        made.base_url = "http://127.0.0.1:1/v1"
        self.all.append(made)
        return made

    async def up(self, daemon: Supervisor) -> Managed:
        managed = await daemon.deploy(service_wish(self.folder))
        await settled(managed)
        assert managed.state == "ready", managed.detail
        return managed


async def settled(managed: Managed) -> list[str]:
    return [text async for text in managed.progress()]


@pytest.fixture
async def harbour(tmp_path: Path) -> AsyncIterator[Harbour]:
    made = Harbour(tmp_path)
    yield made
    if made.service.stuck:
        made.service.stuck.set()
    for daemon in made.all:
        await daemon.close()
    made.memory.close()


async def test_it_is_deployed_and_asked_for_by_its_name(harbour: Harbour) -> None:
    daemon = harbour.daemon()
    managed = await daemon.deploy(service_wish(harbour.folder))
    assert "placing the weights" in await settled(managed)
    found = managed.deployment(measured=True)
    assert found.engine == "service 1"
    assert found.memory_bytes == 7
    assert found.rss_bytes is None
    upstream = await daemon.ready("engine")
    assert upstream.model == "ours/engine"
    assert upstream.url == found.engine_url == "http://127.0.0.1:1"


async def test_down_takes_it_back(harbour: Harbour) -> None:
    daemon = harbour.daemon()
    await harbour.up(daemon)
    await daemon.remove("engine")
    assert harbour.service.models == set()
    with pytest.raises(UnknownDeployment):
        daemon.managed("engine")
    assert harbour.memory.rows() == ([], {})


async def test_down_works_with_the_service_gone(harbour: Harbour) -> None:
    daemon = harbour.daemon()
    await harbour.up(daemon)
    harbour.service.down = True
    await daemon.remove("engine")
    assert harbour.service.calls[-1] == "release"
    assert daemon.all() == []


async def test_files_that_cannot_be_taken_back_are_told_and_tried_again(harbour: Harbour) -> None:
    daemon = harbour.daemon()
    managed = await harbour.up(daemon)
    harbour.service.undeletable = True
    with pytest.raises(StorageError):
        await daemon.remove("engine")
    assert managed.state == "failed"
    assert "Permission denied" in (managed.detail or "")
    harbour.service.undeletable = False
    await daemon.remove("engine")
    assert daemon.all() == []


async def test_a_removal_that_was_cut_short_is_finished_by_the_next_daemon(
    harbour: Harbour,
) -> None:
    daemon = harbour.daemon()
    await harbour.up(daemon)
    harbour.service.undeletable = True
    with pytest.raises(StorageError):
        await daemon.remove("engine")
    await daemon.close()
    harbour.service.undeletable = False
    again = harbour.daemon()
    again.recover()
    await eventually(lambda: not again.all())
    assert harbour.service.models == set()
    assert harbour.memory.rows() == ([], {})


async def test_the_next_daemon_takes_over_what_is_still_there(harbour: Harbour) -> None:
    daemon = harbour.daemon()
    await harbour.up(daemon)
    await daemon.close()
    assert harbour.service.models == {"engine"}, "the end of the daemon takes nothing back"
    harbour.service.calls.clear()
    again = harbour.daemon()
    again.recover()
    await settled(again.managed("engine"))
    assert again.managed("engine").state == "ready"
    assert "deploy" not in harbour.service.calls


async def test_the_next_daemon_deploys_what_is_gone(harbour: Harbour) -> None:
    daemon = harbour.daemon()
    await harbour.up(daemon)
    await daemon.close()
    harbour.service.models.clear()
    again = harbour.daemon()
    again.recover()
    await settled(again.managed("engine"))
    assert harbour.service.models == {"engine"}


async def test_a_model_that_somebody_removed_is_deployed_again(harbour: Harbour) -> None:
    managed = await harbour.up(harbour.daemon())
    harbour.service.models.clear()
    await eventually(lambda: harbour.service.models and managed.state == "ready")
    died = next(e for e in harbour.memory.events("engine") if e.kind == "died")
    assert died.text == "service 1 does not have `ours/engine` any more"


async def test_a_service_that_ends_is_given_up_and_found_again(harbour: Harbour) -> None:
    daemon = harbour.daemon()
    managed = await harbour.up(daemon)
    harbour.service.down = True
    await eventually(lambda: managed.state == "failed")
    with pytest.raises(EngineError) as e:
        await daemon.ready("engine")
    assert e.value.found == "no answer; start it"
    harbour.service.down = False
    await eventually(lambda: managed.state == "ready")
    assert (await daemon.ready("engine")).model == "ours/engine"
    assert harbour.memory.rows()[0][0].wanted == "running"


async def test_a_short_silence_is_no_end(harbour: Harbour) -> None:
    daemon = harbour.daemon(health_attempts=10_000)
    managed = await harbour.up(daemon)
    harbour.service.down = True
    asked = len(harbour.service.calls)
    await eventually(lambda: len(harbour.service.calls) > asked + 3)
    assert managed.state == "ready"


async def test_a_broken_connection_makes_it_look_before_the_next_request(
    harbour: Harbour,
) -> None:
    daemon = harbour.daemon(look_seconds=600.0)
    await harbour.up(daemon)
    upstream = await daemon.ready("engine")
    harbour.service.models.clear()
    daemon.lost(upstream)
    fresh = await daemon.ready("engine")
    assert fresh.generation > upstream.generation
    assert harbour.service.models == {"engine"}


async def test_another_version_is_not_proven(harbour: Harbour) -> None:
    managed = await harbour.up(harbour.daemon())
    managed.remember(verified="pass", verified_engine="service 1")
    harbour.service.version = "service 2"
    await eventually(lambda: managed.deployment().engine == "service 2")
    assert managed.deployment().verified is None
    assert harbour.service.calls.count("deploy") == 1, "it was there all the time"


async def test_what_it_refuses_is_told_in_its_words(harbour: Harbour) -> None:
    harbour.service.refuses = "unsupported model"
    managed = await harbour.daemon().deploy(service_wish(harbour.folder))
    await settled(managed)
    assert managed.state == "failed"
    assert managed.detail == "unsupported model"


async def test_down_works_with_the_platform_gone(harbour: Harbour) -> None:
    """After a change of version, say."""
    daemon = harbour.daemon()
    await harbour.up(daemon)
    await daemon.close()

    def none(name: str) -> Service:
        raise UsageError(name, found="no platform of that name")

    again = harbour.daemon()
    again._platform_of = none
    again.recover()
    managed = again.managed("engine")
    await settled(managed)
    assert managed.state == "failed"
    await again.remove("engine")
    assert again.all() == []


async def test_its_log_stands_after_ours(harbour: Harbour) -> None:
    managed = await harbour.up(harbour.daemon())
    said = await managed.said(6)
    assert said[-1] == "service line 5"
    harbour.service.down = True
    assert any("placing the weights" in line for line in await managed.said(100))


async def test_a_hung_service_holds_nothing_up(harbour: Harbour) -> None:
    daemon = harbour.daemon(deploy_seconds=0.05, release_seconds=0.05)
    harbour.service.stuck = threading.Event()
    managed = await daemon.deploy(service_wish(harbour.folder))
    await settled(managed)
    assert managed.state == "failed"
    assert "no answer within" in (managed.detail or "")
    with pytest.raises(EngineError) as e:
        await daemon.remove("engine")
    assert "qwharf down engine" in e.value.hint
    harbour.service.stuck.set()
    await daemon.remove("engine")
    assert daemon.all() == []


async def test_calls_follow_each_other_even_when_one_was_given_up() -> None:
    turns, go, order = Turns("test"), threading.Event(), []

    def slow() -> None:
        go.wait(30)
        order.append("slow")

    with pytest.raises(TooSlowError):
        await turns.call(slow, 0.01)
    with pytest.raises(TooSlowError):
        await turns.call(lambda: order.append("early"), 0.01)
    go.set()
    await turns.call(lambda: order.append("next"), 30)
    assert order == ["slow", "next"]
    with pytest.raises(TimeoutError):
        await turns.call(_time_out, 30)


def _time_out() -> None:
    raise TimeoutError("of its own")
