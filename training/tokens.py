"""The pocket model's vocabulary: byte-level BPE whose pieces do not depend on what stands before.

Qwen's pattern keeps a word together with one character before it (`` Paris``, ``_name``). Merges
here are learnt on the bare words, so that ``Paris`` has the same pieces after a blank and after a
quote: copying a value from a sentence into JSON is then copying tokens. Only frequent fixed words
get a second token with the blank.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from tokenizers import Regex, Tokenizer, models, pre_tokenizers, trainers

from qwharf.testing.vocabulary import Tokens, byte_letters, tokenizer_json
from training.dialogue import pieces
from training.skills import MIX
from training.switches import switched
from training.words import Draw

WORD_MERGES = 1050
SPACED_WORDS = 330
PUNCTUATION = 90
SINGLE_LETTERS = "äöüßéèêáàâíóúñçøåæ°€"


def make_tokens(seed: int = 7, groups: int = 1500) -> Tokens:
    """Learn the vocabulary from generated dialogues."""
    texts = list(_texts(seed, groups))
    words: Counter[str] = Counter()
    punctuation: Counter[str] = Counter()
    spaced: Counter[str] = Counter()
    for text in texts:
        words.update(re.findall(r"[A-Za-z]+", text))
        spaced.update(re.findall(r" ([A-Za-z]+)", text))
        punctuation.update(re.findall(r" ?[!-/:-@\[-`{-~]+\n*", text))
    common = {w for w, n in words.items() if n >= groups / 60}
    merges = _word_merges(words, common, seed)
    known = {a + b for a, b in merges}
    letters = byte_letters()
    blank = letters[0x20]
    for text, _ in punctuation.most_common(PUNCTUATION):
        merges += _chain("".join(letters[b] for b in text.encode()), known)
    merges += _chain(letters[10] * 2, known)
    for letter in SINGLE_LETTERS:
        merges += _chain("".join(letters[b] for b in letter.encode()), known)
    often = [w for w, _ in spaced.most_common(4 * SPACED_WORDS) if w in known and w in common]
    for word in often[:SPACED_WORDS]:
        merges.append((blank, word))
        known.add(blank + word)
    base = [letters[b] for b in sorted(letters)]
    return Tokens((*base, *(a + b for a, b in merges)), tuple(merges))


FILE = Path(__file__).with_name("vocabulary.json")


def load_tokens() -> Tokens:
    """The vocabulary as it was learnt once: it must not change with the generator."""
    data = json.loads(FILE.read_text("utf-8"))
    merges = tuple((a, b) for a, b in (m.split(" ") for m in data))
    letters = byte_letters()
    return Tokens((*(letters[b] for b in sorted(letters)), *(a + b for a, b in merges)), merges)


def save_tokens(tokens: Tokens) -> None:
    """Keep the merges, from which the rest follows."""
    text = json.dumps([f"{a} {b}" for a, b in tokens.merges], ensure_ascii=False, indent=0)
    FILE.write_text(text + "\n", "utf-8")


def backend(tokens: Tokens) -> Tokenizer:
    """The tokenizer itself."""
    return Tokenizer.from_str(json.dumps(tokenizer_json(tokens)))


def _texts(seed: int, groups: int) -> Iterable[str]:
    draw = Draw(seed)
    names = list(MIX)
    weights = [w for _, w in MIX.values()]
    for _ in range(groups):
        maker = MIX[draw.rng.choices(names, weights)[0]][0]
        for i, dialogue in enumerate(maker(draw)):
            text = "".join(t for t, _ in pieces(switched(draw, dialogue)))
            yield text if i == 0 else text[-600:]


def _word_merges(words: Counter[str], common: set[str], seed: int) -> list[tuple[str, str]]:
    """Whole tokens for common words, pieces for all others, which count once each."""
    draw = Draw(seed + 1)
    units: Counter[str] = Counter()
    for word, count in words.items():
        units[word] = min(count, 4000) if word in common else 2
    for _ in range(6000):
        units[draw.syllables(1, 4)] += 1
        units[draw.syllables(1, 3).capitalize()] += 1
    trainer = trainers.BpeTrainer(
        vocab_size=256 + WORD_MERGES,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\s+"), "removed"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    lines = (" ".join([w] * n) for w, n in sorted(units.items()))
    learner.train_from_iterator(lines, trainer)
    made = json.loads(learner.to_str())["model"]["merges"]
    return [(a, b) for a, b in made]


def _chain(text: str, known: set[str]) -> list[tuple[str, str]]:
    """Merges that make ``text`` from the left."""
    made = []
    for end in range(2, len(text) + 1):
        if text[:end] not in known:
            known.add(text[:end])
            made.append((text[: end - 1], text[end - 1]))
    return made
