"""LoRA adapters from the command line to a client's answer, on the engine that is always here."""

import json
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from qwharf.catalog import pocket
from qwharf.formats.adapter import read_adapter
from qwharf.formats.checkpoint import read_checkpoint
from qwharf.formats.gguf_adapter import write_gguf_adapter
from qwharf.testing import TINY, write_synthetic_adapter

POCKET = read_checkpoint(pocket.FOLDER).architecture
UP = ("up", "pocket", "--platform", "llama.cpp", "--format", "gguf:q8_0")


@pytest.fixture
def law(tmp_path: Path) -> Path:
    return write_synthetic_adapter(POCKET, tmp_path / "law", alpha=64, seed=1)


@pytest.fixture
def tax(tmp_path: Path) -> Path:
    folder = write_synthetic_adapter(POCKET, tmp_path / "tax", alpha=64, seed=2)
    write_gguf_adapter(read_adapter(folder, POCKET), POCKET, tmp_path / "tax.gguf")
    return tmp_path / "tax.gguf"


def ask(url: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as answer:
        return json.loads(answer.read())


@pytest.mark.engines
def test_a_client_asks_for_them_by_name(home: Any, law: Path, tax: Path) -> None:
    words = (*UP, "--adapter", f"law={law}", "--adapter", f"tax={tax}")
    done = home.ok(*words, timeout=600)
    spec = done["deployment"]["spec"]
    assert list(spec["adapters"]) == ["law", "tax"]
    assert spec["adapters"]["tax"] == str(tax)
    url = done["deployment"]["base_url"]
    assert [m["id"] for m in ask(f"{url}/models")["data"]] == ["pocket", "law", "tax"]

    said = {}
    for name in ("pocket", "law", "tax", "pocket"):
        body = {
            "model": name,
            "messages": [{"role": "user", "content": "What is 2+2?"}],
            "chat_template_kwargs": {"enable_thinking": False},
            "temperature": 0,
            "max_tokens": 12,
        }
        answer = ask(f"{url}/chat/completions", body)
        assert answer["model"] == name
        text = answer["choices"][0]["message"]["content"]
        assert said.setdefault(name, text) == text, "the model itself is as it was"
    assert len(set(said.values())) == 3
    assert home.ok("chat", "law", "What is 2+2?", "--no-thinking", "--max-tokens", "5")

    (made,) = [a for a in home.ok("store", "ls") if a["model"] == "adapter law"]
    assert made["path"] == spec["adapters"]["law"]
    refused = home.run("store", "rm", made["id"])
    assert refused.returncode == 13, refused.stderr

    again = home.ok(*words, timeout=600)  # made once, and the same deployment
    assert again["deployment"]["pid"] == done["deployment"]["pid"]
    clash = home.run(*UP, "--name", "law")
    assert clash.returncode == 13, clash.stderr
    assert "`law` on `pocket`" in clash.stderr


@pytest.mark.parametrize(
    ("words", "code", "found"),
    [
        (("--adapter", "law"), 2, "NAME=PATH"),
        (("--adapter", "a/b=LAW"), 2, "a/b"),
        (("--adapter", "Pocket=LAW"), 2, "Pocket"),
        (("--adapter", "law=LAW", "--adapter", "law=LAW"), 2, "twice"),
        (("--adapter", "law=/nowhere"), 4, "adapter_config.json"),
        (("--adapter", "law=OTHER"), 4, "this model"),
        (("--adapter", "law=LAW", "--platform", "ollama"), 2, "change of adapter"),
        (("--adapter", "law=LAW", "--platform", "lmstudio"), 2, "no way to name"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_done(
    words: tuple[str, ...], code: int, found: str, home: Any, law: Path, tmp_path: Path
) -> None:
    other = write_synthetic_adapter(TINY, tmp_path / "other")
    given = [w.replace("LAW", str(law)).replace("OTHER", str(other)) for w in words]
    done = home.run("up", "pocket", "--dry-run", *given)
    assert done.returncode == code, done.stderr
    assert found in done.stderr
    assert not (home.folder / "data" / "store").exists()


def test_a_rehearsal_shows_the_command(home: Any, law: Path) -> None:
    done = home.run(*UP, "--dry-run", "--adapter", f"law={law}")
    assert done.returncode == 0, done.stderr
    assert "artifacts/ID/adapter.gguf" in done.stdout
    assert "--lora-init-without-apply" in done.stdout
