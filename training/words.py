"""Words and values to fill dialogues with, each either for training or held out for the score.

Which side a word is on follows from a hash of the word itself, so no list has to be kept: the
generator asks for words of one side and can never be handed one of the other.
"""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from training.lists import LISTS

HELD_OUT_SHARE = 6
"""One word in so many is held out."""

NAMES, CITIES, NOUNS = LISTS["names"], LISTS["cities"], LISTS["nouns"]
ADJECTIVES, VERBS = LISTS["adjectives"], LISTS["verbs"]
SYLLABLES_1 = LISTS["syllables"]
SYLLABLES_2 = ("n", "r", "s", "l", "x", "m", "t", "k", "ck", "nd", "st", "rt", "ld", *4 * ("",))

WIDE = [
    *"äöüßéèêáàâíóúñçøåæœčšžřłńęąőűğışãõëïþð",
    *"你好世界天气北京上海东京中文日本語学校水火山人大小月年今明",
    *"приветмирдаеозвкх",
    *"αβγδλμπσωאבגשاسلم가나다한국",
    *"🚀🌍🦜🎉😀😂🔥🌈🍕🐱🐶🎵⭐💡📦🏠🚗✈🌞🌙❤👍",
    *"€£¥°±×÷µ§«»„“”‘’–—…•→½²³",
]


SCRIPTS = (
    (0x00C0, 0x00FF),
    (0x0391, 0x03A1),
    (0x0410, 0x044F),
    (0x3041, 0x3090),
    (0x4E00, 0x9FA0),
    (0x4E00, 0x9FA0),
    (0xAC00, 0xD7A3),
    (0x1F300, 0x1F64F),
    (0x1F680, 0x1F6C0),
)
"""Ranges of code points that are all letters or pictures, and normal forms."""


def _pieces() -> list[str]:
    """Lower-case pieces of the vocabulary, so that every token is met in words."""
    text = Path(__file__).with_name("vocabulary.json").read_text("utf-8")
    joined = ("".join(pair.split(" ")) for pair in json.loads(text))
    return [p for p in joined if p.isascii() and p.isalpha() and p.islower() and len(p) > 1]


PIECES = _pieces()
SHORT_WORDS = [
    "a",
    "an",
    "the",
    "in",
    "on",
    "at",
    "to",
    "of",
    "for",
    "is",
    "it",
    "be",
    "do",
    "so",
    "no",
    "go",
    "as",
    "up",
    "us",
    "my",
    "me",
    "we",
    "he",
    "by",
    "or",
    "and",
    "not",
    "with",
    "from",
    "that",
    "this",
    "what",
    "who",
    "how",
    "old",
    "are",
    "was",
    "has",
    "have",
    "can",
]


def is_held_out(word: str) -> bool:
    """Whether a word, name or value belongs to the score and not to training."""
    return zlib.crc32(word.strip().lower().encode()) % HELD_OUT_SHARE == 0


