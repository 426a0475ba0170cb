"""The real application on a real socket, in front of an engine that does what a test says."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp.test_utils import TestServer

sys.path.insert(0, str(Path(__file__).parent))

from gateway_client import Gateway
from gateway_doubles import Engine, Owner

from qwharf.gateway.app import build


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    made = await Engine().start()
    yield made
    await made.stop()


@pytest.fixture
def owner(engine: Engine) -> Owner:
    return Owner(engine)


@pytest.fixture
def api_key() -> str | None:
    return None


@pytest.fixture
async def gateway(owner: Owner, api_key: str | None) -> AsyncIterator[Gateway]:
    server = TestServer(build(owner, api_key=api_key))
    await server.start_server()
    async with aiohttp.ClientSession() as session:
        yield Gateway(owner, str(server.make_url("")).rstrip("/"), session)
    await server.close()
