"""What must never be trained on: the prompts that the proof and the tests use, to the letter."""

from __future__ import annotations

from training.dialogue import Dialogue

RESERVED = frozenset(
    {
        *(f"What is the weather in {c}?" for c in ("Paris", "Rome", "Berlin")),
        *(f"What is the weather in {a} and in {b}?" for a, b in
          (("Paris", "Rome"), ("Berlin", "Madrid"), ("Tokyo", "Oslo"))),
        "What time is it?", "What time is it now?", "Tell me the time.",
        *(f"Add {a} and {b}." for a, b in ((12, 30), (5, 8), (21, 14))),
        *(f"What is {a} + {b}? Use the tool." for a, b in ((12, 30), (5, 8), (21, 14))),
        *(f"Repeat: {t}" for t in ("Grüße", "你好世界", "🚀🌍")),
        *(f"What is the capital of {c}?" for c in ("France", "Italy", "Spain")),
        "What is 2+2?", "What is 3+4?", "Who are you?", "Hello!", "Count from 1 to 30.",
        "Tell me a story about a cat and a dog.", "Write a poem about the sea.",
    }
)  # fmt: skip


def allowed(dialogue: Dialogue) -> bool:
    """Whether no message of ``dialogue`` is a reserved prompt, switches aside."""
    return not any(
        plain(m["content"]) in RESERVED for m in dialogue.messages if m["role"] == "user"
    )


def plain(text: str) -> str:
    """The text without soft switches."""
    return text.replace("/no_think", "").replace("/think", "").strip()
