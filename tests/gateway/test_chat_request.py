"""What becomes of a chat request: every form that clients use, and every clear no."""

from typing import Any

import pytest
from gateway_client import HI, Gateway
from gateway_doubles import WHOLE, Engine, Owner, answer, spec_of, stream

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
OTHER = {"type": "function", "function": {"name": "g"}}


@pytest.fixture
def owner(engine: Engine) -> Owner:
    return Owner(
        engine,
        spec_of("pocket"),
        spec_of("plain", "instruct", model="qwen3:plain"),
        spec_of("deep", "thinking", model="qwen3:deep"),
        spec_of("bare", sampling={}, model="qwen3:plain"),
    )


# ------------------------------------------------------------------------------------ sampling


def preset(body: dict[str, Any]) -> tuple[Any, ...]:
    names = ("temperature", "top_p", "top_k", "min_p", "presence_penalty", "repeat_penalty")
    return tuple(body.get(n) for n in names)


THINKING = (0.6, 0.95, 20, 0.0, 0.0, 1.0)
PLAIN = (0.7, 0.8, 20, 0.0, 1.5, 1.0)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, THINKING),
        ({"chat_template_kwargs": {"enable_thinking": True}}, THINKING),
        ({"chat_template_kwargs": {"enable_thinking": False}}, PLAIN),
        ({"reasoning_effort": "none"}, PLAIN),
        ({"reasoning_effort": "high"}, THINKING),
        ({"model": "plain"}, PLAIN),
        ({"model": "deep"}, THINKING),
        ({"model": "bare"}, (None, None, None, None, None, 1.0)),
    ],
)
async def test_what_is_not_said_is_the_modes_preset(
    gateway: Gateway, fields: dict[str, Any], wanted: tuple[Any, ...]
) -> None:
    assert preset(await gateway.sent(**fields)) == wanted


@pytest.mark.parametrize(
    ("texts", "wanted"),
    [
        (["What? /no_think"], PLAIN),
        (["/no_think What?"], PLAIN),
        (["/no_think", "and? /think"], THINKING),
        (["/think", "and? /no_think"], PLAIN),
        (["/think /no_think"], PLAIN),
        (["see /no_think/readme.md or a/no_think"], THINKING),
        (["/no_thinking", "x/think"], THINKING),
    ],
)
async def test_soft_switches_choose_the_preset(
    gateway: Gateway, texts: list[str], wanted: tuple[Any, ...]
) -> None:
    turns = [{"role": "user", "content": t} for t in texts]
    body = await gateway.sent(messages=turns)
    assert preset(body) == wanted
    assert body["chat_template_kwargs"] == {"enable_thinking": True}
    assert [m["content"] for m in body["messages"]] == texts


async def test_soft_switches_of_the_system_count_and_the_assistants_do_not(
    gateway: Gateway,
) -> None:
    system = {"role": "system", "content": "Be brief. /no_think"}
    said = {"role": "assistant", "content": "use /think"}
    assert preset(await gateway.sent(messages=[system, *HI, said, *HI])) == PLAIN
    off = {"enable_thinking": False}
    turns = [{"role": "user", "content": "/think"}]
    assert preset(await gateway.sent(messages=turns, chat_template_kwargs=off)) == PLAIN


async def test_what_is_said_wins_and_null_says_nothing(gateway: Gateway) -> None:
    said = {
        "temperature": 0,
        "top_p": 1,
        "top_k": -1,
        "min_p": 0.5,
        "presence_penalty": -2,
        "repetition_penalty": 1.1,
    }
    assert preset(await gateway.sent(**said)) == (0, 1, 0, 0.5, -2, 1.1)
    assert preset(await gateway.sent(**dict.fromkeys(said))) == THINKING


async def test_greedy_decoding_is_not_bent_by_a_penalty_that_nobody_asked_for(
    gateway: Gateway,
) -> None:
    body = await gateway.sent(model="plain", temperature=0)
    assert (body["temperature"], body["presence_penalty"]) == (0, 0.0)
    body = await gateway.sent(model="plain", temperature=0, presence_penalty=1)
    assert body["presence_penalty"] == 1


