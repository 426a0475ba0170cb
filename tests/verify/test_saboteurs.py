"""Every check passes on an endpoint that keeps the contract and fails on one that breaks it."""

import dataclasses
import json

import pytest
from fake_endpoint import NAME, PRESETS, Endpoint

from qwharf import codec
from qwharf.types import Check, Report, Thinking
from qwharf.verify import CHECKS, Reference, Target, run

SABOTEURS: tuple[tuple[str, str, str], ...] = (
    # what is broken, which check must see it, a word of the fact that it must name
    ("not-listed", "models-listed", "other"),
    ("any-model", "unknown-model", "HTTP 200"),
    ("malformed-500", "malformed-request", "HTTP 500"),
    ("escapes-html", "template-token-exact", "u0026"),
    ("adds-bos", "template-token-exact", "token 0 is 0"),
    ("drops-tools", "template-token-exact", "tools"),
    ("drops-reasoning-history", "template-token-exact", "reasoning in a tool loop"),
    ("ignores-switch", "template-token-exact", "off"),
    ("parts-lost", "content-forms", "text part"),
    ("null-is-none", "content-forms", "null"),
    ("no-parser", "thinking-on", "<think>"),
    ("all-reasoning", "thinking-on", "content is empty"),
    ("ignores-switch", "thinking-off", "it thinks"),
    ("ignores-effort", "reasoning-effort-none", "it thinks"),
    ("strips-soft-switches", "soft-switches", "/no_think in the question"),
    ("no-parser", "soft-switches", "tags"),
    ("field-reasoning", "reasoning-field", "`reasoning`"),
    ("no-parser", "reasoning-field", "content"),
    ("drops-reasoning-history", "reasoning-history", "prompt tokens"),
    ("raw-calls", "tool-call", "<tool_call>"),
    ("finish-stop", "tool-call", "finish_reason is `stop`"),
    ("no-ids", "tool-call", "no id"),
    ("arguments-object", "tool-call", "dict"),
    ("drops-tools", "tool-call", "no right call"),
    ("thinking-swallows-calls", "tool-call-while-thinking", "tokens were generated"),
    ("stream-loses-arguments", "tool-call-stream", "not JSON"),
    ("no-index", "tool-call-stream", "index"),
    ("first-call-only", "tool-parallel", "tokens were generated"),
    ("same-ids", "tool-parallel", "not unique"),
    ("empty-arguments", "tool-zero-args", "not JSON"),
    ("numbers-as-text", "tool-several", "no right call"),
    ("stops-at-first-brace", "tool-nested-json", "not JSON"),
    ("drops-results", "tool-result-turn", "in none of 3"),
    ("ignores-tool-choice", "tool-choice-none", "get_weather"),
    ("always-samples", "greedy-repeatable", "then"),
    ("ignores-top_k", "sampling-applied", "top_k 1"),
    ("ignores-top_p", "sampling-applied", "top_p"),
    ("ignores-min_p", "sampling-applied", "min_p 1"),
    ("ignores-seed", "seed-obeyed", "seed 12"),
    ("ignores-temperature", "seed-obeyed", "four seeds"),
    ("engine-defaults", "sampling-defaults", "temperature is 0.8, not 0.6"),
    ("penalizes", "sampling-defaults", "repeat_penalty is 1.1, not 1"),
    ("no-logprobs", "logprobs", "no `logprobs.content`"),
    ("logprobs-positive", "logprobs", "0.5"),
    ("logprobs-not-best", "logprobs", "another had"),
    ("ignores-max_tokens", "max-tokens", "max_tokens: "),
    ("ignores-max_completion_tokens", "max-tokens", "max_completion_tokens: "),
    ("shows-im-end", "stop-tokens", "<|im_end|>"),
    ("runs-on", "stop-tokens", "limit of 192"),
    ("ignores-stop", "stop-string", "is in"),
    ("keeps-stop", "stop-string", "is in"),
    ("counts-off", "usage-counts", "our rendering has"),
    ("total-off", "usage-counts", "does not add up"),
    ("no-usage", "usage-counts", "no `usage`"),
    ("no-done", "stream-shape", "[DONE]"),
    ("ids-change", "stream-shape", "ids within one stream"),
    ("no-role", "stream-shape", "role"),
    ("no-usage", "stream-shape", "usage"),
    ("stream-drops-piece", "stream-equals-whole", "never equal"),
    ("raw-bytes", "utf8-stream", "not UTF-8"),
    ("replacement-characters", "utf8-stream", "U+FFFD"),
    ("mixes", "concurrent-requests", "beside another"),
    ("ids-change", "concurrent-requests", "two ids"),
    ("ignores-schema", "json-format", "not JSON"),
    ("small-context", "context-honoured", "are refused"),
    ("cuts-early", "context-honoured", "the prompt was cut"),
    ("cuts-context", "context-refused-beyond", "the prompt was cut"),
    ("unnamed-refusal", "context-refused-beyond", "does not name"),
)
OF_OTHER_KINDS: tuple[tuple[Thinking, str, str, str], ...] = (
    ("instruct", "instruct-thinks", "thinking-absent", "it thinks"),
    ("thinking", "pretends-off", "thinking-stays-on", "begins with content"),
)


