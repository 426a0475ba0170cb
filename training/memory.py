"""Facts of earlier turns, asked for later; and of long texts."""

from __future__ import annotations

from dataclasses import replace

from training.dialogue import Dialogue, Message, Reply
from training.small import earlier_talk, echo_one, plain_fact, small_talk_one, system_of, user
from training.tools import KEYS, RANDOM_KINDS, said, value_of
from training.words import Draw

# --------------------------------------------------------------------------------------- memory

Fact = tuple[str, tuple[str, ...], tuple[str, ...], str]
"""Kind of value, how it is told, how it is asked for, and the answer."""
_FACTS: tuple[Fact, ...] = (
    (
        "name",
        ("My name is {}.", "I am called {}.", "I'm {}.", "You can call me {}.", "Hi, I am {}."),
        (
            "What is my name?",
            "Do you remember my name?",
            "Tell me my name.",
            "Who am I?",
            "What did I say my name is?",
            "Say my name.",
            "Do you know my name?",
            "Which name did I tell you?",
            "What am I called?",
            "What was my name?",
        ),
        "Your name is {}.",
    ),
    (
        "city",
        ("I live in {}.", "My home is {}.", "I moved to {}.", "My town is {}."),
        (
            "Where do I live?",
            "In which city do I live?",
            "What is my town?",
            "What is my home?",
            "Which city do I live in?",
            "Which city did I say?",
            "Tell me where I live.",
            "Do you know my city?",
            "Do you remember where I live?",
            "Which city is my home?",
        ),
        "You live in {}.",
    ),
    (
        "name",
        ("My dog is called {}.", "I have a dog named {}.", "My dog's name is {}.", "{} is my dog."),
        (
            "What is my dog called?",
            "What is the name of my dog?",
            "Name my dog.",
            "Tell me the name of my dog.",
            "Do you know what my dog is called?",
            "What did I say my dog is called?",
            "What is my dog's name?",
        ),
        "Your dog is called {}.",
    ),
    (
        "code",
        ("My code is {}.", "The code is {}.", "Please note the code {}.", "Remember the code {}."),
        (
            "What is the code?",
            "Which code did I give you?",
            "Tell me the code.",
            "What is my code?",
            "Do you know my code?",
            "What code did I tell you?",
            "The code was?",
            "What was my code?",
        ),
        "The code is {}.",
    ),
    (
        "integer",
        ("I am {} years old.", "My age is {}.", "I turned {} today.", "I'm {}."),
        (
            "How old am I?",
            "What is my age?",
            "Tell me my age.",
            "What age am I?",
            "Do you know how old I am?",
            "What did I say my age is?",
            "Which age did I give you?",
            "What was my age?",
        ),
        "You are {} years old.",
    ),
    (
        "word",
        ("My favourite word is {}.", "I like the word {}.", "My word is {}.", "The word is {}."),
        (
            "What is my favourite word?",
            "Which word do I like?",
            "What was the word?",
            "What is the word?",
            "What is my word?",
            "Which word did I say?",
            "Do you know my word?",
            "What word did I tell you?",
            "Tell me my word.",
        ),
        "Your word is {}.",
    ),
    (
        "thing",
        ("I bought a {}.", "I have a {}.", "My present is a {}.", "I found a {}."),
        (
            "What did I buy?",
            "What do I have?",
            "What is my present?",
            "What did I find?",
            "What was it?",
            "Tell me what I have.",
            "What did I say I have?",
            "Do you know what I have?",
            "Tell me what I bought.",
        ),
        "It is a {}.",
    ),
    (
        "time",
        ("We meet at {}.", "The meeting is at {}.", "The train leaves at {}.", "Dinner is at {}."),
        (
            "When is it?",
            "At what time is it?",
            "Tell me the time that I gave you.",
            "What time did I tell you?",
            "What time was it?",
            "When was it?",
            "What time did I say?",
            "Which time did I give you?",
            "At which time is it?",
        ),
        "It is at {}.",
    ),
)


