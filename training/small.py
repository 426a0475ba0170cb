"""Small dialogues: repeating, JSON, sums, facts, talk; and the system messages of all dialogues."""

from __future__ import annotations

import json

from training import facts
from training.dialogue import Dialogue, Message, Reply, to_json
from training.tools import KEYS, RANDOM_KINDS, said, value_of
from training.words import Draw

SYSTEMS = (
    "You are a helpful assistant.",
    "Be brief.",
    "You are a friendly assistant.",
    "Answer in one sentence.",
    "You are an assistant that can call functions.",
    "Help the user.",
    "You answer questions.",
    "Use the tools when they help.",
    "You are a careful helper.",
    "Always be polite.",
)


def user(text: str) -> Message:
    """A user message."""
    return {"role": "user", "content": text}


def tool_result(text: str) -> Message:
    """A tool's result."""
    return {"role": "tool", "content": text}


def system_of(draw: Draw, share: float = 0.35) -> tuple[Message, ...]:
    """A system message, or none."""
    if not draw.chance(share):
        return ()
    text = draw.phrase(SYSTEMS)
    x = draw.rng.random()
    if x < 0.15:
        text = f"You are {draw.name()}, an assistant for {draw.noun()}s. {text}"
    elif x < 0.25:
        text = f"{text} {draw.sentence()}"
    if draw.chance(0.12):
        text = f"{text} {draw.pick(['/no_think', '/no_think', '/think'])}"
    return ({"role": "system", "content": text},)


# --------------------------------------------------------------------------------- small things


def echo_one(draw: Draw, system: tuple[Message, ...] = ()) -> Dialogue:
    """Say the same again."""
    x = draw.rng.random()
    if x < 0.3:
        text = draw.phrase_of(1, 6)
    elif x < 0.55:
        text = " ".join(draw.wide_word() for _ in range(draw.whole(1, 3)))
    elif x < 0.7:
        text = draw.sentence()
    elif x < 0.8:
        text = " ".join(str(draw.number()) for _ in range(draw.whole(1, 5)))
    else:
        text = said(value_of(draw, draw.weighted(RANDOM_KINDS)))
    shape = draw.phrase(
        [
            "Say {}",
            "Say: {}",
            "Repeat: {}",
            "Echo: {}",
            "Repeat this: {}",
            'Say "{}"',
            "Repeat {}",
            "Repeat after me: {}",
            "Please repeat: {}",
            "Write {}",
            "Copy this: {}",
            'Repeat the text "{}".',
            "Echo this text: {}",
        ]
    )
    return Dialogue(
        skill="echo",
        messages=(*system, user(shape.format(text))),
        reply=Reply(text, draw.pick(["I repeat the text.", "The same text again.", "I copy it."])),
        check="exact",
    )


def echo(draw: Draw, count: int = 3) -> list[Dialogue]:
    """Several texts to repeat, apart."""
    return [echo_one(draw) for _ in range(count)]


def json_reply(draw: Draw, count: int = 2) -> list[Dialogue]:
    """Facts in, a JSON object out."""
    made = []
    for _ in range(count):
        keys = draw.rng.sample(KEYS, draw.whole(1, 4))
        held = {k: value_of(draw, draw.weighted(RANDOM_KINDS)) for k in keys}
        told = ", ".join(f"{k} {said(v)}" for k, v in held.items())
        if draw.chance(0.3):
            told = " and ".join(f"{k} is {said(v)}" for k, v in held.items())
        shape = draw.phrase(
            [
                "Give me a JSON object with {}.",
                "Reply in JSON: {}",
                "As JSON: {}",
                "Write a JSON object with {}.",
                "Answer with JSON only. {}",
                "Make JSON of this: {}",
                "Put this into JSON: {}",
            ]
        )
        made.append(
            Dialogue(
                skill="json",
                messages=(*system_of(draw, 0.15), user(shape.format(told))),
                reply=Reply(to_json(held), draw.pick(["The user wants JSON.", "A JSON object."])),
                check="json",
                want=(json.dumps(held),),
            )
        )
    return made


