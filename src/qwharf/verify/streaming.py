"""Streams: well formed, complete, and never mixed up."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from qwharf.verify.contract import Broken, Unclear, check
from qwharf.verify.probe import Probe
from qwharf.verify.replies import Reply, shown

SPECIMENS = ("Grüße", "你好世界", "🚀🌍")


@check(
    "stream-shape",
    title="streams have OpenAI's shape",
    sends="a streamed question",
    expected=(
        "`chat.completion.chunk` objects with one id, the role first, one finish_reason, usage "
        "where asked for, then `[DONE]`"
    ),
    meaning="Strict clients fail on the stream, or wait for its end for ever.",
)
def stream_shape(probe: Probe) -> str:
    """Event by event."""
    reply = probe.chat(
        "What is the capital of France?", stream=True, thinking=probe.off, max_tokens=24, room=False
    )
    if not reply.done:
        raise Broken("the stream does not end with `[DONE]`")
    if not reply.raw:
        raise Broken("the stream holds no event")
    kinds = {e.get("object") for e in reply.raw}
    if kinds != {"chat.completion.chunk"}:
        raise Broken(f"events of kind {', '.join(sorted(map(str, kinds)))}")
    ids = {e.get("id") for e in reply.raw}
    if len(ids) != 1 or None in ids:
        raise Broken(f"{len(ids)} ids within one stream")
    choices = [c for e in reply.raw for c in e.get("choices") or ()]
    if not choices or (choices[0].get("delta") or {}).get("role") != "assistant":
        raise Broken("the first delta does not name the role `assistant`")
    finished = [c["finish_reason"] for c in choices if c.get("finish_reason")]
    if len(finished) != 1 or not choices[-1].get("finish_reason"):
        raise Broken(f"finish_reason is given {len(finished)} times, or not at the end")
    if reply.usage is None:
        raise Broken("no `usage` although `include_usage` was asked for")
    return f"{len(reply.raw)} events, `{finished[0]}`, `[DONE]`"


@check(
    "stream-equals-whole",
    title="a streamed answer equals a whole one",
    sends="questions at temperature 0, whole and streamed (up to 3)",
    expected="the same content, reasoning and finish_reason",
    meaning="What users see while streaming is not what the model said.",
)
def stream_equals_whole(probe: Probe) -> str:
    """Nothing lost, nothing doubled, nothing added."""
    questions = ("What is the capital of France?", "Who are you?", "Count from 1 to 30.")
    seen = []
    for question in questions:
        whole, streamed = (
            probe.chat(question, stream=s, thinking=probe.off, max_tokens=48, room=False)
            for s in (False, True)
        )
        pair = [
            (r.reasoning.strip(), r.content.strip(), r.finish_reason) for r in (whole, streamed)
        ]
        if pair[0] == pair[1] and whole.text.strip():
            return f"both {shown(whole.text, 60)}"
        seen.append(f"whole {shown(whole.text, 60)}, streamed {shown(streamed.text, 60)}")
    raise Broken(f"never equal: {'; '.join(seen)}")


@check(
    "utf8-stream",
    title="characters of several bytes survive streaming",
    sends="requests to repeat umlauts, Chinese and emoji, whole and streamed",
    expected="every event valid UTF-8, no replacement character, the same text both ways",
    meaning="Umlauts, Chinese or emoji come out as garbage.",
)
def utf8_stream(probe: Probe) -> str:
    """Tokens end within characters; events must not."""
    wide: set[str] = set()
    unequal = []
    for specimen in SPECIMENS:
        whole, streamed = _repeated(probe, specimen)
        for how, reply in (("whole", whole), ("streamed", streamed)):
            if "\ufffd" in reply.text and reply.finish_reason == "stop":
                raise Broken(f"{how}: U+FFFD in {shown(reply.text)}")
        if whole.text.strip() != streamed.text.strip():
            unequal.append(f"whole {shown(whole.text, 60)}, streamed {shown(streamed.text, 60)}")
        else:
            wide |= {c for c in streamed.text if ord(c) > 0x7F}
    if len(unequal) > 1:
        raise Broken("; ".join(unequal))
    if not wide:
        raise Unclear("the model wrote nothing but ASCII")
    return f"{len(wide)} different wide characters, such as {' '.join(sorted(wide)[:5])}"


def _repeated(probe: Probe, specimen: str) -> tuple[Reply, Reply]:
    """Ask for ``specimen``; if the model will not say it, a grammar lets it say nothing else."""

    def asked(**fields: Any) -> tuple[Reply, Reply]:
        whole, streamed = (
            probe.chat(f"Repeat: {specimen}", stream=s, thinking=probe.off, max_tokens=64, **fields)
            for s in (False, True)
        )
        return whole, streamed

    plain = asked()
    garbled = ["\ufffd" in r.text for r in plain]
    # Both garbled: a weak model wrote half a character. One alone: the deployment tore it.
    if not all(garbled) and any(ord(c) > 0x7F for c in plain[0].content):
        return plain
    schema = {"type": "string", "enum": [specimen]}
    wanted = {"name": "specimen", "strict": True, "schema": schema}
    return asked(response_format={"type": "json_schema", "json_schema": wanted})


PAIRS = (
    ("Count from 1 to 30.", "What is the capital of France?"),
    ("What is the capital of Italy?", "What is 2+2?"),
    ("Hello!", "What is the capital of Spain?"),
)


@check(
    "concurrent-requests",
    title="two requests at once do not mix",
    sends="two different streams one after the other, then at the same time (3 pairs)",
    expected="each stream keeps its own id and the text that it has alone",
    meaning="One user sees parts of another's answer.",
)
def concurrent_requests(probe: Probe) -> str:
    """Each its own text, whoever else is served.

    Batches round differently, which may tip a near tie, so not every pair need be equal to the
    letter; but none may take after the other.
    """

    def ask(question: str) -> Reply:
        return probe.chat(question, stream=True, thinking=probe.off, max_tokens=48, room=False)

    equal, told = 0, []
    for pair in PAIRS:
        alone = [ask(q) for q in pair]
        with ThreadPoolExecutor(max_workers=2) as pool:
            together = list(pool.map(ask, pair))
        if any(len({e.get("id") for e in r.raw}) > 1 for r in together):
            raise Broken("events of two ids within one stream")
        if together[0].id == together[1].id:
            raise Broken(f"both replies carry the id {together[0].id}")
        for own, other in ((0, 1), (1, 0)):
            was, now = alone[own].text, together[own].text
            found = f"alone {shown(was, 60)}, beside another {shown(now, 60)}"
            if _common(now, was) < _common(now, alone[other].text):
                raise Broken(found)
            if now != was:
                told.append(found)
        different = alone[0].text != alone[1].text
        equal += different and all(a.text == t.text for a, t in zip(alone, together, strict=True))
    if not equal:
        raise Broken(f"in no pair both texts as alone: {'; '.join(told) or 'one answer to all'}")
    return f"{equal} of {len(PAIRS)} pairs of texts equal to those made alone, none mixed"


def _common(a: str, b: str) -> int:
    """Length of the common beginning; one more for equal texts, so that equal beats prefix."""
    if a == b:
        return len(a) + 1
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))