class Draw:
    """A source of random words and values, all of one side."""

    def __init__(self, seed: int, *, held_out: bool = False) -> None:
        self.rng = random.Random(seed)
        self.held_out = held_out
        self.drew_held_out = False
        """Whether anything held out was drawn; to be reset by whoever asks."""
        self._pools: dict[int, list[str]] = {}
        self._listed = 0.9 if held_out else 0.75
        """The share of nouns, adjectives and verbs that exist."""

    # ------------------------------------------------------------------ plain randomness

    def chance(self, p: float) -> bool:
        """True with probability ``p``."""
        return self.rng.random() < p

    def pick(self, options: Sequence[str]) -> str:
        """One of ``options``, whichever side."""
        return options[int(self.rng.random() * len(options))]

    def phrase(self, options: Sequence[str], *, new: bool = False) -> str:
        """One phrasing; of four and more the last is never trained on.

        On the held-out side every second one is such, or, with ``new``, every one: for prompts in
        which nothing but the phrasing could be held out.
        """
        if len(options) < 4:
            return self.pick(options)
        if self.held_out and (new or self.chance(0.5)):
            self.drew_held_out = True
            return options[-1]
        return options[int(self.rng.random() * (len(options) - 1))]

    def weighted(self, options: dict[str, float]) -> str:
        """A key, as often as its weight says."""
        return self.rng.choices(list(options), list(options.values()))[0]

    # ----------------------------------------------------------------------------- words

    def _from(self, pool: Sequence[str]) -> str:
        side = self._pools.get(id(pool))
        if side is None:
            side = [w for w in dict.fromkeys(pool) if is_held_out(w) == self.held_out]
            self._pools[id(pool)] = side
        self.drew_held_out |= self.held_out
        return side[int(self.rng.random() * len(side))]

    def _sided(self, make: Callable[[], str]) -> str:
        while True:
            word = make()
            if is_held_out(word) == self.held_out:
                self.drew_held_out |= self.held_out
                return word

    def syllables(self, least: int = 2, most: int = 3) -> str:
        """A word that does not exist."""
        # Every token is to be met in every place, those of held-out words inside longer ones.
        pieced = 0.1 if self.held_out else 0.4

        def make() -> str:
            x = self.rng.random()
            if x < pieced:
                return "".join(self.pick(PIECES) for _ in range(self.rng.randint(1, 3)))
            n = self.rng.randint(least, most)
            if x < pieced + 0.08:  # pieces that have a token of their own after a blank
                return self.pick(SHORT_WORDS) + self.pick(SYLLABLES_1) * (n > 1) + "n"
            return "".join(self.pick(SYLLABLES_1) for _ in range(n)) + self.pick(SYLLABLES_2)

        return self._sided(make)

    def name(self) -> str:
        """A first name, real or made up."""
        if self.chance(0.7):
            return self._from(NAMES)
        return self._sided(lambda: self.syllables().capitalize())

    def city(self) -> str:
        """A city, real or made up."""
        x = self.rng.random()
        if x < 0.75:
            return self._from(CITIES)
        made = self.syllables().capitalize()
        if x > 0.95:
            return f"{self.pick(['New', 'San', 'Port', 'Bad', 'Saint', 'East'])} {made}"
        return made

    def noun(self) -> str:
        """A thing in lower case."""
        return self._from(NOUNS) if self.chance(self._listed) else self.syllables()

    def adjective(self) -> str:
        """A property in lower case."""
        return self._from(ADJECTIVES) if self.chance(self._listed) else self.syllables()

    def verb(self) -> str:
        """An activity in lower case."""
        return self._from(VERBS) if self.chance(self._listed) else self.syllables()

    def word(self) -> str:
        """Any word in lower case."""
        x = self.rng.random()
        if x < 0.5:
            return self.noun()
        return self.adjective() if x < 0.8 else self.syllables(1, 3)

    def wide_word(self) -> str:
        """A word with characters beyond ASCII."""

        def make() -> str:
            if self.chance(0.3):
                low, high = self.rng.choice(SCRIPTS)
                size = self.rng.randint(1, 4)
                return "".join(chr(self.rng.randint(low, high)) for _ in range(size))
            if self.chance(0.5):
                return "".join(self.pick(WIDE) for _ in range(self.rng.randint(1, 4)))
            stem = list(self.syllables())
            for _ in range(self.rng.randint(1, 2)):
                stem.insert(self.rng.randint(0, len(stem)), self.pick(WIDE))
            return "".join(stem)

        return self._sided(make)

    def code(self) -> str:
        """Letters and digits as in an order number."""

        def make() -> str:
            letters = "".join(self.pick("ABCDEFGHKLMNPQRSTUVWXYZ") for _ in range(self.whole(1, 3)))
            digits = "".join(self.pick("0123456789") for _ in range(self.whole(2, 5)))
            return letters + self.pick(["-", "", "-", "/", "#"]) + digits

        return self._sided(make)

    def whole(self, low: int, high: int) -> int:
        """A whole number, whichever side."""
        return self.rng.randint(low, high)

    def number(self) -> int:
        """A whole number of the right side, mostly small."""
        while True:
            top = self.rng.choice((9, 30, 99, 99, 999, 9999))
            n = self.rng.randint(0, top)
            if n < 10:
                return n
            if is_held_out(str(n)) == self.held_out:
                self.drew_held_out |= self.held_out
                return n

    def decimal(self) -> float:
        """A number with one or two digits after the point."""
        return round(self.rng.uniform(0, 100), self.rng.choice((1, 1, 2))) or 0.5

    def time(self) -> str:
        """A time of day."""
        return f"{self.whole(0, 23):02d}:{self.rng.choice((0, 5, 10, 15, 20, 30, 40, 45, 50)):02d}"

    def date(self) -> str:
        """A date as in ISO 8601."""
        return f"20{self.whole(20, 39)}-{self.whole(1, 12):02d}-{self.whole(1, 28):02d}"

    def email(self) -> str:
        """A made-up address."""
        host = self.pick(["example.com", "example.org", "mail.test", f"{self.syllables()}.com"])
        return f"{self.name().lower()}@{host}"

    def path(self) -> str:
        """A file name, with or without a folder."""
        ending = self.pick(["txt", "pdf", "md", "csv", "json", "png", "py"])
        folder = f"{self.word()}/" if self.chance(0.4) else ""
        return f"{folder}{self.word()}.{ending}"

    def phrase_of(self, least: int, most: int) -> str:
        """Some words in a row."""
        words = [self.word() for _ in range(self.rng.randint(least, most))]
        if self.chance(0.04):
            words[0] = self.wide_word()
        text = " ".join(words)
        return text[0].upper() + text[1:] if self.chance(0.3) else text

    def title(self) -> str:
        """A short title in capitals at the front."""
        text = self.phrase_of(1, 2)
        return text[0].upper() + text[1:]

    def sentence(self) -> str:
        """A sentence that means little."""
        shapes = (
            lambda: f"The {self.adjective()} {self.noun()} is {self.adjective()}.",
            lambda: f"{self.name()} likes the {self.noun()}.",
            lambda: (
                f"{self.name()} lives in {self.city()} with a {self.adjective()} {self.noun()}."
            ),
            lambda: f"There are {self.number()} {self.noun()}s in the {self.noun()}.",
            lambda: f"A {self.noun()} and a {self.noun()} stand near the {self.noun()}.",
            lambda: f"{self.phrase_of(3, 7)}.",
        )
        return self.rng.choice(shapes)()