def target_of(endpoint: Endpoint, reference: Reference, **changes: object) -> Target:
    target = Target(
        base_url=f"{endpoint.root}/v1",
        served_name=NAME,
        thinking=endpoint.kind,
        context_tokens=endpoint.context,
        sampling=PRESETS if endpoint.kind == "hybrid" else {},
        reference=reference if endpoint.kind == "hybrid" else None,
        probe_url=f"{endpoint.root}/probe",
        deadline_seconds=20,
    )
    return dataclasses.replace(target, **changes)  # type: ignore[arg-type]


def only(endpoint: Endpoint, reference: Reference, check: str, **changes: object) -> Check:
    (done,) = run(target_of(endpoint, reference, **changes), only={check}).checks
    return done


@pytest.mark.parametrize(
    ("sabotage", "check", "fact"), SABOTEURS, ids=lambda v: v if " " not in v else ""
)
def test_a_saboteur_is_caught(sabotage: str, check: str, fact: str, reference: Reference) -> None:
    with Endpoint(reference, sabotage) as endpoint:
        found = only(endpoint, reference, check)
    assert found.status == "fail", found
    assert fact in found.found


@pytest.mark.parametrize(("kind", "sabotage", "check", "fact"), OF_OTHER_KINDS)
def test_a_saboteur_of_another_kind_is_caught(
    kind: Thinking, sabotage: str, check: str, fact: str, reference: Reference
) -> None:
    with Endpoint(reference, sabotage, kind=kind) as endpoint:
        found = only(endpoint, reference, check)
    assert found.status == "fail", found
    assert fact in found.found


def test_every_check_has_a_saboteur() -> None:
    caught = {s[1] for s in SABOTEURS} | {s[2] for s in OF_OTHER_KINDS}
    assert caught == {c.id for c in CHECKS}


@pytest.mark.parametrize("kind", ["hybrid", "instruct", "thinking"])
def test_the_contract_is_kept(kind: Thinking, reference: Reference) -> None:
    with Endpoint(reference, kind=kind) as endpoint:
        report = run(target_of(endpoint, reference))
    assert not [c for c in report.checks if c.status == "fail"]
    assert report.passed
    assert [c.id for c in report.checks] == [c.id for c in CHECKS]
    expected_skips = {c.id for c in CHECKS if kind not in c.thinking}
    if kind != "hybrid":
        expected_skips |= {"template-token-exact", "sampling-defaults"}
    assert {c.id for c in report.checks if c.status == "skip"} == expected_skips
    assert codec.decode(Report, json.loads(json.dumps(codec.encode(report)))) == report


def test_conversations_are_compared_where_only_their_tokens_are_shown(
    reference: Reference,
) -> None:
    tokens = {"probe": "tokenize", "probe_headers": {}}
    with Endpoint(reference) as endpoint:
        found = only(endpoint, reference, "template-token-exact", **tokens)
        assert found.status == "pass", found
        assert "all equal" in found.found
        assert only(endpoint, reference, "sampling-defaults", **tokens).status == "skip"
    for sabotage in ("adds-bos", "drops-tools", "ignores-switch", "drops-reasoning-history"):
        with Endpoint(reference, sabotage) as endpoint:
            found = only(endpoint, reference, "template-token-exact", **tokens)
        assert found.status == "fail", sabotage
        assert "token" in found.found


@pytest.mark.parametrize(
    ("lacks", "check"), [("logprobs", "logprobs"), ("response_format", "json-format")]
)
def test_what_an_engine_lacks_and_says_so_is_skipped_with_its_words(
    reference: Reference, lacks: str, check: str
) -> None:
    with Endpoint(reference, f"lacks-{lacks}") as endpoint:
        found = only(endpoint, reference, check)
    assert found.status == "skip"
    assert found.meaning == f"`{lacks}` cannot be had"
