"""How a reply is drawn: OpenAI's fields, those of other engines, and Qwen3's own defaults."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from qwharf.gateway.errors import bad
from qwharf.gateway.fields import Fields, shown
from qwharf.gateway.requests import Generation
from qwharf.types import DeploymentSpec, Mode, Sampling

MAX_STOPS = 16
MAX_STOP_CHARACTERS = 1_000
MAX_TOP_LOGPROBS = 20
"""OpenAI's limit; llama.cpp takes any number, and minutes for large ones."""
MAX_TOKENS = 2**31 - 1
MAX_N = 16


def generation(fields: Fields, spec: DeploymentSpec, mode: Mode) -> Generation:
    """Sampling, limits and form of the reply; what the client leaves out is the preset of ``mode``.

    Raises:
        ApiError: 400.
    """
    preset = preset_of(spec, mode)
    stream = fields.boolean("stream") or False
    options = Fields(fields.object("stream_options") or {}, "stream_options")
    temperature = fields.number("temperature", 0, 2)
    top_k = fields.integer("top_k", -1, MAX_TOKENS)
    # Who asks for greedy decoding wants the likeliest token, not one that is new to the text.
    penalty = 0.0 if temperature == 0 else preset and preset.presence_penalty
    model = fields.get("model")
    return Generation(
        asked=_asked(fields),
        adapter=model if isinstance(model, str) and model in spec.adapters else None,
        temperature=_or(temperature, preset and preset.temperature),
        top_p=_or(fields.number("top_p", 0, 1), preset and preset.top_p),
        top_k=_or(None if top_k is None else max(0, top_k), preset and preset.top_k),
        min_p=_or(fields.number("min_p", 0, 1), preset and preset.min_p),
        presence_penalty=_or(fields.number("presence_penalty", -2, 2), penalty),
        frequency_penalty=_or(fields.number("frequency_penalty", -2, 2), 0.0),
        repeat_penalty=_repeat_penalty(fields),
        max_tokens=_limit(fields, preset),
        stop=_stop(fields),
        seed=fields.integer("seed", -(2**63), 2**63 - 1),
        n=fields.integer("n", 1, MAX_N) or 1,
        logit_bias=_logit_bias(fields, spec),
        ignore_eos=fields.boolean("ignore_eos") or False,
        cache_prompt=fields.boolean("cache_prompt") is not False,
        stream=stream,
        include_usage=stream and bool(options.boolean("include_usage")),
    )


_NAMES = {
    "max_completion_tokens": "max_tokens",
    "repeat_penalty": "repetition_penalty",
    **{n: n for n in ("max_tokens", "repetition_penalty", "top_k", "min_p")},
}
"""Fields whose asking matters to some engine, to the name that stands for both of a pair."""


def _asked(fields: Fields) -> frozenset[str]:
    return frozenset(made for name, made in _NAMES.items() if fields.get(name) is not None)


def preset_of(spec: DeploymentSpec, mode: Mode) -> Sampling | None:
    """The model's recommended sampling for ``mode``."""
    return spec.sampling.get(mode)


def _or(value: Any, default: Any) -> Any:
    return default if value is None else value


def _repeat_penalty(fields: Fields) -> float:
    # llama.cpp's and Ollama's name, then vLLM's and SGLang's.
    values = [fields.number(n, 0.01, 10) for n in ("repeat_penalty", "repetition_penalty")]
    return next((v for v in values if v is not None), 1.0)


def _limit(fields: Fields, preset: Sampling | None) -> int | None:
    newer = fields.integer("max_completion_tokens", 1, MAX_TOKENS)
    older = fields.integer("max_tokens", 1, MAX_TOKENS)
    if newer is not None:
        return newer
    if older is not None:
        return older
    return preset.max_output_tokens if preset else None


def _stop(fields: Fields) -> Sequence[str]:
    found = fields.get("stop")
    if found is None:
        return ()
    stops = [found] if isinstance(found, str) else found
    if not isinstance(stops, list) or not all(isinstance(s, str) and s for s in stops):
        raise bad("stop", f"`stop` is {shown(found)}; expected text or a list of texts, not empty.")
    if len(stops) > MAX_STOPS or any(len(s) > MAX_STOP_CHARACTERS for s in stops):
        raise bad(
            "stop",
            f"`stop` takes at most {MAX_STOPS} texts of {MAX_STOP_CHARACTERS:,} characters each.",
        )
    return stops


def _logit_bias(fields: Fields, spec: DeploymentSpec) -> dict[int, float]:
    found = fields.object("logit_bias") or {}
    inner = Fields(found, "logit_bias")
    made: dict[int, float] = {}
    for key in found:
        token = int(key) if key.isascii() and key.isdigit() and len(key) < 10 else -1
        if not 0 <= token < spec.architecture.vocab_size:
            raise bad(
                "logit_bias",
                f"`logit_bias` has the key {shown(key)}; expected token ids "
                f"from 0 to {spec.architecture.vocab_size - 1}.",
            )
        made[token] = inner.number(key, -100, 100) or 0.0
    return made


def chat_logprobs(fields: Fields) -> int | None:
    """``logprobs`` and ``top_logprobs`` of a chat request: how many, ``None`` for none.

    Raises:
        ApiError: 400.
    """
    wanted = fields.boolean("logprobs")
    top = fields.integer("top_logprobs", 0, MAX_TOP_LOGPROBS)
    if wanted:
        return top or 0
    if top:
        raise bad("top_logprobs", "`top_logprobs` needs `logprobs` to be true.")
    return None
