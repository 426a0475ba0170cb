"""Engines that fail in every way that the daemon must stand."""

import asyncio
import contextlib
import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from daemon_homes import Workshop, eventually, is_dead
from stand_in_platform import StandIn, starts, wish

from qwharf.daemon import starting
from qwharf.daemon.managed import Managed
from qwharf.errors import (
    Conflict,
    EngineError,
    InvalidFile,
    StorageError,
    UnknownDeployment,
    UsageError,
)
from qwharf.types import DeploymentSpec, Report


async def finish(managed: Managed) -> list[str]:
    return [text async for text in managed.progress()]


async def up(workshop: Workshop, spec: DeploymentSpec) -> Managed:
    managed = await workshop.supervisor.deploy(spec)
    await finish(managed)
    assert managed.state == "ready", managed.detail
    return managed


def report(spec: DeploymentSpec | None, engine: str = StandIn.version) -> Report:
    return Report(
        deployment="engine",
        base_url="",
        model="pocket",
        thinking="hybrid",
        checks=(),
        created_at=1.0,
        versions={"engine": engine},
        spec=spec,
    )


async def test_an_engine_that_starts(workshop: Workshop) -> None:
    spec = wish(workshop.folder, slow_steps=2)
    managed = await workshop.supervisor.deploy(spec)
    assert managed.deployment().state == "starting"
    told = await finish(managed)
    assert told[0] == "starting the engine"
    assert told[2:4] == ["step 0", "step 1"]
    found = managed.deployment(measured=True)
    assert found.state == "ready"
    assert found.spec == spec
    assert found.engine == StandIn.version
    assert found.memory_bytes == 1000
    assert found.rss_bytes is not None and found.rss_bytes > 2**20
    assert found.pid == starts(spec)[0][0]
    upstream = await workshop.supervisor.ready("engine")
    assert upstream.url == f"http://127.0.0.1:{starts(spec)[0][1]}" == found.engine_url
    await workshop.supervisor.remove("engine")
    assert is_dead(found.pid)
    assert workshop.supervisor.all() == []