COMPANIONS = ("cat", "horse", "bird", "sister", "brother", "friend", "teacher", "boss", "son")
DEEDS = (
    ("lose", "lost"), ("sell", "sold"), ("see", "saw"), ("make", "made"), ("break", "broke"),
    ("get", "got"), ("paint", "painted"), ("need", "needed"),
)  # fmt: skip
PROPERTIES = ("colour", "street", "school", "team", "number", "room", "song", "street", "password")


def _fact(draw: Draw) -> Fact:
    """One of the list, or one like them about something else, told and asked in every way."""
    x = draw.rng.random()
    if draw.held_out or x < 0.55:
        return draw.rng.choice(_FACTS)
    if x < 0.7:
        who = draw.pick(COMPANIONS)
        told = draw.pick(
            [f"My {who} is called {{}}.", f"I have a {who} named {{}}.", f"{{}} is my {who}.",
             f"My {who}'s name is {{}}.", f"The name of my {who} is {{}}.", f"My {who} is {{}}."]
        )  # fmt: skip
        asked = draw.pick(
            [f"What is my {who} called?", f"What is the name of my {who}?", f"Name my {who}.",
             f"What is my {who}'s name?", f"Who is my {who}?", f"Tell me my {who}'s name.",
             f"Do you know the name of my {who}?", f"What did I call my {who}?"]
        )  # fmt: skip
        return "name", (told,), (asked,), f"Your {who} is called {{}}."
    if x < 0.85:
        now, past = draw.rng.choice(DEEDS)
        told = draw.pick(
            [f"I {past} a {{}}.", f"A {{}} is what I {past}.", f"Today I {past} a {{}}."]
        )
        asked = draw.pick(
            [f"What did I {now}?", f"Tell me what I {past}.", f"What was it that I {past}?",
             f"What did I say I {past}?", f"Do you know what I {past}?"]
        )  # fmt: skip
        return "thing", (told,), (asked,), "It is a {}."
    what = draw.pick(PROPERTIES)
    told = draw.pick(
        [f"My {what} is {{}}.", f"{{}} is my {what}.", f"The {what} is {{}}.", f"{what}: {{}}",
         f"I chose {{}} as my {what}.", f"Note that my {what} is {{}}."]
    )  # fmt: skip
    asked = draw.pick(
        [f"What is my {what}?", f"Which {what} is mine?", f"Tell me my {what}.", f"My {what}?",
         f"What did I say my {what} is?", f"Do you know my {what}?", f"What was my {what}?",
         f"Say my {what}."]
    )  # fmt: skip
    kind = draw.pick(["word", "name", "code", "integer", "city", "phrase"])
    return kind, (told,), (asked,), f"Your {what} is {{}}."


def memory(draw: Draw, count: int = 5) -> list[Dialogue]:
    """A fact of an earlier turn, asked for later."""
    return _facts(draw, count) if draw.chance(0.5) else _properties(draw, count)


def _facts(draw: Draw, count: int) -> list[Dialogue]:
    shared = [_fact(draw) for _ in range(draw.whole(1, 3))]
    shared = list({f[3]: f for f in shared}.values())
    values = [said(value_of(draw, kind)) for kind, *_ in shared]
    turns: list[Message] = list(system_of(draw))
    if draw.chance(0.4):
        turns += [
            user(" ".join(draw.phrase(f[1]).format(v) for f, v in zip(shared, values, strict=True)))
        ]
        turns += [Reply(draw.pick(OKS)).as_message(thinking=False)]
    else:
        for fact, value in zip(shared, values, strict=True):
            turns += [user(draw.phrase(fact[1]).format(value))]
            ok = draw.pick([*OKS, f"Good to know: {value}.", fact[3].format(value)])
            turns += [Reply(ok).as_message(thinking=False)]
    for _ in range(draw.rng.choices((0, 1, 2), (0.5, 0.3, 0.2))[0]):
        turns += earlier_talk(draw)
    made = []
    for _ in range(count):
        which = draw.rng.randrange(len(shared))
        value = values[which]
        made.append(
            Dialogue(
                skill="memory",
                messages=(*turns, user(draw.phrase(shared[which][2]))),
                reply=Reply(
                    shared[which][3].format(value),
                    draw.pick([f"The user said {value}.", f"It was {value}.", "I remember that."]),
                ),
                check="contains",
                want=(value,),
            )
        )
    return made