@pytest.mark.parametrize(
    ("fields", "limit"),
    [
        ({}, 32768),
        ({"model": "plain"}, None),
        ({"max_tokens": 5}, 5),
        ({"max_completion_tokens": 6}, 6),
        ({"max_tokens": 5, "max_completion_tokens": 6}, 6),
        ({"max_tokens": 5.0}, 5),
    ],
)
async def test_the_limit_goes_by_both_names(
    gateway: Gateway, fields: dict[str, Any], limit: int | None
) -> None:
    body = await gateway.sent(**fields)
    assert body.get("max_tokens") == limit
    assert "max_completion_tokens" not in body


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("temperature", "0.5"),
        ("temperature", 2.5),
        ("temperature", -1),
        ("temperature", True),
        ("temperature", [1]),
        ("top_p", 1.5),
        ("top_k", 1.5),
        ("top_k", -2),
        ("min_p", -0.1),
        ("presence_penalty", 3),
        ("frequency_penalty", -3),
        ("repeat_penalty", 0),
        ("max_tokens", 0),
        ("max_tokens", -1),
        ("max_completion_tokens", "10"),
        ("max_tokens", 10**30),
        ("seed", "x"),
        ("seed", 2**70),
        ("n", 0),
        ("n", 1000),
        ("stop", [1]),
        ("stop", ""),
        ("stop", ["a"] * 17),
        ("stop", "x" * 1001),
        ("stop", {"a": 1}),
        ("stream", "yes"),
        ("logprobs", 5),
        ("top_logprobs", 3),
        ("logit_bias", [[1, 2]]),
        ("logit_bias", {"1000": 1}),
        ("logit_bias", {"-1": 1}),
        ("logit_bias", {"hello": 1}),
        ("parallel_tool_calls", "no"),
        ("reasoning_effort", "a lot"),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "x"}),
        ("functions", [{}]),
        ("tools", {}),
        ("response_format", "json"),
        ("thinking_budget", -1),
    ],
)
async def test_values_out_of_bounds_are_refused_by_name(
    gateway: Gateway, field: str, value: Any
) -> None:
    message = await gateway.refused(field, **{field: value})
    assert f"`{field}" in message


async def test_numbers_that_are_none_are_refused(gateway: Gateway) -> None:
    message = await gateway.refused("logit_bias.5", logit_bias={"5": 1000})
    assert "-100 to 100" in message
    assert "stream_options" in await gateway.refused(
        "stream_options.include_usage", stream=True, stream_options={"include_usage": 1}
    )
    assert "20" in await gateway.refused("top_logprobs", logprobs=True, top_logprobs=200_000)


@pytest.mark.parametrize(
    ("fields", "wanted"),
    [
        ({}, (None, None)),
        ({"logprobs": False, "top_logprobs": 0}, (None, None)),
        ({"logprobs": True}, (True, 1)),
        ({"logprobs": True, "top_logprobs": 20}, (True, 20)),
    ],
)
async def test_log_probabilities_are_bounded(
    gateway: Gateway, fields: dict[str, Any], wanted: tuple[Any, ...]
) -> None:
    body = await gateway.sent(**fields)
    assert (body.get("logprobs"), body.get("top_logprobs")) == wanted


@pytest.mark.parametrize(
    ("given", "sent"), [(7, 7), (0, 0), (-1, 2**32 - 2), (2**32 - 1, 0), (2**63 - 1, None)]
)
async def test_no_seed_becomes_the_engines_word_for_random(
    gateway: Gateway, given: int, sent: int | None
) -> None:
    seed = (await gateway.sent(seed=given))["seed"]
    assert 0 <= seed < 2**32 - 1
    assert sent is None or seed == sent


