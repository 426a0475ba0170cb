"""Engines with OpenAI's routes, and what differs between them as methods to be overridden."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, ClassVar

from qwharf.gateway.engine_errors import cannot
from qwharf.gateway.engines.reply import Reply
from qwharf.gateway.engines.streams import Changed
from qwharf.gateway.engines.text import CALL
from qwharf.gateway.engines.wire import Stream, Wire
from qwharf.gateway.errors import ApiError
from qwharf.gateway.fields import JsonObject
from qwharf.gateway.requests import ChatRequest, CompletionRequest, EmbeddingRequest, Generation
from qwharf.types import DeploymentSpec

CHAT_PATH = "/v1/chat/completions"
COMPLETION_PATH = "/v1/completions"
SEEDS = 2**31
"""All engines take seeds of 31 bits."""


class OpenAiRoute:
    """What they have in common. ``cannot`` names what an engine lacks or ignores, and why that is
    refused; the keys are OpenAI's fields, and a few features.
    """

    title: ClassVar[str]
    cannot: ClassVar[Mapping[str, str]] = {}
    tags: ClassVar[Collection[str]] = ()
    """What it may leave within the content, between its tags."""

    # -------------------------------------------------------------------------------- requests

    def chat(self, request: ChatRequest, spec: DeploymentSpec) -> Wire:
        """A conversation."""
        self.refuse(asked_of_chat(request))
        body = {
            "messages": list(request.messages),
            **self.sampling(request.generation, spec),
            **self.limit(request.generation, spec),
            **self.adapter(request.generation),
            **self.thinking(request),
            **self.tools(request),
        }
        if request.json_schema is not None:
            body["response_format"] = self.format(request.json_schema)
        if request.top_logprobs is not None:
            body |= {"logprobs": True, "top_logprobs": request.top_logprobs}
        if _continues(request):
            body |= self.prefill()
        g = request.generation
        return self.wire(CHAT_PATH, [body], g, self.reader(g.adapter or spec.name, request))

    def completion(self, request: CompletionRequest, spec: DeploymentSpec) -> Wire:
        """Plain texts."""
        g = request.generation
        self.refuse(asked_of(g) | ({"logprobs"} if request.top_logprobs is not None else set()))
        body = self.sampling(g, spec) | self.limit(g, spec) | self.adapter(g)
        if request.top_logprobs is not None:
            body["logprobs"] = request.top_logprobs
        bodies = [{"max_tokens": self.rest(p, spec), **body, "prompt": p} for p in request.prompts]
        return self.wire(COMPLETION_PATH, bodies, g, self.reader(g.adapter or spec.name))

    def embedding(self, request: EmbeddingRequest, spec: DeploymentSpec) -> Wire:
        """None: the models write text."""
        raise ApiError(501, f"`{spec.name}` makes no embeddings.", code="no_embeddings")

    def refuse(self, asked: set[str]) -> None:
        """Refuse what of ``asked`` the engine lacks.

        Raises:
            ApiError: 400.
        """
        for name, why in self.cannot.items():
            if name in asked:
                raise cannot(name, self.title, why)

    # ----------------------------------------------------------------------- parts of requests

    def sampling(self, g: Generation, spec: DeploymentSpec) -> JsonObject:
        """How to draw, under the names that most engines share."""
        penalties = g.repeat_penalty if g.repeat_penalty != 1.0 else None
        body: dict[str, Any] = {
            "temperature": g.temperature,
            "top_p": g.top_p,
            "presence_penalty": g.presence_penalty,
            "frequency_penalty": g.frequency_penalty,
            "seed": g.seed,
            "stop": list(g.stop) or None,
            "logit_bias": {str(t): bias for t, bias in g.logit_bias.items()} or None,
            "top_k": g.top_k,
            "min_p": g.min_p,
            "repetition_penalty": penalties,
            "ignore_eos": g.ignore_eos or None,
        }
        return {name: value for name, value in body.items() if value is not None}

    def limit(self, g: Generation, spec: DeploymentSpec) -> JsonObject:
        """The limit of output, for engines that refuse more than is left of the context.

        One that the client did not set is left to the engine, which knows what is left; so is one
        that no reply can reach.
        """
        if g.max_tokens is None or "max_tokens" not in g.asked:
            return {}
        return {"max_tokens": g.max_tokens} if g.max_tokens < spec.context_tokens else {}

    def rest(self, prompt: str | Sequence[int], spec: DeploymentSpec) -> int | None:
        """The limit of a plain completion that has none: left out it would be 16, null is none."""
        return None

    def adapter(self, g: Generation) -> JsonObject:
        """What brings the adapter in, beside its name in place of the model's."""
        return {}

    def thinking(self, request: ChatRequest) -> JsonObject:
        """The switch, as a variable of the template."""
        variables = dict(request.template_variables)
        if request.thinking is not None:
            variables["enable_thinking"] = request.thinking
        return {"chat_template_kwargs": variables} if variables else {}

    def tools(self, request: ChatRequest) -> JsonObject:
        """What may be called, and whether it must."""
        if not request.tools:
            return {}
        return {"tools": list(request.tools), "tool_choice": request.tool_choice}

    def format(self, schema: JsonObject) -> JsonObject:
        """What the content must be; an empty schema is any object."""
        if not schema:
            return {"type": "json_object"}
        wanted = {"name": "answer", "strict": True, "schema": schema}
        return {"type": "json_schema", "json_schema": wanted}

    def prefill(self) -> JsonObject:
        """What makes the engine go on with the last message instead of answering it."""
        return {"continue_final_message": True, "add_generation_prompt": False}

    # --------------------------------------------------------------------------------- replies

    def reader(self, name: str, request: ChatRequest | None = None) -> Callable[[], Stream]:
        """Makes what reads one reply of the model ``name``; of a plain completion without a chat
        request.
        """
        tags = self.tags if request is None or request.tools else set(self.tags) - {CALL}
        one_call = request is not None and not request.parallel_tool_calls
        return lambda: Changed(Reply(name, tags=tags, one_call=one_call).change)

    def wire(
        self,
        path: str,
        bodies: list[JsonObject],
        g: Generation,
        read: Callable[[], Stream],
    ) -> Wire:
        """``n`` bodies for each; with a seed, each has its own.

        The engine always streams: it then ends its work when the client goes.
        """
        usage = g.include_usage or not g.stream
        streaming = {"stream": True} | (
            {"stream_options": {"include_usage": True}} if usage else {}
        )
        return Wire(
            path=path,
            model=g.adapter,
            bodies=[
                (b if seed is None else b | {"seed": seed}) | streaming
                for b in bodies
                for seed in seeded(g)
            ],
            read=read,
            per_prompt=g.n,
            stream=g.stream,
            include_usage=g.include_usage,
        )


def seeded(g: Generation) -> list[int | None]:
    """The seed of each choice."""
    if g.seed is None:
        return [None] * g.n
    return [(g.seed + i) % SEEDS for i in range(g.n)]


def _continues(request: ChatRequest) -> bool:
    return bool(request.messages) and request.messages[-1]["role"] == "assistant"


def asked_of(g: Generation) -> set[str]:
    """OpenAI's fields that this needs."""
    made = set(g.asked)
    if g.logit_bias:
        made.add("logit_bias")
    if g.ignore_eos:
        made.add("ignore_eos")
    if not g.cache_prompt:
        made.add("cache_prompt")
    return made


def asked_of_chat(request: ChatRequest) -> set[str]:
    """OpenAI's fields, and features, that this request needs."""
    needs = {
        "response_format": request.json_schema is not None,
        "logprobs": request.top_logprobs is not None,
        "thinking_budget": request.thinking_budget_tokens is not None,
        "chat_template_kwargs": bool(request.template_variables),
        "tool_choice": bool(request.tools) and request.tool_choice == "required",
        "messages": _continues(request),
    }
    return asked_of(request.generation) | {name for name, wanted in needs.items() if wanted}
