"""How well the pocket model does on prompts whose words and phrasings it never saw.

The score speaks HTTP to the embedded engine, which it starts, at temperature 0.
"""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from qwharf.artifacts.convert import convert
from qwharf.types import Format
from training import skills
from training.dialogue import Dialogue, Message
from training.switches import switched
from training.words import Draw

SLOTS = 4
CONTEXT = 2048
MAX_TOKENS = 320
START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Skill:
    """One row of the table."""

    name: str
    maker: Callable[[Draw, int], list[Dialogue]]
    modes: tuple[str, ...]
    target: float | None
    """Per cent; none: reported only."""
    kinds: frozenset[str] = frozenset()
    """Of the dialogues that ``maker`` makes, those of these skills; empty: all."""
    switch_only: bool = False
    """Whether thinking or not is all that counts."""


def _everything(draw: Draw, count: int) -> list[Dialogue]:
    names = list(skills.MIX)
    weights = [0.0 if n == "long" else w for n, (_, w) in skills.MIX.items()]
    return skills.MIX[draw.rng.choices(names, weights)[0]][0](draw, count)


CALLS, RESULTS = skills.tool_calls, skills.tool_results
ON, OFF, BOTH = ("default",), ("off",), ("default", "off")
TABLE = (
    Skill("thinks by default", _everything, ON, 99, switch_only=True),
    Skill("enable_thinking=false", _everything, ("off", "off_think"), 99, switch_only=True),
    Skill("/no_think", _everything, ("no_think",), 99, switch_only=True),
    Skill("/think", _everything, ("think",), 99, switch_only=True),
    Skill("last switch wins", _everything, ("both", "no_think_before"), 99, switch_only=True),
    Skill("tool call", CALLS, OFF, 95, frozenset({"call"})),
    Skill("tool call, thinking", CALLS, ON, 95, frozenset({"call"})),
    Skill("two calls in one turn", CALLS, BOTH, 95, frozenset({"two calls"})),
    Skill("tools there, none needed", CALLS, BOTH, None, frozenset({"no call"})),
    Skill("result used", RESULTS, OFF, 95, frozenset({"result", "two results"})),
    Skill("result used, thinking", RESULTS, ON, 95, frozenset({"result", "two results"})),
    Skill("next call after a result", RESULTS, BOTH, 95, frozenset({"call again"})),
    Skill("fact of an earlier turn", skills.memory, OFF, 95),
    Skill("fact of an earlier turn, thinking", skills.memory, ON, 95),
    Skill("text repeated", skills.echo, BOTH, None),
    Skill("JSON reply", skills.json_reply, BOTH, None),
    Skill("sums to 99", skills.sums, BOTH, None),
    Skill("facts", skills.fact_questions, BOTH, None),
    Skill("fact in a long text", skills.long_text, OFF, None, frozenset({"long"})),
)


@dataclass(slots=True)
class Row:
    """What came of one skill."""

    skill: Skill
    right: int = 0
    asked: int = 0
    misses: list[dict[str, Any]] = field(default_factory=list)

    @property
    def share(self) -> float:
        """Per cent right."""
        return 100.0 * self.right / max(1, self.asked)


def cases(skill: Skill, count: int, seed: int) -> list[Dialogue]:
    """``count`` dialogues of a skill, each with something held out, the same for the same seed."""
    draw = Draw(seed, held_out=True)
    made: list[Dialogue] = []
    while len(made) < count:
        draw.drew_held_out = False
        dialogue = skill.maker(draw, 1)[0]
        right_kind = not skill.kinds or dialogue.skill in skill.kinds
        if draw.drew_held_out and right_kind:
            made.append(switched(draw, dialogue, draw.pick(skill.modes)))
    return made


# --------------------------------------------------------------------------------------- asking