async def test_small_fields_reach_the_engine(gateway: Gateway) -> None:
    body = await gateway.sent(
        stop="END",
        logit_bias={"5": -100},
        frequency_penalty=0.5,
        thinking_budget=40,
        ignore_eos=True,
        cache_prompt=False,
    )
    assert (body["ignore_eos"], body["cache_prompt"]) == (True, False)
    assert body["stop"] == ["END"]
    assert body["logit_bias"] == [[5, -100]]
    assert body["frequency_penalty"] == 0.5
    assert body["thinking_budget_tokens"] == 40


# ------------------------------------------------------------------------------------ thinking


@pytest.mark.parametrize(
    ("fields", "enabled"),
    [
        ({}, True),
        ({"chat_template_kwargs": {}}, True),
        ({"chat_template_kwargs": {"enable_thinking": None}}, True),
        ({"enable_thinking": False}, False),
        ({"reasoning_effort": "none"}, False),
        ({"reasoning_effort": "minimal"}, True),
        ({"reasoning": {"effort": "none"}}, False),
        ({"reasoning": {"enabled": False}}, False),
        ({"reasoning_effort": "high", "chat_template_kwargs": {"enable_thinking": False}}, False),
        ({"reasoning_effort": "none", "enable_thinking": True}, True),
    ],
)
async def test_every_switch_reaches_the_template(
    gateway: Gateway, fields: dict[str, Any], enabled: bool
) -> None:
    body = await gateway.sent(**fields)
    assert body["chat_template_kwargs"] == {"enable_thinking": enabled}
    assert "reasoning_effort" not in body


@pytest.mark.parametrize("value", ["false", "true", 0, 1, "", []])
async def test_the_switch_is_a_boolean_and_nothing_else(gateway: Gateway, value: Any) -> None:
    param = "chat_template_kwargs.enable_thinking"
    message = await gateway.refused(param, chat_template_kwargs={"enable_thinking": value})
    assert "true or false" in message


OFF = [{"chat_template_kwargs": {"enable_thinking": False}}, {"reasoning_effort": "none"}]


@pytest.mark.parametrize("off", OFF)
async def test_a_model_that_always_thinks_says_so(gateway: Gateway, off: dict[str, Any]) -> None:
    reply = await gateway.chat(model="deep", **off)
    assert reply.status == 400
    assert "always thinks" in reply.message
    assert reply.error["code"] == "thinking_not_switchable"


async def test_a_model_that_never_thinks_says_so_when_it_is_meant(gateway: Gateway) -> None:
    reply = await gateway.chat(model="plain", chat_template_kwargs={"enable_thinking": True})
    assert reply.status == 400
    assert "never thinks" in reply.message
    for harmless in ({"reasoning_effort": "high"}, *OFF):
        assert "chat_template_kwargs" not in await gateway.sent(model="plain", **harmless)


async def test_other_template_variables_pass_and_the_servers_own_do_not(gateway: Gateway) -> None:
    body = await gateway.sent(chat_template_kwargs={"style": "short"})
    assert body["chat_template_kwargs"] == {"style": "short", "enable_thinking": True}
    await gateway.refused("chat_template_kwargs.messages", chat_template_kwargs={"messages": []})


# ------------------------------------------------------------------------------------ messages


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("Hi", "Hi"),
        (None, ""),
        ([], ""),
        ([{"type": "text", "text": "a"}], "a"),
        ([{"type": "text", "text": "a"}, {"type": "input_text", "text": "b"}, "c"], "a\nb\nc"),
    ],
)
async def test_contents_become_text(gateway: Gateway, content: Any, text: str) -> None:
    body = await gateway.sent(messages=[{"role": "user", "content": content}])
    assert body["messages"] == [{"role": "user", "content": text}]


