"""Somebody else's server: what it is found to be, and what becomes of it."""

import contextlib
import socket
from pathlib import Path
from typing import Any

import pytest
from endpoint_double import SERVERS, listed, serving
from engine_process import spec_of
from hypothesis import given
from hypothesis import strategies as st

from qwharf import platforms
from qwharf.errors import EngineError, QwharfError, UsageError
from qwharf.platforms import endpoint_kind
from qwharf.platforms.endpoint import EndpointPlatform
from qwharf.types import DeploymentSpec, Endpoint


def spec(url: str, model: str = "qwen3", kind: str = "openai", **key: str) -> DeploymentSpec:
    endpoint = Endpoint(url=url, model=model, kind=kind, **key)
    return spec_of(Path(), platform="endpoint", artifact_id="", endpoint=endpoint)


@pytest.mark.parametrize("kind", list(SERVERS))
def test_what_it_is(kind: str) -> None:
    with serving(SERVERS[kind]) as url:
        found = endpoint_kind.look(url, None)
        again = endpoint_kind.look(url, None, kind)
    assert found.kind == kind
    assert again == found, "asked for what it is known to be, it is that"
    name = "default_model" if kind == "mlx" else "qwen3"
    assert [m.name for m in found.models] == [name]
    assert found.models[0].context_tokens == (None if kind == "mlx" else 4096)


def test_versions_are_told() -> None:
    for kind, words in (
        ("vllm", "vllm 0.32.0+cpu"),
        ("sglang", "sglang 0.5.23"),
        ("ollama", "ollama 0.33.0"),
        ("llama.cpp", "llama.cpp b11549-abc"),
    ):
        with serving(SERVERS[kind]) as url:
            assert endpoint_kind.look(url, None).engine == words


def test_mlx_lm_without_a_cache_breaks_its_list_off() -> None:
    with serving({"/health": {"status": "ok"}, "/v1/models": None}) as url:
        found = endpoint_kind.look(url, None)
    assert (found.kind, found.models[0].name) == ("mlx", endpoint_kind.MLX_DEFAULT)


def test_nobody_is_there() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(EngineError) as e:
        endpoint_kind.look(f"http://127.0.0.1:{port}", None)
    assert "no answer" in e.value.found
    assert "running" in e.value.hint


@pytest.mark.parametrize(
    "answers",
    [{"/": "a web page"}, {"/v1/models": "<html>"}, {"/v1/models": {"data": 5}}, {}],
)
def test_another_kind_of_server(answers: dict[str, Any]) -> None:
    with serving(answers) as url, pytest.raises(EngineError) as e:
        endpoint_kind.look(url, None)
    assert "/v1/models" in e.value.found


def test_a_key_is_wanted_and_given() -> None:
    with serving(SERVERS["vllm"], key="secret") as url:
        with pytest.raises(EngineError) as e:
            endpoint_kind.look(url, None)
        assert "--api-key-env" in e.value.hint
        with pytest.raises(EngineError):
            endpoint_kind.look(url, "wrong")
        assert endpoint_kind.look(url, "secret").kind == "vllm"


def test_the_key_is_read_from_the_environment_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    platform = EndpointPlatform()
    with serving(SERVERS["vllm"], key="secret") as url:
        mine = spec(url, kind="vllm", api_key_variable="THEIR_KEY")
        monkeypatch.delenv("THEIR_KEY", raising=False)
        with pytest.raises(EngineError) as e:
            platform.status(mine)
        assert e.value.subject == "THEIR_KEY"
        monkeypatch.setenv("THEIR_KEY", "secret")
        served = platform.status(mine)
    assert served is not None
    assert served.engine == "vllm 0.32.0+cpu"


@pytest.mark.parametrize(
    ("text", "root"),
    [
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("127.0.0.1:8000", "http://127.0.0.1:8000"),
        ("localhost:11434/", "http://localhost:11434"),
        ("https://host/v1", "https://host"),
        ("https://host/v1/chat/completions", "https://host"),
        ("https://host/behind/a/proxy/v1/", "https://host/behind/a/proxy"),
        ("http://[::1]:8000/v1", "http://[::1]:8000"),
    ],
)
def test_urls_as_people_know_them(text: str, root: str) -> None:
    assert endpoint_kind.root(text) == root


@pytest.mark.parametrize(
    "text",
    [
        "",
        "ftp://host",
        "http://",
        "http://host:port",
        "http://host:99999",
        "http://host/?a=b",
        "/x",
    ],
)
def test_what_is_no_url(text: str) -> None:
    with pytest.raises(UsageError) as e:
        endpoint_kind.root(text)
    assert "http://127.0.0.1:8000" in e.value.expected


def test_a_password_in_the_url_is_not_repeated() -> None:
    with pytest.raises(UsageError) as e:
        endpoint_kind.root("http://me:secret@host:80/v1")
    assert "secret" not in str(e.value)


@given(st.text(max_size=40))
def test_no_text_makes_it_stumble(text: str) -> None:
    with contextlib.suppress(QwharfError):
        assert endpoint_kind.root(text).startswith(("http://", "https://"))


# ------------------------------------------------------------------------------ as a platform


def test_it_stands_in_the_table() -> None:
    platform = platforms.get("endpoint")
    assert not platforms.is_child(platform)
    assert platform.availability().installed
    with pytest.raises(UsageError) as e:
        platform.check(spec_of(Path(), platform="endpoint"))
    assert "qwharf add" in e.value.hint


def test_its_life() -> None:
    platform, told = EndpointPlatform(), []
    answers = dict(SERVERS["vllm"])
    with serving(answers) as url:
        mine = spec(url, kind="vllm")
        served = platform.deploy(mine, told.append)
        assert told == [f"asking {url}"]
        assert (served.url, served.model) == (url, "qwen3")
        assert served.applied.context_tokens == 4096
        assert platform.steps(mine)[0].where.startswith("GET ")
        assert url in platform.log(mine, 10)[0]
        answers["/v1/models"] = listed("another", owned_by="vllm")
        assert platform.status(mine) is None
        with pytest.raises(EngineError) as e:
            platform.deploy(mine, told.append)
        assert "another" in e.value.found
    platform.release(mine)
    with pytest.raises(EngineError):
        platform.status(mine)


def test_a_server_that_became_another_kind_is_told_by_its_models() -> None:
    with serving(SERVERS["openai"]) as url:
        served = EndpointPlatform().status(spec(url, kind="vllm"))
    assert served is not None
    assert served.engine == "an OpenAI-compatible server"