def sums(draw: Draw, count: int = 6) -> list[Dialogue]:
    """Additions up to 99."""
    if draw.chance(0.45) and not draw.held_out:
        return [_sum_list(draw)]
    made: list[Dialogue] = []
    while len(made) < count:
        a = draw.whole(0, 9) if draw.chance(0.3) else draw.whole(0, 99)
        b = draw.whole(0, 9) if draw.chance(0.3) else draw.whole(0, 99 - a)
        if a + b > 99 or facts.sum_held_out(a, b) != draw.held_out:
            continue
        draw.drew_held_out |= draw.held_out
        shape = draw.phrase(
            [
                "What is {}+{}?",
                "What is {} + {}?",
                "{} + {}",
                "{}+{}=",
                "{} + {} = ?",
                "How much is {} plus {}?",
                "Add {} and {}.",
                "What is {} plus {}?",
                "Sum of {} and {}?",
                "What's {} + {}?",
                "Calculate {} + {}.",
                "Compute {}+{}.",
            ]
        )
        total = a + b
        answer = draw.pick(
            [
                f"{a} + {b} = {total}",
                f"{a} + {b} = {total}.",
                f"{a} + {b} = {total}.",
                f"{total}",
                f"It is {total}.",
            ]
        )
        thought = draw.pick([f"{a} + {b} = {total}", f"{a} plus {b} is {total}."])
        made.append(
            Dialogue(
                skill="sums",
                messages=(*(system_of(draw, 0.1)), user(shape.format(a, b))),
                reply=Reply(answer, thought),
                check="contains",
                want=(str(total),),
            )
        )
    return made


def _sum_list(draw: Draw) -> Dialogue:
    """Several sums at once: much practice for few tokens."""
    asked: list[str] = []
    told: list[str] = []
    while len(asked) < 10:
        a = draw.whole(0, 99)
        b = draw.whole(0, 99 - a)
        if facts.sum_held_out(a, b) == draw.held_out:
            asked.append(f"{a} + {b}")
            told.append(f"{a} + {b} = {a + b}")
    head = draw.phrase(["Compute: ", "Add these: ", "Sums: ", "Calculate ", "What is "])
    return Dialogue(
        skill="sum list",
        messages=(user(head + ", ".join(asked)),),
        reply=Reply("\n".join(told), draw.pick(["Some sums.", "One after the other."])),
    )


def plain_fact(draw: Draw, system: tuple[Message, ...] = ()) -> Dialogue:
    """A question of general knowledge, or about the model itself."""
    question, answer, want = facts.draw_fact(draw)
    thought = draw.pick(["I know that.", "A simple question.", "That is easy.", answer])
    return Dialogue(
        skill="facts",
        messages=(*system, user(question)),
        reply=Reply(answer, thought),
        check="contains",
        want=(want,),
    )


def fact_questions(draw: Draw, count: int = 4) -> list[Dialogue]:
    """Several facts."""
    return [plain_fact(draw, system_of(draw, 0.15)) for _ in range(count)]


def small_talk_one(draw: Draw, system: tuple[Message, ...] = ()) -> Dialogue:
    """A greeting, thanks, a small task."""
    question, answer = facts.draw_talk(draw)
    thought = draw.pick(["The user is chatting.", "A friendly answer will do.", "Just talk."])
    return Dialogue(skill="talk", messages=(*system, user(question)), reply=Reply(answer, thought))


def small_talk(draw: Draw, count: int = 3) -> list[Dialogue]:
    """Some of it, now and then after an earlier turn."""
    made = []
    for _ in range(count):
        before = earlier_talk(draw) if draw.chance(0.3) else ()
        made.append(small_talk_one(draw, (*system_of(draw, 0.2), *before)))
    return made


def earlier_talk(draw: Draw) -> tuple[Message, ...]:
    """A turn or two that have nothing to do with what follows."""
    maker = draw.rng.choice((small_talk_one, plain_fact, echo_one))
    one = maker(draw)
    return (*one.messages, one.reply.as_message(thinking=False))