async def test_roles_names_and_reasoning_are_brought_into_one_form(gateway: Gateway) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    bare = {"function": {"name": "f", "arguments": {"ü": 1}}}
    none = {"type": "function", "function": {"name": "f", "arguments": ""}}
    body = await gateway.sent(
        messages=[
            {"role": "developer", "content": "Be brief."},
            {"role": "user", "content": "Hi", "name": "ann", "cache_control": {}},
            {"role": "assistant", "thinking": "hm", "tool_calls": [call, bare, none]},
            {"role": "tool", "content": "5", "tool_call_id": "c1", "name": "f"},
            {"role": "assistant", "content": "Five", "reasoning": "so", "refusal": None},
            {"role": "assistant", "content": "!", "reasoning_content": "x", "reasoning": "y"},
            {"role": "assistant", "content": "", "tool_calls": []},
        ],
    )
    plain = {"type": "function", "function": {"name": "f", "arguments": "{}"}}
    object_ = {"type": "function", "function": {"name": "f", "arguments": '{"ü": 1}'}}
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {
            "role": "assistant",
            "content": "",
            "reasoning_content": "hm",
            "tool_calls": [call, object_, plain],
        },
        {"role": "tool", "content": "5", "tool_call_id": "c1"},
        {"role": "assistant", "content": "Five", "reasoning_content": "so"},
        {"role": "assistant", "content": "!", "reasoning_content": "x"},
        {"role": "assistant", "content": ""},
    ]


def calls(function: Any) -> list[dict[str, Any]]:
    return [{"role": "assistant", "content": None, "tool_calls": [{"function": function}]}, *HI]


@pytest.mark.parametrize(
    ("messages", "param"),
    [
        (None, "messages"),
        ([], "messages"),
        ("Hi", "messages"),
        ({"role": "user"}, "messages"),
        (["Hi"], "messages[0]"),
        ([{"content": "Hi"}], "messages[0].role"),
        ([{"role": "root", "content": "Hi"}], "messages[0].role"),
        ([{"role": "function", "content": "Hi"}], "messages[0].role"),
        ([{"role": ["user"], "content": "Hi"}], "messages[0].role"),
        ([{"role": "user"}], "messages[0].content"),
        ([{"role": "user", "content": 5}], "messages[0].content"),
        ([{"role": "user", "content": {"text": "a"}}], "messages[0].content"),
        ([{"role": "user", "content": [5]}], "messages[0].content[0]"),
        ([*HI, {"role": "user", "content": [{"type": "text"}]}], "messages[1].content[0].text"),
        (
            [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}],
            "messages[0].content[0]",
        ),
        ([{"role": "assistant", "reasoning": 5}], "messages[0].reasoning"),
        ([{"role": "assistant", "function_call": {}}], "messages[0].function_call"),
        ([{"role": "assistant", "tool_calls": {}}], "messages[0].tool_calls"),
        ([{"role": "assistant", "tool_calls": ["f"]}], "messages[0].tool_calls[0]"),
        (calls({"arguments": "{}"}), "messages[0].tool_calls[0].function.name"),
        (calls({"name": "f", "arguments": "{"}), "messages[0].tool_calls[0].function.arguments"),
        (calls({"name": "f", "arguments": "[1]"}), "messages[0].tool_calls[0].function.arguments"),
        (calls({"name": "f", "arguments": "NaN"}), "messages[0].tool_calls[0].function.arguments"),
        (calls({"name": "f", "arguments": [1]}), "messages[0].tool_calls[0].function.arguments"),
        (
            calls({"name": "f", "arguments": '{"a":' * 100 + "1" + "}" * 100}),
            "messages[0].tool_calls[0].function.arguments",
        ),
    ],
)
async def test_what_is_wrong_with_messages_is_named(
    gateway: Gateway, messages: Any, param: str
) -> None:
    assert "`messages" in await gateway.refused(param, messages=messages)


async def test_images_are_refused_in_plain_words(gateway: Gateway) -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    turns = [{"role": "user", "content": [part]}]
    message = await gateway.refused("messages[0].content[0]", messages=turns)
    assert "reads text only" in message and "AAAA" not in message


# --------------------------------------------------------------------------------------- tools


async def test_tools_reach_the_engine_as_they_are(gateway: Gateway) -> None:
    body = await gateway.sent(tools=[TOOL, OTHER])
    assert body["tools"] == [TOOL, OTHER]
    assert body["tool_choice"] == "auto"
    assert body["parallel_tool_calls"] is True
    body = await gateway.sent(tools=[TOOL], parallel_tool_calls=False)
    assert body["parallel_tool_calls"] is False


