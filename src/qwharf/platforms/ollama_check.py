"""What is refused before Ollama is asked: it would refuse it too, or do otherwise in silence."""

from __future__ import annotations

import os
import re

from qwharf.errors import Conflict, EngineError, FormatUnavailable, InvalidFile, UsageError
from qwharf.platforms import llama_check, ollama_process, wishes
from qwharf.platforms.base import Tell
from qwharf.types import DeploymentSpec

OLDEST = (0, 30)
"""Older ones do not use the chat template that a GGUF carries."""
KV_CACHE_TYPES = ("f16", "q8_0", "q4_0")


def is_too_old(version: str | None) -> bool:
    """Whether an Ollama of that version cannot be used; an unknown one, or a build of one's own
    (``0.0.0``), is believed to be new.
    """
    numbers = tuple(int(n) for n in re.findall(r"\d+", (version or "").split("-")[0]))
    return any(numbers) and numbers < OLDEST


def check_version(version: str | None) -> None:
    """Refuse a server that is too old.

    Raises:
        EngineError: it is.
    """
    if is_too_old(version):
        raise EngineError(
            "Ollama",
            found=f"version {version}, which does not use a GGUF's own chat template",
            expected=f"{OLDEST[0]}.{OLDEST[1]} or newer",
            hint="update Ollama",
        )


def check_parameters(spec: DeploymentSpec) -> None:
    """Numbers and wishes.

    Raises:
        UsageError: one makes no sense on Ollama.
    """
    llama_check.check_numbers(spec, "Ollama", KV_CACHE_TYPES)
    wishes.refuse_adapters(spec)


def check_file(spec: DeploymentSpec) -> None:
    """The weights.

    Raises:
        InvalidFile: they are damaged, not those planned with, or without a chat template.
        FormatUnavailable: they lie in several files.
        UsageError: they do not reach as far as the context that is asked for.
    """
    from qwharf.formats.gguf import read_gguf, split_parts

    llama_check.check_file(spec)
    parts = split_parts(spec.artifact_path)
    if len(parts) > 1:
        raise FormatUnavailable(
            spec.name,
            found=f"weights in {len(parts)} files",
            expected="one file, as Ollama takes no more",
            hint="`qwharf up` merges them; or use --platform llama.cpp",
        )
    metadata = read_gguf(spec.artifact_path).metadata
    if not isinstance(metadata.get("tokenizer.chat_template"), str):
        raise InvalidFile(
            str(spec.artifact_path),
            found="no chat template in the file",
            expected="tokenizer.chat_template, which Ollama renders conversations with",
            hint="convert the checkpoint again with `qwharf convert`",
        )
    limit = metadata.get(f"{metadata.get('general.architecture')}.context_length")
    if isinstance(limit, int) and spec.context_tokens > limit:
        raise UsageError(
            "context_tokens",
            found=f"{spec.context_tokens:,}",
            expected=f"at most {limit:,} with this file: Ollama would cut it to that in silence, "
            "and stretches positions (YaRN) only where the file itself says so",
            hint=f"choose --context {limit} or less, --platform llama.cpp, or weights converted "
            "from a checkpoint whose config.json asks for YaRN",
        )


def check_server(spec: DeploymentSpec, url: str, tell: Tell) -> None:
    """Settings that a running server has for all its models, as far as they can be seen.

    Raises:
        Conflict: its KV cache is not of the type asked for.
    """
    known = ollama_process.environment(ollama_process.listener(url))
    told = os.environ if known is None else known
    kv = (told.get("OLLAMA_KV_CACHE_TYPE") or "f16").strip("\"' ")
    if kv != spec.kv_cache_type:
        raise Conflict(
            "kv_cache_type",
            found=f"an Ollama that runs with {kv}, for all its models",
            expected=spec.kv_cache_type,
            hint=f"choose --kv-cache {kv}, or start Ollama again with "
            f"OLLAMA_KV_CACHE_TYPE={spec.kv_cache_type}",
        )
    parallel = told.get("OLLAMA_NUM_PARALLEL", "1").strip("\"' ")
    if spec.parallel > 1 and parallel != str(spec.parallel):
        tell(f"Ollama serves {parallel} at once, for all its models (OLLAMA_NUM_PARALLEL)")