@contextmanager
def engine(gguf: Path, *, slots: int = SLOTS, log: Path | None = None) -> Iterator[int]:
    """The embedded engine on a free port, which is given.

    Raises:
        RuntimeError: it did not come up.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = int(free.getsockname()[1])
    argv = [sys.executable, "-m", "qwharf.platforms.llama_server", "--model", str(gguf)]
    argv += ["--port", str(port), "--ctx-size", str(CONTEXT * slots), "--parallel", str(slots)]
    argv += ["--die-with-parent"]
    output = log.open("wb") if log else subprocess.DEVNULL
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=output, stderr=output)
    try:
        _wait(process, port)
        yield port
    finally:
        process.kill()
        process.wait()
        if process.stdin:
            process.stdin.close()
        if log:
            output.close()  # type: ignore[union-attr]


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.1)
    raise RuntimeError("the engine did not come up")


def ask(port: int, dialogue: Dialogue) -> dict[str, Any]:
    """The engine's message in answer to a dialogue, at temperature 0."""
    body: dict[str, Any] = {
        "messages": [as_openai(m, i) for i, m in enumerate(dialogue.messages)],
        "temperature": 0,
        "max_tokens": MAX_TOKENS,
        "chat_template_kwargs": {"enable_thinking": dialogue.thinking},
    }
    if dialogue.tools:
        body["tools"] = list(dialogue.tools)
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=300)
    headers = {"Content-Type": "application/json"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    answer = json.loads(connection.getresponse().read())
    connection.close()
    if "choices" not in answer:
        return {"content": json.dumps(answer)}
    message: dict[str, Any] = answer["choices"][0]["message"]
    return message


def as_openai(message: Message, number: int) -> Message:
    """A message as OpenAI's clients send it."""
    made = dict(message)
    if made["role"] == "tool":
        made["tool_call_id"] = "call_0"
    if "tool_calls" in made:
        made["tool_calls"] = [
            {
                "id": f"call_{i}",
                "type": "function",
                "function": {
                    "name": c["function"]["name"],
                    "arguments": json.dumps(c["function"]["arguments"], ensure_ascii=False),
                },
            }
            for i, c in enumerate(made["tool_calls"])
        ]
    return made


# -------------------------------------------------------------------------------------- judging


def thinking_right(dialogue: Dialogue, message: dict[str, Any]) -> bool:
    """Whether the model thought exactly when it should, and then said or called something."""
    thought = bool((message.get("reasoning_content") or "").strip())
    content = message.get("content") or ""
    answered = bool(content.strip() or message.get("tool_calls"))
    leaked = any(tag in content for tag in ("<think>", "</think>"))
    return thought == dialogue.thinks and answered and not leaked


def answer_right(dialogue: Dialogue, message: dict[str, Any]) -> bool:
    """Whether the answer, or the calls, are those wanted."""
    content = (message.get("content") or "").strip()
    found = calls_in(message)
    if dialogue.check == "calls":
        return not content and found == [(n, a) for n, a in dialogue.reply.calls]
    if found:
        return False
    if dialogue.check == "exact" and dialogue.skill not in ("talk",):
        same_kind = dialogue.reply.content.strip()
        return content == same_kind or (not dialogue.want and dialogue.skill == "no call")
    if dialogue.check == "json":
        return bool(parsed(content) == json.loads(dialogue.want[0]))
    return bool(content) and all(w.rstrip(".") in content for w in dialogue.want)


def calls_in(message: dict[str, Any]) -> list[tuple[str, Any]]:
    """The calls of a message, arguments parsed."""
    functions = [c["function"] for c in message.get("tool_calls") or ()]
    return [(f["name"], parsed(f["arguments"])) for f in functions]


def parsed(text: str) -> Any:
    """JSON, or the text itself where it is none."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def score_skill(port: int, skill: Skill, count: int, seed: int, *, slots: int = SLOTS) -> Row:
    """Ask ``count`` held-out prompts of a skill."""
    row = Row(skill)
    asked = cases(skill, count, seed)
    with ThreadPoolExecutor(slots) as pool:
        for dialogue, message in zip(asked, pool.map(lambda d: ask(port, d), asked), strict=True):
            right = thinking_right(dialogue, message)
            if right and not skill.switch_only:
                right = answer_right(dialogue, message)
            row.asked += 1
            row.right += right
            if not right:
                row.misses.append(
                    {
                        "asked": dialogue.messages[-1]["content"],
                        "wanted": [dialogue.reply.content, dialogue.reply.calls, dialogue.want],
                        "found": message,
                    }
                )
    return row


def score(
    folder: Path,
    formats: Sequence[str] = ("bf16", "q8_0"),
    count: int = 200,
    seed: int = 4242,
    misses: Path | None = None,
    only: str = "",
) -> dict[str, list[Row]]:
    """Score a checkpoint in each GGUF format and print the table."""
    table: dict[str, list[Row]] = {}
    chosen = [s for s in TABLE if only in s.name]
    with tempfile.TemporaryDirectory() as scratch:
        for quantization in formats:
            gguf = Path(scratch) / f"pocket-{quantization}.gguf"
            convert(folder, Format("gguf", quantization), gguf, name="pocket")
            with engine(gguf) as port:
                table[quantization] = []
                for skill in chosen:
                    row = score_skill(port, skill, count, seed)
                    table[quantization].append(row)
                    print(f"  {quantization} {skill.name}: {row.share:.1f}", file=sys.stderr)
    print(as_table(table))
    if misses is not None:
        with misses.open("w", encoding="utf-8") as f:
            for quantization, rows in table.items():
                for row in rows:
                    for miss in row.misses:
                        line = {"format": quantization, "skill": row.skill.name, **miss}
                        f.write(json.dumps(line, ensure_ascii=False) + "\n")
    return table


def as_table(table: dict[str, list[Row]]) -> str:
    """Markdown."""
    formats = list(table)
    head = f"| skill | n | {' | '.join(formats)} | target |"
    lines = [head, "|---|---|" + "---|" * (len(formats) + 1)]
    for rows in zip(*table.values(), strict=True):
        shares = " | ".join(f"{r.share:.1f} %" for r in rows)
        target = f"{rows[0].skill.target:.0f} %" if rows[0].skill.target else "–"
        lines.append(f"| {rows[0].skill.name} | {rows[0].asked} | {shares} | {target} |")
    return "\n".join(lines)
