"""A server that answers a few paths, as some kind of engine does."""

import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answers = Mapping[str, Any]
"""By path: JSON, text, a status, or ``None``, which breaks the connection."""


@contextmanager
def serving(answers: Answers, *, key: str | None = None) -> Iterator[str]:
    """Its URL; ``answers`` may change meanwhile."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            found = answers.get(self.path, 404)
            if key is not None and self.headers.get("Authorization") != f"Bearer {key}":
                found = 401
            if found is None:
                return
            status = found if isinstance(found, int) else 200
            body = found if isinstance(found, str) else json.dumps(found)
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def listed(*names: str, **more: Any) -> dict[str, Any]:
    """OpenAI's list of models."""
    return {
        "object": "list",
        "data": [{"id": n, "object": "model", "created": 1} | more for n in names],
    }


SERVERS: dict[str, dict[str, Any]] = {
    "vllm": {
        "/version": {"version": "0.32.0+cpu"},
        "/v1/models": listed("qwen3", owned_by="vllm", max_model_len=4096),
    },
    "sglang": {
        # It answers as an Ollama too.
        "/": "Ollama is running",
        "/api/version": {"version": "0.5.23"},
        "/server_info": {"model_path": "/m", "tokenizer_path": "/m", "version": "0.5.23"},
        "/v1/models": listed("qwen3", owned_by="sglang", max_model_len=4096),
    },
    "llama.cpp": {
        "/health": {"status": "ok"},
        "/props": {"default_generation_settings": {"n_ctx": 4096}, "build_info": "b11549-abc"},
        "/v1/models": listed("qwen3", owned_by="llamacpp"),
    },
    "ollama": {
        "/": "Ollama is running",
        "/api/version": {"version": "0.33.0"},
        "/api/tags": {"models": [{"name": "qwen3", "model": "qwen3"}]},
        "/api/ps": {"models": [{"model": "qwen3", "context_length": 4096}]},
        "/v1/models": listed("qwen3", owned_by="library"),
    },
    "lmstudio": {
        "/lmstudio-greeting": {"lmstudio": True},
        "/api/v1/models": {
            "models": [
                {
                    "key": "qwen/qwen3-8b",
                    "loaded_instances": [{"id": "qwen3", "config": {"context_length": 4096}}],
                },
                {"key": "other", "loaded_instances": []},
            ]
        },
        "/v1/models": listed("qwen3", "other", owned_by="organization_owner"),
    },
    "mlx": {"/health": {"status": "ok"}, "/v1/models": listed("/models/qwen3")},
    "openai": {"/v1/models": listed("qwen3", owned_by="me", max_model_len=4096)},
}
