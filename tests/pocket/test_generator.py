"""The dialogues: rendered as the template renders, and the two sides never mixed."""

from __future__ import annotations

import json

import pytest
from training.dialogue import Dialogue, pieces, prompt_text
from training.limits import RESERVED, allowed, plain
from training.packing import START, draw_group, encode, shared
from training.score import TABLE, answer_right, cases, thinking_right
from training.skills import MIX
from training.switches import wants_thinking
from training.tokens import backend, load_tokens
from training.words import CITIES, NAMES, NOUNS, Draw, is_held_out

from qwharf.catalog.pocket import FOLDER
from qwharf.formats.chat_template import render

TEMPLATE = (FOLDER / "chat_template.jinja").read_text("utf-8")


def dialogues(seed: int, groups: int, *, held_out: bool = False) -> list[Dialogue]:
    draw = Draw(seed, held_out=held_out)
    return [
        d
        for _ in range(groups)
        for d in draw_group(draw, draw.rng.choice(list(MIX)))
        if held_out or allowed(d)
    ]


def whole(d: Dialogue) -> str:
    """Everything that the model is shown, switches aside."""
    shown = [str(m) for m in d.messages] + [str(t) for t in d.tools]
    return plain("\n".join(shown))


def test_the_fast_rendering_is_the_templates() -> None:
    compared = 0
    for d in dialogues(1, 120):
        if d.style != "plain":
            continue
        text = render(TEMPLATE, d.messages, d.tools, enable_thinking=d.thinking)
        assert prompt_text(d) == text
        assert "".join(t for t, _ in pieces(d)).startswith(text)
        compared += 1
    assert compared > 200


def test_what_is_learnt_is_what_the_model_would_say() -> None:
    for d in dialogues(2, 60):
        reply = pieces(d)[-1]
        assert reply[1] == 1.0
        assert reply[0].endswith("<|im_end|>")
        assert reply[0].startswith("<think>\n") == d.thinking


def test_soft_switches_decide_what_is_learnt() -> None:
    seen = set()
    for d in dialogues(3, 150):
        thinks = d.thinking and wants_thinking(list(d.messages))
        assert d.thinks == thinks
        thought = pieces(d)[-1][0].split("</think>")[0].removeprefix("<think>").strip()
        if d.thinking:
            assert bool(thought) == thinks
        seen.add((d.thinking, thinks))
    assert seen == {(True, True), (True, False), (False, False)}


@pytest.mark.parametrize("held_out", [False, True])
def test_words_stay_on_their_side(held_out: bool) -> None:
    draw = Draw(5, held_out=held_out)
    makers = (draw.name, draw.city, draw.noun, draw.adjective, draw.verb, draw.wide_word, draw.code)
    for maker in makers:
        for _ in range(200):
            word = maker()
            last = word.split()[-1] if maker == draw.city and word not in CITIES else word
            assert is_held_out(last) == held_out, word


def test_each_list_has_words_on_both_sides() -> None:
    for words in (NAMES, CITIES, NOUNS):
        held = sum(map(is_held_out, words))
        assert 10 <= held <= len(words) / 3


def test_scored_prompts_are_never_trained_on() -> None:
    """Each has a value, a sum or a phrasing that is held out."""
    trained = {whole(d) for d in dialogues(6, 500)}
    asked = [whole(d) for skill in TABLE for d in cases(skill, 25, 77)]
    assert not trained & set(asked)


def test_reserved_prompts_are_refused() -> None:
    for text in RESERVED:
        d = dialogues(8, 1)[0]
        asked = Dialogue(
            skill="x",
            messages=({"role": "user", "content": f"{text} /no_think"},),
            reply=d.reply,
        )
        assert not allowed(asked)


def test_shared_starts_keep_every_dialogue_whole() -> None:
    tokenizer = backend(load_tokens())
    draw = Draw(9)
    for name in ("calls", "memory", "echo"):
        group = draw_group(draw, name)
        encoded = encode(tokenizer, group)
        rebuilt = []
        for lane in shared(encoded, 4000):
            start = [t for t in lane if t[2] == START]
            for branch in sorted({t[2] for t in lane} - {START}):
                rebuilt.append(start + [t for t in lane if t[2] == branch])
        assert [[t[0] for t in tokens] for tokens in rebuilt] == [e.ids for e in encoded]
        for tokens, each in zip(rebuilt, encoded, strict=True):
            assert [t[1] for t in tokens] == list(range(len(each.ids)))
            for (_, _, _, target), following, learnt in zip(
                tokens, each.ids[1:], each.learnt[1:], strict=False
            ):
                assert target == (following if learnt else -1)


def test_pieces_do_not_depend_on_what_stands_before() -> None:
    tokenizer = backend(load_tokens())
    for word in ("Torvana", "Mikusel", "zarupo"):
        bare = tokenizer.encode(f'"{word}"').tokens[1:-1]
        assert tokenizer.encode(f" {word}").tokens[1:] == bare


def test_judging() -> None:
    call = next(d for d in dialogues(10, 60) if d.skill == "call" and d.thinks)
    name, arguments = call.reply.calls[0]
    made = {"function": {"name": name, "arguments": json.dumps(arguments)}}
    good = {"content": "", "reasoning_content": "yes", "tool_calls": [made]}
    assert thinking_right(call, good)
    assert answer_right(call, good)
    assert not thinking_right(call, {**good, "reasoning_content": ""})
    assert not answer_right(call, {**good, "tool_calls": []})
    assert not answer_right(call, {**good, "tool_calls": [made, made]})
    assert not answer_right(call, {**good, "content": "Sure."})
    wrong = {"function": {"name": name, "arguments": json.dumps({**arguments, "odd": 1})}}
    assert not answer_right(call, {**good, "tool_calls": [wrong]})
