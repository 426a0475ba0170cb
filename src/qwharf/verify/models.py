"""The endpoint itself: what it lists and how it says no."""

from __future__ import annotations

from qwharf.verify.contract import Broken, check
from qwharf.verify.probe import Probe


@check(
    "models-listed",
    title="the model is listed",
    sends="GET /models",
    expected="a list with the served name in it",
    meaning="Clients that look up what is served will not find this model.",
)
def models_listed(probe: Probe) -> str:
    """The served name stands in OpenAI's list of models."""
    answer = probe.get("/models")
    if answer.status != 200:
        raise Broken(f"HTTP {answer.status}")
    body = answer.body
    entries = body.get("data") if isinstance(body, dict) else None
    if not isinstance(entries, list):
        raise Broken("no `data` list in the answer")
    names = [e.get("id") for e in entries if isinstance(e, dict)]
    if probe.served_name not in names:
        raise Broken(f"`{probe.served_name}` is not among {', '.join(map(repr, names)) or 'none'}")
    return f"`{probe.served_name}` among {len(names)}"


@check(
    "unknown-model",
    title="an unknown model is refused",
    sends="a chat request for a model that does not exist",
    expected="HTTP 404 with `error.message`",
    meaning="A misspelt model name is answered by some other model, and nobody notices.",
)
def unknown_model(probe: Probe) -> str:
    """No silent substitution."""
    body = probe.body("Hi", max_tokens=1, room=False) | {"model": "no-such-model-qwharf"}
    answer = probe.post("/chat/completions", body)
    if answer.status == 200:
        raise Broken("HTTP 200: another model answered under the wrong name")
    message = answer.error_message()
    if answer.status != 404:
        raise Broken(f"HTTP {answer.status}: {message}")
    return "HTTP 404"


@check(
    "malformed-request",
    title="a malformed request is refused and harms nothing",
    sends="broken JSON; no messages; messages of the wrong type; then a good request",
    expected="HTTP 400 (or 422) with `error.message` each time, and an answer to the good one",
    meaning="A client's mistake gives no usable error, or takes the deployment down.",
)
def malformed_request(probe: Probe) -> str:
    """Errors are errors, in OpenAI's shape, and the endpoint lives on."""
    wrong: dict[str, object] = {
        "broken JSON": b'{"model": "x", "messages": [',
        "no messages": {"model": probe.served_name},
        "messages as text": {"model": probe.served_name, "messages": "Hi"},
    }
    for name, body in wrong.items():
        answer = probe.post("/chat/completions", body)
        if answer.status not in (400, 422):
            raise Broken(f"{name}: HTTP {answer.status}")
        answer.error_message()
    probe.chat("Hi", thinking=probe.off, max_tokens=1, room=False)
    return f"{len(wrong)} refused, the next request answered"
