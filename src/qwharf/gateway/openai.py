"""OpenAI's dialect: a request's JSON to the one internal request.

Fields of OpenAI that change nothing here are accepted; fields that nobody knows are left out and
named in the answer's header ``x-qwharf-ignored``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from qwharf.gateway import openai_messages, thinking
from qwharf.gateway.errors import bad
from qwharf.gateway.fields import Fields, JsonObject, shown
from qwharf.gateway.openai_sampling import MAX_TOP_LOGPROBS, chat_logprobs, generation
from qwharf.gateway.openai_tools import tools
from qwharf.gateway.requests import ChatRequest, CompletionRequest, EmbeddingRequest
from qwharf.types import DeploymentSpec, Mode

WITHOUT_EFFECT = frozenset(
    {
        "model",
        "metadata",
        "prediction",
        "prompt_cache_key",
        "prompt_cache_retention",
        "safety_identifier",
        "service_tier",
        "store",
        "user",
        "verbosity",
    }
)
"""OpenAI's own, about accounts, caching and style."""
MAX_INPUTS = 2048
MAX_CHOICES = 128


def chat(fields: Fields, spec: DeploymentSpec) -> ChatRequest:
    """A chat request for the deployment ``spec``.

    Raises:
        ApiError: 400.
    """
    conversation = openai_messages.messages(fields.get("messages"))
    said = thinking.switch(fields)
    enabled = thinking.resolve(said, spec)
    mode = thinking.mode_of(spec, enabled, openai_messages.soft_switch(conversation))
    _only_text(fields)
    offered = tools(fields)
    parallel = fields.boolean("parallel_tool_calls")
    schema = _schema(fields)
    if schema is not None and offered.offered:
        # Seen: llama.cpp enforces the format from the first word, and no tool is ever called.
        raise bad(
            "response_format",
            "`tools` and a JSON `response_format` cannot be used in one request: the format would "
            'keep the model from calling a tool. Leave one out, or send `tool_choice: "none"`.',
            "unsupported_combination",
        )
    request = ChatRequest(
        messages=conversation,
        generation=generation(fields, spec, mode),
        thinking=enabled,
        template_variables=said.variables,
        thinking_budget_tokens=thinking.budget(fields),
        tools=offered.offered,
        tool_choice=offered.choice,
        parallel_tool_calls=parallel is not False,
        json_schema=schema,
        top_logprobs=chat_logprobs(fields),
    )
    fields.skip(WITHOUT_EFFECT)
    return request


def _only_text(fields: Fields) -> None:
    for kind in fields.list("modalities") or []:
        if kind != "text":
            raise bad("modalities", f"`modalities` asks for {shown(kind)}; Qwen3 writes text only.")
    for name in ("audio", "web_search_options"):
        if fields.get(name) is not None:
            raise bad(name, f"`{name}` is not available here.", "unsupported_parameter")


def _schema(fields: Fields) -> JsonObject | None:
    found = fields.object("response_format")
    if found is None:
        return None
    form = Fields(found, "response_format")
    kind = form.choice("type", ("text", "json_object", "json_schema"))
    if kind is None:
        raise bad("response_format.type", "`response_format.type` is missing.")
    if kind == "text":
        return None
    if kind == "json_object":
        return form.object("schema") or {}  # llama.cpp's way to give one
    wrapper = form.object("json_schema")
    schema = Fields(wrapper or {}, "response_format.json_schema").object("schema")
    if schema is None:
        raise bad(
            "response_format.json_schema.schema",
            "`response_format.json_schema.schema` is missing; expected a JSON schema.",
            "missing_required_parameter",
        )
    return schema


def completion(fields: Fields, spec: DeploymentSpec) -> CompletionRequest:
    """A plain completion: the text goes to the model as it is, without template or thinking switch.

    Raises:
        ApiError: 400.
    """
    for name in ("suffix", "echo"):
        if fields.get(name):
            raise bad(name, f"`{name}` is not available here.", "unsupported_parameter")
    fields.integer("best_of", 1, 1)
    mode: Mode = "thinking" if spec.thinking == "thinking" else "non-thinking"
    request = CompletionRequest(
        prompts=_prompts(_inputs(fields, "prompt", spec)),
        generation=generation(fields, spec, mode),
        top_logprobs=fields.integer("logprobs", 0, MAX_TOP_LOGPROBS),
    )
    if len(request.prompts) * request.generation.n > MAX_CHOICES:
        raise bad("prompt", f"At most {MAX_CHOICES} prompts times `n` are taken at once.")
    fields.skip(WITHOUT_EFFECT)
    return request


def _prompts(found: str | Sequence[Any]) -> Sequence[str | Sequence[int]]:
    return [found] if isinstance(found, str) or isinstance(found[0], int) else found


def embedding(fields: Fields, spec: DeploymentSpec) -> EmbeddingRequest:
    """Texts to embed.

    Raises:
        ApiError: 400.
    """
    if fields.get("dimensions") is not None:
        raise bad("dimensions", "`dimensions` is not available here.", "unsupported_parameter")
    form: Literal["float", "base64"] = (
        "base64" if fields.choice("encoding_format", ("float", "base64")) == "base64" else "float"
    )
    request = EmbeddingRequest(input=_inputs(fields, "input", spec), encoding_format=form)
    fields.skip(WITHOUT_EFFECT)
    return request


def _inputs(fields: Fields, name: str, spec: DeploymentSpec) -> str | Sequence[Any]:
    """A text, tokens, or a list of one of them."""
    found = fields.get(name)
    if found is None:
        raise bad(name, f"`{name}` is missing.", "missing_required_parameter")
    if isinstance(found, str) and found:
        return found
    if isinstance(found, list) and found:
        if _tokens(found, spec):
            return found
        if len(found) <= MAX_INPUTS and all(
            (isinstance(x, str) and x) or (isinstance(x, list) and x and _tokens(x, spec))
            for x in found
        ):
            return found
    raise bad(
        name,
        f"`{name}` is {'empty' if found in ('', []) else shown(found)}; expected text, a list of "
        f"at most {MAX_INPUTS:,} texts, or token ids below {spec.architecture.vocab_size}.",
    )


def _tokens(values: Sequence[Any], spec: DeploymentSpec) -> bool:
    top = spec.architecture.vocab_size
    return all(type(v) is int and 0 <= v < top for v in values)