async def test_the_key_does_not_reach_engines(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("QWHARF_API_KEY", "secret")
    told = await finish(await workshop.supervisor.deploy(wish(workshop.folder)))
    assert "started, key unset" in told


async def test_an_engine_that_dies_at_once_says_why(workshop: Workshop) -> None:
    spec = wish(workshop.folder, die="bad weights")
    managed = await workshop.supervisor.deploy(spec)
    await finish(managed)
    assert managed.state == "failed"
    assert len(starts(spec)) == 1, "what fails at its first start is not tried again"
    with pytest.raises(EngineError) as e:
        await workshop.supervisor.ready("engine")
    assert e.value.found == "bad weights"
    assert "qwharf logs engine" in e.value.hint


async def test_a_failed_deployment_makes_room(workshop: Workshop) -> None:
    await finish(await workshop.supervisor.deploy(wish(workshop.folder, die="bad weights")))
    managed = await up(workshop, replace(wish(workshop.folder), context_tokens=2048))
    assert managed.spec.context_tokens == 2048
    assert len(workshop.supervisor.all()) == 1


async def test_a_program_that_is_not_there(workshop: Workshop) -> None:
    class Missing(StandIn):
        def launch(self, spec: DeploymentSpec, port: int) -> Any:
            return replace(super().launch(spec, port), argv=("/no/such/engine",))

    workshop.supervisor._platform_of = lambda name: Missing()
    managed = await workshop.supervisor.deploy(wish(workshop.folder))
    await finish(managed)
    assert managed.state == "failed"
    assert "/no/such/engine" in (managed.detail or "")


async def test_a_platform_with_a_mistake_kills_nothing(workshop: Workshop) -> None:
    class Wrong(StandIn):
        def launch(self, spec: DeploymentSpec, port: int) -> Any:
            raise ZeroDivisionError

    workshop.supervisor._platform_of = lambda name: Wrong()
    managed = await workshop.supervisor.deploy(wish(workshop.folder))
    await finish(managed)
    assert managed.state == "failed"
    assert "ZeroDivisionError" in (managed.detail or "")


async def test_a_log_that_cannot_be_understood_kills_nothing(workshop: Workshop) -> None:
    class Wrong(StandIn):
        def applied(self, log: Any) -> Any:
            raise ValueError

        def explain(self, log: Any, exit_code: Any) -> Any:
            raise ValueError

        def phase(self, log_line: str) -> Any:
            raise ValueError

    workshop.supervisor._platform_of = lambda name: Wrong()
    managed = await up(workshop, wish(workshop.folder))
    assert managed.deployment().memory_bytes is None
    await workshop.supervisor.remove("engine")
    managed = await workshop.supervisor.deploy(wish(workshop.folder, die="x"))
    await finish(managed)
    assert managed.detail == "exit code 3"


async def test_what_the_platform_refuses_is_not_started(workshop: Workshop) -> None:
    spec = wish(workshop.folder, refuse="nonsense")
    with pytest.raises(InvalidFile, match="nonsense"):
        await workshop.supervisor.deploy(spec)
    assert workshop.supervisor.all() == []
    assert workshop.memory.rows() == ([], {})
    assert starts(spec) == []


@pytest.mark.parametrize(
    "name",
    ["", "../etc", "a/b", ".hidden", "-x", "a b", "x" * 65, "a\n", "a\x00", "\ud800", "模型"],
)
async def test_names_that_would_be_trouble(workshop: Workshop, name: str) -> None:
    with pytest.raises(UsageError):
        await workshop.supervisor.deploy(replace(wish(workshop.folder), name=name))


async def test_names_that_differ_in_capitals_only(workshop: Workshop) -> None:
    spec = wish(workshop.folder)
    await workshop.supervisor.deploy(spec)
    with pytest.raises(Conflict, match="capitals"):
        await workshop.supervisor.deploy(replace(spec, name="ENGINE"))


async def test_an_adapters_name_is_as_good_as_a_deployments(workshop: Workshop) -> None:
    spec = replace(wish(workshop.folder), adapters={"law": Path("/law")})
    await workshop.supervisor.deploy(spec)
    for other in (
        replace(spec, name="law", adapters={}),
        replace(spec, name="other", adapters={"Law": Path("/tax")}),
        replace(spec, name="other", adapters={"engine": Path("/tax")}),
        replace(spec, name="other", adapters={"other": Path("/tax")}),
        replace(spec, name="other", adapters={"tax": Path("/a"), "TAX": Path("/b")}),
    ):
        with pytest.raises(Conflict) as e:
            await workshop.supervisor.deploy(other)
        assert e.value.hint
    with pytest.raises(UsageError, match="a/b"):
        await workshop.supervisor.deploy(replace(spec, name="other", adapters={"a/b": Path("/x")}))


async def test_two_deploys_of_the_same_make_one_start(workshop: Workshop) -> None:
    spec = wish(workshop.folder, slow_steps=2)
    other = replace(spec, expected_memory_bytes=6)
    one, two = await asyncio.gather(
        workshop.supervisor.deploy(spec), workshop.supervisor.deploy(other)
    )
    assert one is two
    told = await asyncio.gather(finish(one), finish(two))
    assert told[0] == told[1]
    assert one.state == "ready"
    assert len(starts(spec)) == 1


async def test_another_spec_under_the_same_name(workshop: Workshop) -> None:
    spec = wish(workshop.folder)
    await workshop.supervisor.deploy(spec)
    with pytest.raises(Conflict, match="context_tokens 1024"):
        await workshop.supervisor.deploy(replace(spec, context_tokens=2048))


async def test_a_killed_engine_comes_back_for_the_next_request(workshop: Workshop) -> None:
    spec = wish(workshop.folder)
    await up(workshop, spec)
    first = await workshop.supervisor.ready("engine")
    os.kill(starts(spec)[0][0], signal.SIGKILL)
    workshop.supervisor.lost(first)
    second = await workshop.supervisor.ready("engine")
    assert second.generation > first.generation
    assert second.url == f"http://127.0.0.1:{starts(spec)[1][1]}"
    found = workshop.supervisor.managed("engine").deployment()
    assert found.restarts == 1
    assert found.detail is None
    workshop.supervisor.lost(first)  # about an engine that is long gone
    assert (await workshop.supervisor.ready("engine")) == second


async def test_an_engine_that_lost_a_connection_but_lives_is_kept(workshop: Workshop) -> None:
    await up(workshop, wish(workshop.folder))
    first = await workshop.supervisor.ready("engine")
    workshop.supervisor.lost(first)
    assert await workshop.supervisor.ready("engine") == first


async def test_a_hung_engine_is_replaced(workshop: Workshop) -> None:
    supervisor = workshop.supervisor = workshop.again(health_seconds=0.3, health_attempts=2)
    spec = wish(workshop.folder)
    await up(workshop, spec)
    first = await supervisor.ready("engine")
    with contextlib.suppress(TimeoutError):
        async with supervisor.session.get(
            first.url + "/hang", timeout=aiohttp.ClientTimeout(total=0.3)
        ):
            pass
    supervisor.lost(first)
    second = await supervisor.ready("engine")
    assert second.generation > first.generation
    assert is_dead(starts(spec)[0][0])
    assert "hangs" in {e.kind for e in workshop.memory.events("engine")}


async def test_an_engine_that_keeps_dying_is_given_up(workshop: Workshop) -> None:
    workshop.supervisor = workshop.again(short_lives=2)
    spec = wish(workshop.folder)
    managed = await up(workshop, spec)
    for n in range(3):
        await eventually(lambda n=n: len(starts(spec)) > n and managed.state == "ready")
        upstream = await workshop.supervisor.ready("engine")
        with contextlib.suppress(aiohttp.ClientError):
            await workshop.supervisor.session.get(upstream.url + "/crash")
        workshop.supervisor.lost(upstream)
        await eventually(lambda: managed.state != "ready")
    await eventually(lambda: managed.state == "failed")
    assert "3 times in a row" in (managed.detail or "")
    assert "asked to crash" in (managed.detail or "")
    assert len(starts(spec)) == 3
    assert workshop.memory.rows()[0][0].wanted == "failed"


async def test_one_that_lived_long_does_not_count(workshop: Workshop) -> None:
    workshop.supervisor = workshop.again(short_lives=1, short_life_seconds=0.0)
    spec = wish(workshop.folder)
    await up(workshop, spec)
    for n in range(3):
        os.kill(starts(spec)[n][0], signal.SIGKILL)
        await eventually(lambda n=n: len(starts(spec)) > n + 1)
        await workshop.supervisor.ready("engine")


async def test_a_restart_that_fails_is_tried_again(workshop: Workshop) -> None:
    spec = wish(workshop.folder)
    await up(workshop, spec)
    spec.artifact_path.write_text(json.dumps({"die_once": "no luck"}), "utf-8")
    os.kill(starts(spec)[0][0], signal.SIGKILL)
    await eventually(lambda: len(starts(spec)) >= 3)
    await workshop.supervisor.ready("engine")


async def test_a_restart_that_always_fails_is_given_up(workshop: Workshop) -> None:
    spec = wish(workshop.folder)
    managed = await up(workshop, spec)
    first = await workshop.supervisor.ready("engine")
    spec.artifact_path.write_text(json.dumps({"die": "weights are gone"}), "utf-8")
    os.kill(starts(spec)[0][0], signal.SIGKILL)
    workshop.supervisor.lost(first)
    with pytest.raises(EngineError) as e:
        await workshop.supervisor.ready("engine")
    assert e.value.found == "weights are gone"
    assert managed.state == "failed"
    assert len(starts(spec)) == 1 + 3


@pytest.mark.parametrize(
    ("behaviour", "limits", "words"),
    [
        ({"silent": True}, {"stall_seconds": 0.5}, "no sign of life"),
        ({"spin": True}, {"stall_seconds": 30.0, "busy_seconds": 0.5}, "without progress"),
    ],
)
async def test_a_start_that_does_not_go_on(
    workshop: Workshop, behaviour: dict[str, Any], limits: dict[str, Any], words: str
) -> None:
    workshop.supervisor = workshop.again(**limits)
    spec = wish(workshop.folder, **behaviour)
    managed = await workshop.supervisor.deploy(spec)
    await finish(managed)
    assert managed.state == "failed"
    assert words in (managed.detail or "")
    assert "started" in (managed.detail or ""), "the last phase is named"
    assert is_dead(starts(spec)[0][0])


async def test_a_slow_start_may_take_longer_than_the_stall_limit(workshop: Workshop) -> None:
    workshop.supervisor = workshop.again(stall_seconds=1.5)
    await up(workshop, wish(workshop.folder, slow_steps=30))


async def test_a_request_waits_for_a_start_but_not_forever(workshop: Workshop) -> None:
    workshop.supervisor = workshop.again(wait_seconds=0.3)
    await workshop.supervisor.deploy(wish(workshop.folder, silent=True))
    with pytest.raises(EngineError, match="not ready after"):
        await workshop.supervisor.ready("engine")


async def test_a_port_taken_by_another_program(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that even answers as an engine would."""
    other = wish(workshop.folder, "other")
    await up(workshop, other)
    taken, free = starts(other)[0][1], starting.free_port
    ports = iter([taken, taken])
    monkeypatch.setattr("qwharf.daemon.child_engine.free_port", lambda: next(ports, None) or free())
    spec = wish(workshop.folder)
    await up(workshop, spec)
    assert len(starts(spec)) == 3 or starts(spec)[-1][1] != taken
    assert (await workshop.supervisor.ready("engine")).url != f"http://127.0.0.1:{taken}"


async def test_a_flood_of_words(workshop: Workshop) -> None:
    spec = wish(workshop.folder, flood_lines=150_000)
    managed = await up(workshop, spec)
    assert managed.deployment().memory_bytes == 1000, "said after the flood"
    folder = workshop.folder / "logs"
    sizes = [p.stat().st_size for p in folder.iterdir()]
    assert len(sizes) == 2
    assert sum(sizes) < 9 * 2**20
    assert len(managed.log.run()) <= 4000


async def test_stopping_in_the_middle_of_a_start(workshop: Workshop) -> None:
    spec = wish(workshop.folder, silent=True, stubborn=True, helper=True)
    managed = await workshop.supervisor.deploy(spec)
    waiting = asyncio.create_task(workshop.supervisor.ready("engine"))
    following = asyncio.create_task(finish(managed))
    await eventually(lambda: any(x.startswith("helper") for x in managed.log.run()))
    helper = int(next(x for x in managed.log.run() if x.startswith("helper")).split()[1])
    await workshop.supervisor.remove("engine")
    assert is_dead(starts(spec)[0][0])
    await eventually(lambda: is_dead(helper))
    with pytest.raises(UnknownDeployment):
        await waiting
    await following
    await up(workshop, wish(workshop.folder))


async def test_stopping_before_the_process_is_there(workshop: Workshop) -> None:
    spec = wish(workshop.folder)
    await workshop.supervisor.deploy(spec)
    await asyncio.sleep(0)
    await workshop.supervisor.remove("engine")
    assert all(is_dead(pid) for pid, _ in starts(spec))


async def test_down_and_up_at_once(workshop: Workshop) -> None:
    spec = wish(workshop.folder)
    await up(workshop, spec)
    removed, again = await asyncio.gather(
        workshop.supervisor.remove("engine"), workshop.supervisor.deploy(spec)
    )
    await finish(again)
    assert removed is None
    assert again.state == "ready"
    assert len(starts(spec)) == 2


async def test_removing_what_is_not_there(workshop: Workshop) -> None:
    with pytest.raises(UnknownDeployment):
        await workshop.supervisor.remove("nobody")


async def test_a_restart_of_the_daemon_recovers(workshop: Workshop) -> None:
    spec = wish(workshop.folder)
    await up(workshop, spec)
    await up(workshop, wish(workshop.folder, "second"))
    await finish(await workshop.supervisor.deploy(wish(workshop.folder, "broken", die="at once")))
    workshop.supervisor.put_report("engine", report(spec))
    workshop.supervisor.put_report("second", report(None))
    await workshop.supervisor.close()
    assert is_dead(starts(spec)[0][0])

    after = workshop.again()
    after.recover()
    await after.ready("engine")
    await after.ready("second")
    states = {d.spec.name: (d.state, d.verified, d.detail) for d in after.all()}
    assert states == {
        "engine": ("ready", "pass", None),
        "second": ("ready", None, None),
        "broken": ("failed", None, "at once"),
    }
    assert len(starts(wish(workshop.folder, "broken"))) == 1, "what had failed stays so"


async def test_a_new_engine_version_is_not_proven(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = wish(workshop.folder)
    await up(workshop, spec)
    workshop.supervisor.put_report("engine", report(spec))
    await workshop.supervisor.close()
    monkeypatch.setattr(StandIn, "version", "stand-in 2")
    after = workshop.again()
    after.recover()
    await after.ready("engine")
    found = after.managed("engine").deployment()
    assert (found.engine, found.verified) == ("stand-in 2", None)
    assert len(workshop.memory.reports("engine")) == 1, "the old report is kept"


async def test_recovery_checks_the_weights_again(workshop: Workshop) -> None:
    spec = wish(workshop.folder)
    await up(workshop, spec)
    await workshop.supervisor.close()
    wish(workshop.folder, refuse="damaged meanwhile")
    after = workshop.again()
    after.recover()
    with pytest.raises(EngineError, match="damaged meanwhile"):
        await after.ready("engine")


async def test_recovery_kills_what_a_dead_daemon_left(workshop: Workshop) -> None:
    """As after a ``kill -9`` where the system did not end its children."""
    spec = wish(workshop.folder)
    await up(workshop, spec)
    left = starts(spec)[0][0]
    assert workshop.memory.rows()[0][0].pid == left
    after = workshop.again()
    after.recover()
    await after.ready("engine")
    assert is_dead(left)


async def test_a_removal_that_was_cut_short_is_finished(workshop: Workshop) -> None:
    await up(workshop, wish(workshop.folder))
    workshop.supervisor.managed("engine").remember(wanted="removed")
    await workshop.supervisor.close()
    after = workshop.again()
    after.recover()
    assert after.all() == []
    assert workshop.memory.rows() == ([], {})


async def test_what_cannot_be_remembered_is_not_started(
    workshop: Workshop,
) -> None:
    spec = wish(workshop.folder)
    workshop.memory._db.execute("PRAGMA query_only = 1")
    with pytest.raises(StorageError):
        await workshop.supervisor.deploy(spec)
    assert workshop.supervisor.all() == []
    assert starts(spec) == []


async def test_a_full_disk_stops_no_engine(workshop: Workshop) -> None:
    spec = wish(workshop.folder)
    await up(workshop, spec)
    first = await workshop.supervisor.ready("engine")
    workshop.memory._db.execute("PRAGMA query_only = 1")
    os.kill(starts(spec)[0][0], signal.SIGKILL)
    workshop.supervisor.lost(first)
    assert (await workshop.supervisor.ready("engine")).generation > first.generation
    with pytest.raises(StorageError):
        await workshop.supervisor.remove("engine")
    assert is_dead(starts(spec)[1][0])
    workshop.memory._db.execute("PRAGMA query_only = 0")