OKS = (
    "Noted.",
    "I will remember that.",
    "All right.",
    "Okay.",
    "Thanks, noted.",
    "Hello! Noted.",
    "Nice.",
    "Got it.",
)


def _properties(draw: Draw, count: int) -> list[Dialogue]:
    """Some things and what belongs to them, told in one message, or in several."""
    number = draw.whole(1, 6)
    keys = [
        draw.pick(KEYS).replace("_", " ") if draw.chance(0.4) else draw.word()
        for _ in range(number)
    ]
    keys = list(dict.fromkeys(keys))
    kind = draw.weighted(RANDOM_KINDS)
    mixed = draw.chance(0.5)
    values = [said(value_of(draw, draw.weighted(RANDOM_KINDS) if mixed else kind)) for _ in keys]
    shape = draw.pick(["The {} is {}.", "{}: {}", "{} = {}", "The {} of it is {}.", "{} is {}"])
    lines = [shape.format(k, v) for k, v in zip(keys, values, strict=True)]
    turns: list[Message] = list(system_of(draw, 0.2))
    head = draw.pick(["", "Remember this:\n", "Note:\n", "Here is a list:\n", "Keep in mind: "])
    if draw.chance(0.75):
        glue = "\n" if shape[0] == "{" else draw.pick([" ", "\n"])
        turns += [user(head + glue.join(lines)), Reply(draw.pick(OKS)).as_message(thinking=False)]
    else:
        for line in lines:
            turns += [user(line), Reply(draw.pick(OKS)).as_message(thinking=False)]
    if draw.chance(0.25):
        turns += earlier_talk(draw)
    made = []
    for _ in range(min(count, len(keys) + 2)):
        which = draw.rng.randrange(len(keys))
        key, value = keys[which], values[which]
        asked = draw.phrase(
            [
                f"What is the {key}?",
                f"{key}?",
                f"Tell me the {key}.",
                f"Which {key} did I give?",
                f"What {key} did I tell you?",
                f"And the {key}?",
                f"What was the {key}?",
                f"Do you know the {key}?",
                f"Say the {key}.",
                f"Give me the {key}.",
                f"What did I say the {key} is?",
                f"Can you tell me the {key}?",
                f"Do you remember the {key}?",
            ]
        )
        made.append(
            Dialogue(
                skill="memory",
                messages=(*turns, user(asked)),
                reply=Reply(
                    draw.pick([f"The {key} is {value}.", f"The {key} is {value}.", f"{value}"]),
                    draw.pick([f"It was {value}.", f"{key} is {value}."]),
                ),
                check="contains",
                want=(value,),
            )
        )
    return made


def long_text(draw: Draw, count: int = 3) -> list[Dialogue]:
    """A fact, much other text, and then a question."""
    key, value = draw.word(), said(value_of(draw, draw.weighted(RANDOM_KINDS)))
    sentences = draw.whole(4, 60 if draw.chance(0.5) else 25)
    if draw.chance(0.4):
        filler = [draw.sentence()] * sentences
    else:
        filler = [draw.sentence() for _ in range(sentences)]
    where = draw.rng.randrange(len(filler))
    text = " ".join([*filler[:where], f"The {key} is {value}.", *filler[where:]])
    start = (*system_of(draw, 0.2), user(text), Reply(draw.pick(OKS)).as_message(thinking=False))
    made = []
    for _ in range(count):
        if draw.chance(0.5):
            asked = draw.phrase(
                [f"What is the {key}?", f"Tell me the {key}.", f"Which {key}?", f"{key}?"]
            )
            reply = Reply(f"The {key} is {value}.", f"It was {value}.")
            made.append(
                Dialogue(
                    skill="long",
                    messages=(*start, user(asked)),
                    reply=reply,
                    check="contains",
                    want=(value,),
                )
            )
        else:
            maker = draw.rng.choice((plain_fact, small_talk_one, echo_one))
            made.append(replace(maker(draw, start), skill="long"))
    return made
