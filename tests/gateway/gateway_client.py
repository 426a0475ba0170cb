"""The gateway as a client meets it."""

import io
import json
from typing import Any

import aiohttp
from gateway_doubles import Owner

HI = [{"role": "user", "content": "Hi"}]


class Reply:
    """An answer, read to its end."""

    def __init__(self, status: int, headers: Any, raw: bytes) -> None:
        self.status, self.headers, self.raw = status, headers, raw

    @property
    def json(self) -> Any:
        return json.loads(self.raw)

    @property
    def error(self) -> dict[str, Any]:
        """The error; its shape is OpenAI's, whatever it is about."""
        error = self.json["error"]
        assert set(error) == {"message", "type", "param", "code"}
        assert error["message"] and error["type"]
        assert self.headers["Content-Type"].startswith("application/json")
        assert "Traceback" not in error["message"]
        return error

    @property
    def message(self) -> str:
        return self.error["message"]


class Gateway:
    """The gateway as a client meets it."""

    def __init__(self, owner: Owner, url: str, session: aiohttp.ClientSession) -> None:
        self.owner, self.engine, self.url, self.session = owner, owner.engine, url, session

    async def ask(self, method: str, path: str, **how: Any) -> Reply:
        async with self.session.request(method, self.url + path, **how) as r:
            return Reply(r.status, r.headers, await r.read())

    async def post(self, path: str, body: Any, **how: Any) -> Reply:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        return await self.ask("POST", path, data=io.BytesIO(data), **how)

    async def chat(self, **fields: Any) -> Reply:
        """A chat request; fields that are left out are the obvious ones."""
        return await self.post("/v1/chat/completions", {"model": "pocket", "messages": HI} | fields)

    async def sent(self, **fields: Any) -> dict[str, Any]:
        """What the engine gets of a chat request that is accepted."""
        reply = await self.chat(**fields)
        assert reply.status == 200, reply.raw
        return self.engine.body

    async def refused(self, param: str | None, **fields: Any) -> str:
        """The message of a chat request that is refused because of ``param``."""
        before = len(self.engine.heard)
        reply = await self.chat(**fields)
        assert reply.status == 400, reply.raw
        assert reply.error["param"] == param
        assert reply.error["type"] == "invalid_request_error"
        assert len(self.engine.heard) == before
        return reply.message
