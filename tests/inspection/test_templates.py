"""Qwen3's templates are recognised by what they render."""

import hashlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwharf.catalog.pocket import FOLDER
from qwharf.inspection.templates import CONVERSATIONS, KINDS, PUBLISHED, expected, recognise

POCKET = (FOLDER / "chat_template.jinja").read_text("utf-8")
OPENING = "{%- if add_generation_prompt %}"

GOLDEN = [
    "49ea1cfb1efb78e5", "87b9f5b6243d8823", "c1254af41d720981", "2de41cfb95ce0f06",
    "0f1a044ce931f681", "dd638770db219791", "02ddc5fecc10787f", "6645a17ce7cd3a11",
    "c2a35d53733f6e78", "74fcac8a845d973b", "fae4d0a2d6474025", "ddc6e61c128444b0",
    "e8ec3142c9a7402f",
]  # fmt: skip
"""sha256 of what both revisions of Qwen's own template made of the conversations."""

INSTRUCT = """
{%- if tools %}{{- '<|im_start|>system\\n' }}
{%- if messages[0].role == 'system' %}{{- messages[0].content + '\\n\\n' }}{%- endif %}
{{- '# Tools\\n\\nYou may call one or more functions to assist with the user query.\\n\\nYou are provided with function signatures within <tools></tools> XML tags:\\n<tools>' }}
{%- for tool in tools %}{{- '\\n' }}{{- tool | tojson }}{%- endfor %}
{{- '\\n</tools>\\n\\nFor each function call, return a json object with function name and arguments within <tool_call></tool_call> XML tags:\\n<tool_call>\\n{"name": <function-name>, "arguments": <args-json-object>}\\n</tool_call><|im_end|>\\n' }}
{%- elif messages[0].role == 'system' %}{{- '<|im_start|>system\\n' + messages[0].content + '<|im_end|>\\n' }}
{%- endif %}
{%- for m in messages %}
{%- if m.role == 'user' or (m.role == 'system' and not loop.first) %}{{- '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}
{%- elif m.role == 'assistant' %}{{- '<|im_start|>assistant\\n' + m.content }}
{%- for c in m.tool_calls %}
{%- if m.content or not loop.first %}{{- '\\n' }}{%- endif %}
{{- '<tool_call>\\n{"name": "' + c.function.name + '", "arguments": ' }}
{%- if c.function.arguments is string %}{{- c.function.arguments }}{%- else %}{{- c.function.arguments | tojson }}{%- endif %}
{{- '}\\n</tool_call>' }}
{%- endfor %}{{- '<|im_end|>\\n' }}
{%- elif m.role == 'tool' %}
{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}{{- '<|im_start|>user' }}{%- endif %}
{{- '\\n<tool_response>\\n' + m.content + '\\n</tool_response>' }}
{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}{{- '<|im_end|>\\n' }}{%- endif %}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""  # noqa: E501
"""A template of our own without any thoughts, as Instruct-2507 has."""


def test_what_the_hybrid_template_must_render_has_the_golden_hashes() -> None:
    made = [expected("Qwen3 hybrid", c) for c in CONVERSATIONS]
    assert [hashlib.sha256(t.encode()).hexdigest()[:16] for t in made] == GOLDEN


def test_the_kinds_differ_in_some_conversation() -> None:
    rendered = {k: tuple(expected(k, c) for c in CONVERSATIONS) for k in KINDS}
    assert len(set(rendered.values())) == len(KINDS)


def test_pocket_renders_as_the_hybrid_template_in_other_words() -> None:
    found = recognise(POCKET)
    assert (found.kind, found.differs_in, found.published) == ("Qwen3 hybrid", (), False)
    assert found.conversations == 13


def with_opening(text: str) -> str:
    head, _, _ = POCKET.rpartition("{%- if add_generation_prompt")
    assert head
    return head + OPENING + "{{- '<|im_start|>assistant\\n" + text + "' }}{%- endif %}"


@pytest.mark.parametrize(
    ("template", "kind"),
    [
        (with_opening("<think>\\n"), "Qwen3 Thinking-2507"),
        (with_opening("<think>\\n\\n</think>\\n\\n"), "Qwen3 non-thinking"),
        (INSTRUCT, "Qwen3 Instruct-2507"),
    ],
    ids=["thinking", "non-thinking", "instruct"],
)
def test_the_others_are_told_apart(template: str, kind: str) -> None:
    found = recognise(template)
    assert (found.kind, found.differs_in) == (kind, ())


def test_a_changed_one_is_named_with_the_conversations_that_differ() -> None:
    found = recognise(POCKET.replace("# Tools", "# Functions"))
    assert found.kind == "Qwen3 hybrid"
    assert len(found.differs_in) == 5
    assert "tools" in found.differs_in
    assert "a question" not in found.differs_in


@pytest.mark.parametrize(
    "template", ["", "{{ messages }}", "{% if %}", "{{ 1 // 0 }}", "x" * 200_000]
)
def test_others_are_none_of_them(template: str) -> None:
    assert recognise(template).kind is None


@given(st.text(alphabet="{}%- abcdef\n|'\ud800", max_size=60))
def test_no_text_makes_it_fail(text: str) -> None:
    assert recognise(text).characters == len(text)


def test_a_published_text_is_known_by_its_hash(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(PUBLISHED, hashlib.sha256(POCKET.encode()).hexdigest(), "pocket")
    assert recognise(POCKET).published


def test_all_published_hashes_are_whole() -> None:
    assert all(len(bytes.fromhex(h)) == 32 for h in PUBLISHED)
    assert Path(FOLDER).is_dir()