@pytest.mark.parametrize(
    ("fields", "offered", "choice"),
    [
        ({"tools": []}, None, None),
        ({"tools": None}, None, None),
        ({"tools": [TOOL], "tool_choice": "none"}, None, None),
        ({"tool_choice": "none"}, None, None),
        ({"tool_choice": "auto"}, None, None),
        ({"tools": [TOOL, OTHER], "tool_choice": "required"}, [TOOL, OTHER], "required"),
        (
            {
                "tools": [TOOL, OTHER],
                "tool_choice": {"type": "function", "function": {"name": "g"}},
            },
            [OTHER],
            "required",
        ),
    ],
)
async def test_the_choice_of_tools(
    gateway: Gateway, fields: dict[str, Any], offered: Any, choice: str | None
) -> None:
    body = await gateway.sent(**fields)
    assert body.get("tools") == offered
    assert body.get("tool_choice") == choice


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": ["f"]}, "tools[0]"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]"),
        ({"tools": [{**TOOL, "type": "custom"}]}, "tools[0]"),
        ({"tools": [{"function": {"name": ""}}]}, "tools[0].function.name"),
        ({"tools": [{"function": {"name": "x" * 200}}]}, "tools[0].function.name"),
        (
            {"tools": [{"function": {"name": "f", "description": 5}}]},
            "tools[0].function.description",
        ),
        (
            {"tools": [{"function": {"name": "f", "parameters": "{}"}}]},
            "tools[0].function.parameters",
        ),
        ({"tools": [TOOL, TOOL]}, "tools[1].function.name"),
        ({"tools": [TOOL] * 200}, "tools"),
        ({"tools": [TOOL], "tool_choice": "g"}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": {"function": {"name": "g"}}}, "tool_choice"),
        ({"tools": [TOOL], "tool_choice": 5}, "tool_choice"),
        ({"tool_choice": "required"}, "tool_choice"),
    ],
)
async def test_what_is_wrong_with_tools_is_named(
    gateway: Gateway, fields: dict[str, Any], param: str
) -> None:
    await gateway.refused(param, **fields)


# ---------------------------------------------------------------------------- response formats


@pytest.mark.parametrize(
    ("form", "schema"),
    [
        ({"type": "text"}, None),
        ({"type": "json_object"}, {}),
        ({"type": "json_object", "schema": {"type": "object"}}, {"type": "object"}),
        (
            {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "string"}}},
            {"type": "string"},
        ),
    ],
)
async def test_response_formats(gateway: Gateway, form: Any, schema: Any) -> None:
    body = await gateway.sent(response_format=form)
    wanted = (
        schema if schema is None else {"type": "json_schema", "json_schema": {"schema": schema}}
    )
    assert body.get("response_format") == wanted


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({}, "response_format.type"),
        ({"type": "yaml"}, "response_format.type"),
        ({"type": "json_schema"}, "response_format.json_schema.schema"),
        ({"type": "json_schema", "json_schema": []}, "response_format.json_schema"),
        (
            {"type": "json_schema", "json_schema": {"schema": "x"}},
            "response_format.json_schema.schema",
        ),
    ],
)
async def test_wrong_response_formats(gateway: Gateway, form: Any, param: str) -> None:
    await gateway.refused(param, response_format=form)


async def test_tools_and_a_format_exclude_each_other(gateway: Gateway) -> None:
    form = {"type": "json_object"}
    message = await gateway.refused("response_format", tools=[TOOL], response_format=form)
    assert "tool_choice" in message
    body = await gateway.sent(tools=[TOOL], response_format=form, tool_choice="none")
    assert "tools" not in body
    assert "tools" in await gateway.sent(tools=[TOOL], response_format={"type": "text"})


# ---------------------------------------------------------------------------------- the others


