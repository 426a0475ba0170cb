"""What a server is, told by what it answers: its kind, models and context.

Only questions that change nothing are asked. SGLang answers as an Ollama too, and everybody has
OpenAI's list of models, so the order of the questions matters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from qwharf.errors import EngineError, UsageError
from qwharf.platforms.service_http import Service

OTHER = "openai"
ABSENT = "is it running, and is that its address?"


@dataclass(frozen=True, slots=True, kw_only=True)
class ServedModel:
    """A model that a server offers."""

    name: str
    context_tokens: int | None = None
    """Of each request, where the server tells."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """What answers at a URL."""

    kind: str
    """A platform's name, or ``openai``."""
    engine: str
    """Name and version, as far as it tells."""
    models: tuple[ServedModel, ...]

    def model(self, name: str) -> ServedModel | None:
        """One of them."""
        return next((m for m in self.models if m.name == name), None)


def root(url: str) -> str:
    """The server's root, of whatever URL people know it by.

    Raises:
        UsageError: it is no URL of a server.
    """
    text = url.strip() if "://" in url else f"http://{url.strip()}"
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError:
        parts, host = urlsplit(""), None
    if not host or parts.scheme not in ("http", "https") or parts.query or parts.fragment:
        raise UsageError(
            url, found="no address of a server", expected="a URL such as http://127.0.0.1:8000"
        )
    if parts.username or parts.password:
        raise UsageError(
            url.replace(parts.netloc, host),
            found="a password in the URL, which would be written down",
            expected="a URL without one",
            hint="give the name of a variable that holds the key with --api-key-env",
        )
    path = parts.path.rstrip("/").removesuffix("/chat/completions").removesuffix("/v1")
    return f"{parts.scheme}://{parts.netloc}{path.rstrip('/')}"


def look(url: str, key: str | None, kind: str | None = None) -> Found:
    """What is at ``url``; with ``kind``, known from before, only that is asked.

    Raises:
        EngineError: nobody answers, the key is refused, or it is no server of models.
    """
    service = Service(
        f"the server at {url}",
        url,
        absent=ABSENT,
        headers={"Authorization": f"Bearer {key}"} if key else {},
    )
    listed = _listed(service)
    for name, find in _KINDS.items():
        if kind in (None, name) and (found := find(service, listed or ())) is not None:
            return found
    if listed is None:
        raise EngineError(
            url,
            found="something that has no list of models at /v1/models",
            expected="a server that speaks OpenAI's API",
            hint="is that its address? A path before /v1 belongs into the URL",
        )
    return Found(kind=OTHER, engine="an OpenAI-compatible server", models=_named(listed))


Listed = Sequence[Mapping[str, Any]]
"""OpenAI's list of models; empty where there is none."""


def _listed(service: Service) -> Listed | None:
    """The list; ``None``: somebody answers, but not with one.

    Raises:
        EngineError: nobody answers, or the key is refused.
    """
    try:
        found = service.ask("GET", "/v1/models")
    except EngineError as e:
        status = e.facts.get("status")
        if status in (401, 403):
            raise EngineError(
                service.url,
                found=f"a key is wanted (HTTP {status}: {e.found})",
                expected="to be let in",
                hint="give the name of a variable that holds the key with --api-key-env",
                status=status,
            ) from None
        # A bare mlx-lm breaks this off where there is no cache of the hub's.
        if status is None and service.answers("/health") is None:
            raise
        return None
    data = found.get("data") if isinstance(found, dict) else None
    if not isinstance(data, list) or not all(isinstance(m, dict) and "id" in m for m in data):
        return None
    return data


def _sglang(service: Service, listed: Listed) -> Found | None:
    info = _object(service, "/server_info") or _object(service, "/get_server_info")
    if "model_path" not in info or "tokenizer_path" not in info:
        return None
    engine = f"sglang {info.get('version', '')}".strip()
    return Found(kind="sglang", engine=engine, models=_named(listed))


def _vllm(service: Service, listed: Listed) -> Found | None:
    version = _object(service, "/version").get("version")
    if not isinstance(version, str):
        return None
    if not listed or any(m.get("owned_by") != "vllm" for m in listed):
        return None
    return Found(kind="vllm", engine=f"vllm {version}", models=_named(listed))


def _llama_cpp(service: Service, listed: Listed) -> Found | None:
    props = _object(service, "/props")
    settings = props.get("default_generation_settings")
    if not isinstance(settings, dict):
        return None
    context = _count(settings.get("n_ctx"))
    build = props.get("build_info")
    return Found(
        kind="llama.cpp",
        engine=f"llama.cpp {build}" if isinstance(build, str) else "llama.cpp",
        models=tuple(replace(m, context_tokens=context) for m in _named(listed)),
    )


def _lm_studio(service: Service, listed: Listed) -> Found | None:
    greeting = _object(service, "/lmstudio-greeting")
    models = _list(service, "/api/v1/models", "models")
    if greeting.get("lmstudio") is not True and not models:
        return None
    found = []
    for model in models:
        for loaded in model.get("loaded_instances") or ():
            config = loaded.get("config") or {}
            context = _count(config.get("context_length"))
            found.append(ServedModel(name=str(loaded.get("id")), context_tokens=context))
    return Found(kind="lmstudio", engine="LM Studio", models=tuple(found))


def _ollama(service: Service, listed: Listed) -> Found | None:
    version = _object(service, "/api/version").get("version")
    if not isinstance(version, str) or service.answers("/") != "Ollama is running":
        return None
    loaded = {
        m.get("model"): _count(m.get("context_length")) for m in _list(service, "/api/ps", "models")
    }
    names = [str(m.get("model")) for m in _list(service, "/api/tags", "models")]
    return Found(
        kind="ollama",
        engine=f"ollama {version}",
        models=tuple(ServedModel(name=n, context_tokens=loaded.get(n)) for n in names),
    )


MLX_DEFAULT = "default_model"
"""How requests ask for the model that mlx-lm's server was started with."""
_MLX_FIELDS = {"id", "object", "created"}


def _mlx(service: Service, listed: Listed) -> Found | None:
    """Known by what it leaves out; its list of models is that of the hub's cache, and breaks off
    where there is none.
    """
    healthy = service.answers("/health") == {"status": "ok"}
    if not healthy or any(set(m) != _MLX_FIELDS for m in listed):
        return None
    names = [MLX_DEFAULT, *(str(m["id"]) for m in listed if not str(m["id"]).startswith("/"))]
    return Found(kind="mlx", engine="mlx-lm", models=tuple(ServedModel(name=n) for n in names))


_KINDS: Mapping[str, Callable[[Service, Listed], Found | None]] = {
    "sglang": _sglang,
    "vllm": _vllm,
    "llama.cpp": _llama_cpp,
    "lmstudio": _lm_studio,
    "ollama": _ollama,
    "mlx": _mlx,
}


def _named(listed: Listed) -> tuple[ServedModel, ...]:
    return tuple(
        ServedModel(name=str(m["id"]), context_tokens=_count(m.get("max_model_len")))
        for m in listed
    )


def _object(service: Service, path: str) -> Mapping[str, Any]:
    found = service.answers(path)
    return found if isinstance(found, dict) else {}


def _list(service: Service, path: str, key: str) -> Sequence[Mapping[str, Any]]:
    found = _object(service, path).get(key)
    return [m for m in found if isinstance(m, dict)] if isinstance(found, list) else []


def _count(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
