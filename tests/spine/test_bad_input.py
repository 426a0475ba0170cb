"""What a user can get wrong: each a sentence with a next step, and nothing left behind."""

import json
import os
import shutil
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import qwharf

POCKET = Path(qwharf.__file__).parent / "catalog" / "pocket"


def copy(folder: Path) -> Path:
    shutil.copytree(POCKET, folder, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def no_config(folder: Path) -> Path:
    (copy(folder) / "config.json").unlink()
    return folder


def another_architecture(folder: Path) -> Path:
    path = copy(folder) / "config.json"
    config = json.loads(path.read_text("utf-8"))
    config |= {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
    path.write_text(json.dumps(config), "utf-8")
    return folder


def config_is_no_json(folder: Path) -> Path:
    (copy(folder) / "config.json").write_text("{", "utf-8")
    return folder


def truncated(folder: Path) -> Path:
    path = copy(folder) / "model.safetensors"
    os.truncate(path, path.stat().st_size // 2)
    return folder


def huge_header(folder: Path) -> Path:
    path = copy(folder) / "model.safetensors"
    path.write_bytes(struct.pack("<Q", 2**62) + path.read_bytes()[8:])
    return folder


def no_weights(folder: Path) -> Path:
    (copy(folder) / "model.safetensors").unlink()
    return folder


def no_tokenizer(folder: Path) -> Path:
    (copy(folder) / "tokenizer.json").unlink()
    return folder


def not_gguf(folder: Path) -> Path:
    path = folder.with_suffix(".gguf")
    path.write_bytes(b"PK\x03\x04" + bytes(100))
    return path


def gguf_cut_short(folder: Path) -> Path:
    path = folder.with_suffix(".gguf")
    path.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 310, 30))
    return path


def nothing_there(folder: Path) -> Path:
    return folder


@pytest.mark.parametrize(
    ("make", "code", "words"),
    [
        (no_config, 4, "config.json"),
        (another_architecture, 4, "LlamaForCausalLM"),
        (config_is_no_json, 4, "JSON"),
        (truncated, 4, "model.safetensors"),
        (huge_header, 4, "model.safetensors"),
        (no_weights, 4, "safetensors"),
        (no_tokenizer, 4, "tokenizer.json"),
        (not_gguf, 4, "GGUF"),
        (gguf_cut_short, 4, ".gguf"),
        (nothing_there, 3, "no such"),
    ],
)
def test_a_bad_model_is_told(
    make: Callable[[Path], Path], code: int, words: str, home: Any, tmp_path: Path
) -> None:
    path = make(tmp_path / "model")
    done = home.run("up", str(path), "--format", "gguf:q8_0")
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert str(path) in done.stderr
    assert home.run("ps").stdout.startswith("Nothing is deployed")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("up", "qwen3:9b"), 3, "qwen3:8b"),
        (("up", "pocket", "--format", "gguf:q9_0"), 2, "gguf:q8_0"),
        (("up", "pocket", "--format", "mlx:4bit"), 9, "qwharf engine install mlx"),
        (("up", "pocket", "--platform", "lamacpp"), 2, "llama.cpp"),
        (("up", "pocket", "--context", "99999999"), 2, "at most 4,096"),
        (("up", "pocket", "--context", "many"), 2, "integer"),
        (("up", "pocket", "--name", "../etc"), 2, "name"),
        (("chat", "nobody", "Hi"), 12, "nobody"),
        (("logs", "nobody"), 12, "nobody"),
        (("verify", "nobody"), 12, "nobody"),
        (("down", "nobody"), 12, "nobody"),
        (("verify", "http://127.0.0.1:9/v1"), 8, "127.0.0.1:9"),
        (("store", "rm", "00"), 3, "store ls"),
    ],
)
def test_a_bad_wish_is_told(words: tuple[str, ...], code: int, said: str, home: Any) -> None:
    done = home.run(*words)
    assert done.returncode == code, done.stderr + done.stdout
    assert said in done.stderr


def test_what_does_not_fit_says_what_would(home: Any) -> None:
    done = home.run("up", "qwen3:235b-a22b", "--format", "gguf:bf16", "--json")
    assert done.returncode == 6, done.stdout
    error = json.loads(done.stdout)["error"]
    assert error["code"] == "does_not_fit"
    assert error["hint"]


def test_a_taken_port_is_told(home: Any) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", home.port))
        other.listen()
        done = home.run("up", "pocket", "--format", "gguf:q8_0")
        assert done.returncode == 11, done.stderr
        assert str(home.port) in done.stderr
        assert "QWHARF_PORT" in done.stderr


def test_without_a_network_a_pull_is_told(home: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    done = home.run("pull", "qwen3:0.6b", "--format", "gguf:q8_0")
    assert done.returncode == 8, done.stderr
    assert "127.0.0.1:9" in done.stderr
