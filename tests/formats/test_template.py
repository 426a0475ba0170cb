"""Templates from strangers: what they can do, and that nothing they do hurts."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qwharf.errors import InvalidFile
from qwharf.formats import budget
from qwharf.formats.chat_template import load_chat_template, render
from qwharf.formats.checkpoint import thinking_of

MESSAGES = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi <b>ü"}]


def made(template: str, **variables: Any) -> str:
    return render(template, MESSAGES, **variables)


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{ messages[1].content }}", "Hi <b>ü"),
        ("{{ messages | map(attribute='role') | join(',') }}", "system,user"),
        ("{{ messages[1] | tojson }}", '{"role": "user", "content": "Hi <b>ü"}'),
        ("{{ {'b': 1, 'a': none} | tojson(indent=2) }}", '{\n  "b": 1,\n  "a": null\n}'),
        ("{{ [1, 2] | tojson(separators=(',', ':')) }}", "[1,2]"),
        ("{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}x{% endfor %}", "x"),
        ("{% for m in messages %}{% break %}{% endfor %}y", "y"),
        ("  {% if true %}\n  z\n  {% endif %}\n", "  z\n"),
        ("{% generation %}g{% endgeneration %}", "g"),
        ("{{ 'a,b,c'.split(',', 1) }}", "['a', 'b,c']"),
        ("{{ 'a  b '.split() | length }}", "2"),
        ("{{ 'x</think>y'.split('</think>')[-1] }}", "y"),
        ("{{ 'ab'.replace('b', 'c') ~ 1 ~ none }}", "ac1None"),
        ("{{ 'abc'[::-1] }}{{ [1, 2, 3][1:] }}", "cba[2, 3]"),
        ("{{ '%s-%d' % ('a', 3) }}{{ '{}-{x}'.format(1, x=2) }}", "a-31-2"),
        ("{{ 'b'.ljust(3) }}|{{ '7'.zfill(3) }}", "b  |007"),
        ("{{ 'user' in messages | map(attribute='role') | list }}", "True"),
        ("{{ 'content' in messages[0] }}{{ 'x' not in 'abc' }}", "TrueTrue"),
        ("{{ 2 ** 10 + 7 // 2 - 7 % 4 * 1 }}", "1024"),
        ("{{ '12' | int + 'x' | int(5) }}", "17"),
        ("{{ messages | selectattr('role', 'equalto', 'user') | list | length }}", "1"),
        ("{{ {'a': 1}.items() | list }}{{ {'a': 1}.get('b', 2) }}", "[('a', 1)]2"),
        (
            "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}"
            "{% endfor %}{{ ns.n }}",
            "2",
        ),
        ("{% macro f(x) %}<{{ x }}>{% endmacro %}{{ f(1) }}{{ f('a') }}", "<1><a>"),
        ("{% for m in messages if m.role == 'user' %}{{ loop.index }}{% endfor %}", "1"),
        ("{% for k in [2, 1] | sort %}{{ k }}{% endfor %}{{ range(3) | list }}", "12[0, 1, 2]"),
        (
            "{{ tools is none }}{{ x is defined }}{{ messages[0].content is string }}",
            "TrueFalseTrue",
        ),
    ],
)
def test_what_chat_templates_use(template: str, text: str) -> None:
    assert made(template) == text


def test_raise_exception_is_told() -> None:
    with pytest.raises(InvalidFile, match="only users here"):
        made("{{ raise_exception('only users here') }}")


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__ }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ ''['__class__'] }}",
        "{{ '' | attr('__class__') }}{{ ('' | attr('__class__')).mro }}",
        "{{ messages.__class__.__base__.__subclasses__() }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{{ '{0.__class__}'.format_map({'0': 1}) }}",
        "{{ ('{0.__class__.__mro__}' | attr('format'))(1) }}",
        "{{ [''] | map(attribute='__class__') | list }}",
        "{{ [''] | map('attr', '__class__') | list }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ joiner.__init__.__globals__.os }}",
        "{{ namespace.__init__.__globals__ }}",
        "{{ self.__init__.__globals__ }}",
        "{{ raise_exception.__globals__ }}",
        "{{ range.__code__ }}",
        "{{ lipsum.__globals__ }}",
        "{{ (1).to_bytes(9, 'big') }}",
        "{{ 'a'.encode() }}",
        "{{ 'a'.translate({97: 'b'}) }}",
        "{{ messages.append(1) }}",
        "{{ messages[0].update({'a': 1}) }}",
        "{{ messages[0].pop('role') }}",
        "{% include 'x' %}",
        "{% import 'x' as y %}",
        "{% extends 'x' %}",
        "{{ joiner().__call__.__globals__ }}",
        "{% set f = ''.format %}{{ f.__self__ }}",
        "{{ caller.__class__ }}",
        "{{ loop.__class__ }}",
    ],
)
def test_no_way_out(template: str) -> None:
    try:
        text = made(template)
    except InvalidFile:
        return
    assert text in ("", "[Undefined]"), text


NEST = "{% set a = ['x', 'y'] %}" + "".join("{% set a = [a, a] %}" for _ in range(40))
NEST_TUPLE = "{% set a = ('x', 'y') %}" + "".join("{% set a = (a, a) %}" for _ in range(40))
TWO = NEST + NEST.replace("set a", "set b").replace("[a, a]", "[b, b]")
BIG = "{% set big = 'x' * 1000000 %}"

BOMBS = [
    "{% for a in range(10**9) %}{% endfor %}",
    "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}",
    "{{ 'a' * 10**9 }}",
    "{{ ['a'] * 10**9 }}",
    "{{ 10**9 * 'a' }}",
    "{{ 9 ** 9999 }}",
    "{{ ('9' * 4000) | int }}",
    "{{ ('f' * 100000) | int(base=16) // 7 }}",
    "{% set ns = namespace(t='x') %}"
    "{% for i in range(99) %}{% set ns.t = ns.t + ns.t %}{% endfor %}",
    "{% set ns = namespace(t='x') %}"
    "{% for i in range(99) %}{% set ns.t = ns.t ~ ns.t %}{% endfor %}",
    "{% set ns = namespace(t=['x']) %}"
    "{% for i in range(99) %}{% set ns.t = ns.t + ns.t %}{% endfor %}",
    "{% set ns = namespace(n=7) %}{% for i in range(99) %}{% set ns.n = ns.n * ns.n %}{% endfor %}",
    BIG + "{% for i in range(9999) %}{{ big }}{% endfor %}",
    BIG + "{% for i in range(9999) %}{% set y = big.replace('x', big) %}{% endfor %}",
    BIG + "{{ big.join(big) }}",
    BIG + "{% for i in [1] %}{{ big.join(big) }}{% endfor %}",
    BIG + "{{ big | join(big) }}",
    BIG + "{{ big | replace('x', big) }}",
    BIG + "{{ ('{0}' * 9999).format(big) }}",
    BIG + "{% set f = ('{0}' * 9999).format %}{{ f(big) }}",
    BIG + "{{ ('%(a)s' * 9999) % {'a': big} }}",
    BIG + "{% for i in range(999999) %}{% set y = big[1:] %}{% endfor %}",
    BIG + "{% for i in range(999999) %}{% set y = big == big ~ 'x' %}{% endfor %}",
    BIG + "{% for i in range(999999) %}{% set y = 'q' in big %}{% endfor %}",
    BIG + "{% for i in range(999999) %}{% set y = big | upper %}{% endfor %}",
    BIG + "{% for i in range(999999) %}{% set y = big.upper() %}{% endfor %}",
    BIG + "{% for i in range(999999) %}{% set y = big | list %}{% endfor %}",
    "{% set big = 'x ' * 9999999 %}{{ big.split() | length }}",
    "{% set big = 'x\n' * 9999999 %}{{ big.splitlines() | length }}",
    "{{ '%0999999999d' % 1 }}",
    "{{ '%*d' % (999999999, 1) }}",
    "{{ '{:999999999}'.format(1) }}",
    "{{ ('{0:9999}' * 99999).format(1) }}",
    "{{ ('%(a)9999s' * 99999) % {'a': 1} }}",
    "{{ '{:{}}'.format(1, 999999999) }}",
    "{{ 'a'.ljust(999999999) }}",
    "{{ 'a'.center(width=999999999) }}",
    "{% for i in [1] %}{{ 'a'.ljust(999999999) }}{% endfor %}",
    "{{ 'a' | center(999999999) }}",
    "{{ 'a' | indent(999999999, first=true) }}",
    "{{ {} | tojson(indent=999999999) }}",
    "{{ 'a'.expandtabs(999999999) }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% macro f(n) %}{{ f(n) }}{{ f(n) }}{% endmacro %}{{ f(1) }}",
    "{% set ns = namespace() %}{% set ns.a = ns %}{{ ns }}",
    NEST + "{{ a }}",
    NEST + "{{ a | tojson }}",
    NEST + "{{ a ~ 'x' }}",
    NEST + "{{ a | string }}",
    NEST + "{{ '%s' % (a,) }}",
    NEST + "{{ '{}'.format(a) }}",
    NEST + "{{ a | join }}",
    NEST + "{{ {'a': a}.items() | list }}",
    NEST + "{{ raise_exception(a) }}",
    NEST + "{% set ns = namespace(a=a) %}{{ ns }}",
    TWO + "{{ a == b }}",
    TWO + "{{ a in [b] }}",
    TWO + "{{ [a, b] | unique | list | length }}",
    TWO + "{{ [a, b] | sort | length }}",
    TWO + "{{ [a] | select('equalto', b) | list }}",
    TWO + "{{ [a].index(b) }}",
    TWO + "{{ a is eq(b) }}",
    NEST_TUPLE + "{{ {a: 1} }}",
    NEST_TUPLE + "{{ {'b': 1}[a] }}",
    NEST_TUPLE + "{{ {'b': 1}.get(a) }}",
    NEST_TUPLE + "{{ dict([(a, 1)]) }}",
    NEST_TUPLE + "{{ a in {'b': 1} }}",
    "{% set x = [0] | map('step within the budget', -10**15) | list %}"
    "{% for a in range(999999) %}{% for b in range(99) %}{% endfor %}{% endfor %}",
    "{{ " + "(" * 5000 + "1" + ")" * 5000 + " }}",
    "{{ " + "[" * 5000 + "]" * 5000 + " }}",
    "{{ " + "-" * 5000 + "1 }}",
    "{{ a" + ".a" * 5000 + " }}",
    "{% if 1 %}" * 3000 + "{% endif %}" * 3000,
    "{{ 1" + "1" * 5000 + " }}",
    "{% if",
    "{{ 1 / 0 }}",
    "{% for i in 5 %}{% endfor %}",
    "x" * 100_001,
]


@pytest.mark.parametrize("template", BOMBS, ids=range(len(BOMBS)))
def test_work_is_bounded(template: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(budget, "MAX_STEPS", 50_000)  # the same holds for more, but takes longer
    with pytest.raises(InvalidFile):
        made(template)


def test_a_long_conversation_is_well_within_the_budget(tmp_path: Path) -> None:
    template = Path(__file__).parents[2] / "src/qwharf/catalog/pocket/chat_template.jinja"
    messages: list[dict[str, Any]] = []
    for n in range(1000):
        messages.append({"role": "user", "content": f"question {n} " + "x" * 1500})
        call = {"function": {"name": "f", "arguments": {"n": n, "text": "y" * 300}}}
        messages.append({"role": "assistant", "content": "", "tool_calls": [call]})
        messages.append({"role": "tool", "content": "z" * 1000})
        messages.append({"role": "assistant", "content": "<think>\nhm\n</think>\n\nanswer" * 3})
    text = render(template.read_text("utf-8"), messages, [{"type": "function", "a": "b" * 5000}])
    assert len(text) > 2_500_000


PIECES = st.sampled_from(
    [
        *("{{", "}}", "{%", "%}", " for x in messages ", "endfor", " if ", "endif", "x", "f(1)"),
        *(
            ".content",
            "'a'",
            "(",
            ")",
            "range(9)",
            "==",
            " in ",
            "\n",
            "*",
            "+",
            "~",
            "[0]",
            "[1:]",
        ),
        *(" set y = ", " macro f(x) ", "endmacro", ".split('a')", "{#", "#}", "-", "1", "\0", "|"),
        *("tojson", "length", "list", "map", "join", "[1:]"),
    ]
)


@given(st.lists(PIECES, max_size=24).map("".join) | st.text(max_size=60))
def test_any_text_renders_or_is_refused(template: str) -> None:
    with contextlib.suppress(InvalidFile):
        assert isinstance(made(template), str)


@pytest.mark.parametrize(
    ("template", "kind"),
    [
        (None, "hybrid"),
        ("{{ messages[0].content }}", "instruct"),
        ("{{ 1 if enable_thinking is false else 2 }}", "hybrid"),
        ("x<think>\n", "thinking"),
        ("{{ 1 / 0 }}{{ enable_thinking }}", "hybrid"),
        ("{{ 1 / 0 }}", "instruct"),
    ],
)
def test_the_kind_of_thinking_is_tried_out(template: str | None, kind: str) -> None:
    assert thinking_of(template) == kind


def test_where_a_template_is_found(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="no chat template"):
        load_chat_template(tmp_path)
    config = tmp_path / "tokenizer_config.json"
    config.write_text('{"chat_template": [{"name": "tool_use", "template": "t"}, 3]}')
    with pytest.raises(InvalidFile, match="no chat template"):
        load_chat_template(tmp_path)
    config.write_text('{"chat_template": [{"name": "default", "template": "d"}]}')
    assert load_chat_template(tmp_path) == "d"
    config.write_text('{"chat_template": "c"}')
    assert load_chat_template(tmp_path) == "c"
    (tmp_path / "chat_template.jinja").write_text("j")
    assert load_chat_template(tmp_path) == "j"
    (tmp_path / "chat_template.jinja").write_bytes(b"\xff")
    with pytest.raises(InvalidFile, match="UTF-8"):
        load_chat_template(tmp_path)
    with pytest.raises(InvalidFile):
        load_chat_template(tmp_path / "none.gguf")