async def test_fields_without_effect_pass_and_unknown_ones_are_told(gateway: Gateway) -> None:
    reply = await gateway.chat(user="me", store=True, metadata={"a": "b"}, service_tier="auto")
    assert "x-qwharf-ignored" not in reply.headers
    assert set(gateway.engine.body) <= {
        *(
            "stream",
            "stream_options",
            "model",
            "messages",
            "temperature",
            "top_p",
            "top_k",
            "min_p",
            "max_tokens",
        ),
        *("presence_penalty", "frequency_penalty", "repeat_penalty", "chat_template_kwargs"),
    }
    reply = await gateway.chat(mirostat=2, id_slot=1, **{"a\r\nb": 1, "gone": None})
    assert reply.status == 200
    assert reply.headers["x-qwharf-ignored"] == "mirostat, id_slot, ?"
    assert "mirostat" not in gateway.engine.body
    gateway.engine.steps = stream("a")
    reply = await gateway.chat(grammar="root ::= .", stream=True)
    assert reply.headers["x-qwharf-ignored"] == "grammar"


async def test_plain_completions(gateway: Gateway) -> None:
    reply = await gateway.post(
        "/v1/completions", {"model": "pocket", "prompt": "Once", "logprobs": 2, "max_tokens": 4}
    )
    assert reply.status == 200
    assert gateway.engine.heard[0].path == "/v1/completions"
    body = gateway.engine.body
    assert (body["prompt"], body["n_probs"], body["max_tokens"]) == ("Once", 2, 4)
    assert preset(body) == PLAIN
    for prompt, each in (
        ([1, 2], [[1, 2]]),
        (["a", "b"], ["a", "b"]),
        ([[1], [2, 3]], [[1], [2, 3]]),
    ):
        gateway.engine.heard.clear()
        await gateway.post("/v1/completions", {"model": "pocket", "prompt": prompt, "n": 2})
        assert [h.body["prompt"] for h in gateway.engine.heard] == [p for p in each for _ in "ab"]


async def test_log_probabilities_and_tools_are_the_one_thing_not_streamed(gateway: Gateway) -> None:
    """The engine cannot."""
    gateway.engine.steps = [answer(WHOLE)]
    reply = await gateway.chat(tools=[TOOL], logprobs=True)
    assert reply.json == WHOLE
    assert "stream" not in gateway.engine.body
    for nonsense in (b"garbage", b"[]"):
        gateway.engine.steps = [answer(nonsense)]
        assert (await gateway.chat(tools=[TOOL], logprobs=True)).status == 502


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "prompt"),
        ({"prompt": ""}, "prompt"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [1000]}, "prompt"),
        ({"prompt": [True]}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": ["a", ""]}, "prompt"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "echo": True}, "echo"),
        ({"prompt": "a", "best_of": 2}, "best_of"),
        ({"prompt": ["a"] * 65, "n": 2}, "prompt"),
        ({"prompt": "a", "logprobs": 100}, "logprobs"),
        ({"prompt": "a", "logprobs": True}, "logprobs"),
    ],
)
async def test_wrong_completions(gateway: Gateway, fields: dict[str, Any], param: str) -> None:
    reply = await gateway.post("/v1/completions", {"model": "pocket"} | fields)
    assert (reply.status, reply.error["param"]) == (400, param)


async def test_embeddings_where_the_engine_can(gateway: Gateway) -> None:
    gateway.engine.steps = [answer({"object": "list", "data": []})]
    reply = await gateway.post("/v1/embeddings", {"model": "pocket", "input": ["a", "b"]})
    assert reply.status == 200
    assert gateway.engine.body == {
        "model": "pocket",
        "input": ["a", "b"],
        "encoding_format": "float",
    }
    gateway.engine.steps = [
        answer({"error": {"message": "Start it with `--embeddings`", "code": 501}}, 501)
    ]
    reply = await gateway.post("/v1/embeddings", {"model": "pocket", "input": "a"})
    assert reply.status == 501
    assert "makes no embeddings" in reply.message
    for wrong in ({}, {"input": "a", "dimensions": 5}, {"input": "a", "encoding_format": "int"}):
        assert (await gateway.post("/v1/embeddings", {"model": "pocket"} | wrong)).status == 400
