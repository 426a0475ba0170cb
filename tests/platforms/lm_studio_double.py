"""An LM Studio for tests: REST v1 as its documentation has it, and the websockets of its SDKs as
their recorded exchanges have them. It looks into its folders at every question, as the application
does, and runs no engine: a loaded model is a line in a list.

What of this the real application does is not shown by it; docs/platforms/lmstudio.md says so.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import yaml
from aiohttp import WSMsgType, web
from ollama_double_engine import Brain

from qwharf.formats.gguf import read_gguf

Fault = Callable[[web.Request], Awaitable[web.StreamResponse]]
DEFAULT_CONTEXT = 4096
DEFAULTS = {"temperature": 0.8, "top_k": 40, "top_p": 0.95, "min_p": 0.05, "repeat_penalty": 1.1}


@dataclass
class Found:
    """A model in the folders."""

    key: str
    publisher: str
    path: Path
    format: str
    architecture: str
    most: int
    thinks: bool = False
    context: int = DEFAULT_CONTEXT


@dataclass
class Instance:
    id: str
    key: str
    context: int
    brain: Brain | None = None


@dataclass
class LmStudioDouble:
    """One server. ``faults`` maps ``METHOD /path`` to a misdeed."""

    home: Path
    port: int = 0
    token: str | None = None
    bare_keys: bool = False
    """Weights alone get keys without their publisher."""
    reads_hub: bool = True
    """Descriptions of models are noticed."""
    engines: bool = False
    blind: bool = False
    """New files are not noticed."""
    most_context: int | None = None
    faults: dict[str, Fault] = field(default_factory=dict)
    instances: list[Instance] = field(default_factory=list)
    asked: list[tuple[str, Any]] = field(default_factory=list)
    packets: list[Any] = field(default_factory=list)

    # ------------------------------------------------------------------------------ the models

    @property
    def models_folder(self) -> Path:
        try:
            told = json.loads((self.home / "settings.json").read_text())["downloadsFolder"]
            return Path(told)
        except (OSError, ValueError):
            return self.home / "models"

    def concrete(self) -> Iterator[Found]:
        for folder in sorted(self.models_folder.glob("*/*")):
            publisher, repository = folder.parts[-2:]
            key = repository if self.bare_keys else f"{publisher}/{repository}"
            ggufs = sorted(folder.glob("*.gguf"))
            if ggufs:
                facts = read_gguf(ggufs[0]).metadata
                arch = str(facts["general.architecture"])
                most = int(facts[f"{arch}.context_length"])
                yield Found(key.lower(), publisher, ggufs[0], "gguf", arch, most)
            elif (folder / "config.json").exists():
                config = json.loads((folder / "config.json").read_text())
                most = config["max_position_embeddings"]
                arch = config["model_type"]
                yield Found(key.lower(), publisher, folder, "mlx", arch, most)

    def all(self) -> list[Found]:
        if self.blind:
            return []
        found = {x.key: x for x in self.concrete()}
        if not self.reads_hub:
            return list(found.values())
        for path in sorted((self.home / "hub" / "models").glob("*/*/model.yaml")):
            told = yaml.safe_load(path.read_text())
            if "base" not in told or not path.with_name("manifest.json").exists():
                continue
            manifest = json.loads(path.with_name("manifest.json").read_text())
            wanted = told["base"][0]["key"]
            assert manifest["dependencies"][0]["modelKeys"] == [wanted]
            base = found.pop(wanted, None) or found.pop(wanted.partition("/")[2], None)
            if base is None:
                continue
            load = {f["key"]: f["value"] for f in told["config"]["load"]["fields"]}
            fields = {f["key"] for f in told.get("customFields", ())}
            found[told["model"]] = Found(
                told["model"],
                told["model"].partition("/")[0],
                base.path,
                base.format,
                base.architecture,
                base.most,
                "enableThinking" in fields,
                load.get("llm.load.contextLength", DEFAULT_CONTEXT),
            )
        return list(found.values())

    def find(self, key: str) -> Found | None:
        return next((m for m in self.all() if m.key == key), None)

    def load(self, model: Found, context: int | None, name: str | None = None) -> Instance:
        taken = {i.id for i in self.instances}
        ids = (name or model.key if n == 1 else f"{name or model.key}:{n}" for n in range(1, 99))
        asked = context or model.context
        capped = min(asked, model.most, self.most_context or asked)
        brain = Brain(model.path, capped) if self.engines else None
        instance = Instance(next(i for i in ids if i not in taken), model.key, capped, brain)
        self.instances.append(instance)
        return instance

    # ------------------------------------------------------------------------------------- REST

    def entry(self, model: Found) -> dict[str, Any]:
        reasoning = {"allowed_options": ["off", "on"], "default": "on"}
        return {
            "type": "llm",
            "publisher": model.publisher,
            "key": model.key,
            "display_name": model.key,
            "architecture": model.architecture,
            "quantization": {"name": "Q4_K_M", "bits_per_weight": 4},
            "size_bytes": 1,
            "params_string": "1B",
            "loaded_instances": [
                {"id": i.id, "config": config(i)} for i in self.instances if i.key == model.key
            ],
            "max_context_length": model.most,
            "format": model.format,
            "capabilities": {
                "vision": False,
                "trained_for_tool_use": True,
                **({"reasoning": reasoning} if model.thinks else {}),
            },
            "description": None,
            "variants": [],
        }

    async def rest(self, request: web.Request) -> web.StreamResponse:
        what = f"{request.method} {request.path}"
        raw = await request.read()
        if what in self.faults:
            return await self.faults[what](request)
        if what == "GET /lmstudio-greeting":
            return web.json_response({"lmstudio": True})
        if what == "GET /lms-status":
            return web.json_response({"package": "lmstudio", "version": "0.4.12"})
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            return refuse(401, "invalid_request", "An LM Studio API token is required")
        body = json.loads(raw) if raw else None
        self.asked.append((what, body))
        match what:
            case "GET /api/v1/models":
                return web.json_response({"models": [self.entry(m) for m in self.all()]})
            case "POST /api/v1/models/load":
                model = self.find(body["model"])
                if model is None:
                    return refuse(404, "model_not_found", f"Model {body['model']} not found")
                instance = self.load(model, body.get("context_length"))
                told: dict[str, Any] = {
                    "type": "llm",
                    "instance_id": instance.id,
                    "load_time_seconds": 0.1,
                    "status": "loaded",
                }
                if body.get("echo_load_config"):
                    told["load_config"] = config(instance)
                return web.json_response(told)
            case "POST /api/v1/models/unload":
                if not self.unload(body["instance_id"]):
                    return refuse(404, "model_not_found", "No such instance")
                return web.json_response({"instance_id": body["instance_id"]})
            case "POST /v1/chat/completions" | "POST /v1/completions":
                return await self.infer(request, dict(body))
        # An unknown route gets an error with status 200, as older ones answer.
        return web.json_response({"error": f"Unexpected endpoint or method. ({what})"})

    def unload(self, id: str) -> bool:
        going = [i for i in self.instances if i.id == id]
        for instance in going:
            self.instances.remove(instance)
            if instance.brain is not None:
                instance.brain.stop()
        return bool(going)

    async def infer(self, request: web.Request, body: dict[str, Any]) -> web.StreamResponse:
        """Only ``reasoning_effort`` switches; what is not said is LM Studio's, not the model's."""
        found = [i for i in self.instances if i.id == body["model"] and i.brain is not None]
        if not found:
            return refuse(404, "model_not_found", f"No model {body['model']} is loaded")
        brain = found[0].brain
        assert brain is not None
        effort = body.pop("reasoning_effort", "medium")
        body["chat_template_kwargs"] = {"enable_thinking": effort != "none"}
        body = {**DEFAULTS, **body}
        async with (
            aiohttp.ClientSession() as session,
            session.post(brain.url + request.path, json=body) as answer,
        ):
            told = web.StreamResponse(status=answer.status)
            told.content_type = answer.content_type
            await told.prepare(request)
            async for piece in answer.content.iter_any():
                await told.write(piece)
            await told.write_eof()
            return told

    # ------------------------------------------------------------------------------- websockets

    async def socket(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.receive_json()  # who it is
        await socket.send_json({"success": True})
        async for message in socket:
            if message.type is not WSMsgType.TEXT:
                break
            packet = json.loads(message.data)
            self.packets.append(packet)
            for answer in self.packet(packet):
                await socket.send_json(answer)
        return socket

    def packet(self, packet: dict[str, Any]) -> Iterator[dict[str, Any]]:
        match packet["type"]:
            case "rpcCall":
                answer = {"type": "rpcResult", "callId": packet["callId"]}
                try:
                    result = self.rpc(packet["endpoint"], packet.get("parameter"))
                except LookupError as e:
                    error = {"title": str(e), "rootTitle": str(e)}
                    yield {"type": "rpcError", "callId": packet["callId"], "error": error}
                    return
                # Of what has no result, the key must be absent.
                yield answer if result is None else answer | {"result": result}
            case "channelCreate":
                yield from self.channel(packet)

    def rpc(self, endpoint: str, parameter: Any) -> Any:
        match endpoint:
            case "listDownloadedModels":
                return [self.info(m) for m in self.all()]
            case "listLoaded":
                return [self.instance_info(i) for i in self.instances]
            case "getModelInfo":
                query = parameter["specifier"].get("query", {})
                wanted = query.get("identifier")
                for instance in self.instances:
                    if wanted in (None, instance.id):
                        return self.instance_info(instance)
                raise LookupError(f"no model {wanted}")
            case "getLoadConfig":
                context = self.rpc("getModelInfo", parameter)["contextLength"]
                return {"fields": [{"key": "llm.load.contextLength", "value": context}]}
            case "unloadModel":
                if not self.unload(parameter["identifier"]):
                    raise LookupError(f"no model {parameter['identifier']}")
                return None
        raise LookupError(f"unknown endpoint {endpoint}")

    def channel(self, packet: dict[str, Any]) -> Iterator[dict[str, Any]]:
        id, asked = packet["channelId"], packet["creationParameter"]
        model = self.find(asked.get("modelKey") or asked.get("identifier"))
        if packet["endpoint"] != "loadModel" or model is None:
            error = {"title": "Model not found", "rootTitle": "Model not found"}
            yield {"type": "channelError", "channelId": id, "error": error}
            return
        fields = {
            f["key"]: f["value"]
            for layer in asked["loadConfigStack"]["layers"]
            for f in layer["config"]["fields"]
        }
        context = fields.get("llm.load.contextLength")
        instance = self.load(model, context, asked.get("identifier"))
        for message in (
            {"type": "resolved", "info": self.info(model)},
            {"type": "progress", "progress": 1},
            {"type": "success", "info": self.instance_info(instance)},
        ):
            yield {"type": "channelSend", "channelId": id, "message": message}
        yield {"type": "channelClose", "channelId": id}

    def info(self, model: Found) -> dict[str, Any]:
        """MLX is called ``safetensors`` here."""
        path = model.path.relative_to(self.models_folder).as_posix()
        return {
            "type": "llm",
            "modelKey": model.key,
            "format": "gguf" if model.format == "gguf" else "safetensors",
            "displayName": model.key,
            "publisher": model.publisher,
            "path": path,
            "sizeBytes": 1,
            "indexedModelIdentifier": path,
            "deviceIdentifier": None,
            "paramsString": "1B",
            "architecture": model.architecture,
            "quantization": {"name": "Q4_K_M", "bits": 4},
            "vision": False,
            "trainedForToolUse": True,
            "maxContextLength": model.most,
        }

    def instance_info(self, instance: Instance) -> dict[str, Any]:
        model = self.find(instance.key)
        assert model is not None
        return self.info(model) | {
            "identifier": instance.id,
            "instanceReference": f"ref-{instance.id}",
            "ttlMs": None,
            "lastUsedTime": None,
            "contextLength": instance.context,
        }

    # ------------------------------------------------------------------------------------- life

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> LmStudioDouble:
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self.loop).result(60)
        return self

    async def _start(self) -> None:
        app = web.Application()
        for namespace in ("system", "llm", "embedding"):
            app.router.add_get(f"/{namespace}", self.socket)
        app.router.add_route("*", "/{path:.*}", self.rest)
        self.runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self.runner.setup()
        site = web.TCPSite(self.runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self.runner.addresses[0][1]

    def __exit__(self, *_: object) -> None:
        for instance in list(self.instances):
            self.unload(instance.id)
        asyncio.run_coroutine_threadsafe(self.runner.cleanup(), self.loop).result(60)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()


def config(instance: Instance) -> dict[str, Any]:
    return {
        "context_length": instance.context,
        "eval_batch_size": 512,
        "parallel": 4,
        "flash_attention": True,
        "offload_kv_cache_to_gpu": True,
    }


def refuse(status: int, kind: str, message: str) -> web.Response:
    """The errors of REST v1."""
    return web.json_response({"error": {"type": kind, "message": message}}, status=status)
