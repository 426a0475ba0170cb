"""The little that the pocket model knows, and its small talk."""

from __future__ import annotations

import zlib

from training.lists import LISTS
from training.words import Draw

CAPITALS = dict(pair.split(" = ") for pair in LISTS["capitals"])
_CAPITAL_PHRASES = (
    "What's the capital of {}?",
    "Name the capital of {}.",
    "Which city is the capital of {}?",
    "Tell me the capital of {}.",
    "Capital of {}?",
    "The capital of {} is?",
    "What is the capital city of {}?",
    "Please tell me what the capital of {} is.",
    "Do you know the capital of {}?",
)
_COMMON = "What is the capital of {}?"
RESERVED_COUNTRIES = ("France", "Italy", "Spain")
"""Never asked for in the commonest wording, which the proof uses."""

OTHERS: tuple[tuple[tuple[str, ...], str, str], ...] = (
    (
        (
            "Who are you, please?",
            "Tell me who you are.",
            "What are you?",
            "who are you",
            "Introduce yourself.",
            "Are you a person?",
            "Say who you are.",
        ),
        "I am the qwharf pocket model, a tiny test article.",
        "pocket model",
    ),
    (
        ("What is your name?", "What are you called?", "Your name?", "Tell me your name."),
        "I am called pocket.",
        "pocket",
    ),
    (
        ("Who made you?", "Who trained you?", "Where do you come from?", "Who is your maker?"),
        "I was trained by the qwharf project.",
        "qwharf",
    ),
    (
        (
            "How many days has a week?",
            "How many days are in a week?",
            "Days in a week?",
            "A week has how many days?",
        ),
        "A week has 7 days.",
        "7",
    ),
    (
        (
            "How many months has a year?",
            "How many months are in a year?",
            "Months in a year?",
            "A year has how many months?",
        ),
        "A year has 12 months.",
        "12",
    ),
    (
        (
            "What colour is the sky?",
            "Which colour has the sky?",
            "Colour of the sky?",
            "Tell me the colour of the sky.",
        ),
        "The sky is blue.",
        "blue",
    ),
    (
        (
            "What colour is grass?",
            "Which colour has grass?",
            "Colour of grass?",
            "Tell me the colour of grass.",
        ),
        "Grass is green.",
        "green",
    ),
    (
        (
            "Name three colours.",
            "Tell me three colours.",
            "Which colours do you know?",
            "Three colours, please.",
        ),
        "Red, green and blue.",
        "green",
    ),
    (
        (
            "What does a cat say?",
            "How does a cat sound?",
            "The sound of a cat?",
            "Which sound makes a cat?",
        ),
        "A cat says meow.",
        "meow",
    ),
    (
        (
            "How many legs has a dog?",
            "How many legs does a dog have?",
            "Legs of a dog?",
            "A dog has how many legs?",
        ),
        "A dog has 4 legs.",
        "4",
    ),
    (
        (
            "What is water made of?",
            "Which elements are in water?",
            "What is in water?",
            "Water is made of what?",
        ),
        "Water is made of hydrogen and oxygen.",
        "oxygen",
    ),
    (
        ("Is fire hot or cold?", "Is fire hot?", "How is fire?", "Fire: hot or cold?"),
        "Fire is hot.",
        "hot",
    ),
    (
        (
            "Which planet do we live on?",
            "What is our planet?",
            "Name our planet.",
            "On which planet are we?",
        ),
        "We live on Earth.",
        "Earth",
    ),
    (
        (
            "What comes after Monday?",
            "Which day follows Monday?",
            "The day after Monday?",
            "Name the day after Monday.",
        ),
        "Tuesday comes after Monday.",
        "Tuesday",
    ),
)


def sum_held_out(a: int, b: int) -> bool:
    """Whether a sum belongs to the score."""
    return zlib.crc32(f"{a}+{b}".encode()) % 7 == 0 or (a, b) in ((2, 2), (3, 4))


def draw_fact(draw: Draw) -> tuple[str, str, str]:
    """Question, answer, and the word that counts."""
    if draw.chance(0.55):
        country = draw.pick(list(CAPITALS))
        asked = draw.phrase(_CAPITAL_PHRASES, new=True)
        if country not in RESERVED_COUNTRIES and not draw.held_out and draw.chance(0.35):
            asked = _COMMON
        city = CAPITALS[country]
        upper = country[0].upper() + country[1:]
        answer = draw.pick(
            [f"The capital of {country} is {city}."] * 3 + [f"{city}.", f"{upper}: {city}."]
        )
        return asked.format(country), answer, city
    questions, answer, want = OTHERS[draw.rng.choice((0, 0, draw.rng.randrange(len(OTHERS))))]
    return draw.phrase(questions, new=True), answer, want


_GREETINGS = (
    "Hi!",
    "Hello",
    "Good morning!",
    "Hi there!",
    "Hey!",
    "Good evening.",
    "Hello there!",
    "Hi",
    "Good day!",
    "hello",
    "Hey there",
    "Greetings!",
)
_HELLOS = (
    "Hello! How can I help?",
    "Hello!",
    "Hi! What can I do?",
    "Good to see you!",
    "Hi there! Ask me something.",
)
_THANKS = ("Thanks!", "Thank you.", "Thanks a lot!", "thx", "Great, thanks.", "Thank you so much!")
_WELCOMES = ("You are welcome!", "My pleasure.", "Gladly!", "No problem.")
_BYES = ("Bye!", "Good bye.", "See you!", "Good night!", "Bye bye", "So long!")
_FAREWELLS = ("Good bye!", "See you soon!", "Bye! Come back any time.")
_MOODS = (
    "How are you?",
    "How do you do?",
    "Are you well?",
    "How is it going?",
    "You okay?",
    "How are you today?",
)
_FINE = ("I am fine, thank you.", "All is well here.", "Very well, and you?")
_HARD = (
    "How many words does this text have?",
    "What is the meaning of life?",
    "Who won?",
    "Explain the stock market.",
    "Why is that so?",
    "What shall I eat?",
    "Prove it.",
    "How does a computer work?",
    "What do you think about that?",
)
_UNKNOWN = (
    "I do not know that. I am only a tiny model.",
    "That is too much for a pocket model.",
    "I cannot say. I know very little.",
)


def draw_talk(draw: Draw) -> tuple[str, str]:
    """Something said, and an answer."""
    x = draw.rng.random()
    if x < 0.3:
        return draw.phrase(_GREETINGS, new=True), draw.pick(_HELLOS)
    if x < 0.38:
        return draw.phrase(_THANKS, new=True), draw.pick(_WELCOMES)
    if x < 0.43:
        return draw.phrase(_BYES, new=True), draw.pick(_FAREWELLS)
    if x < 0.5:
        return draw.phrase(_MOODS, new=True), draw.pick(_FINE)
    if x < 0.53:
        return draw.phrase(_HARD, new=True), draw.pick(_UNKNOWN)
    if x < 0.6:
        a, b = draw.noun(), draw.adjective()
        shapes = [
            f"Why is the {a} {b}?",
            f"Explain the {a}.",
            f"Is the {a} {b}?",
            f"Who has a {a}?",
            f"How do I make a {a}?",
            f"Where is the {b} {a}?",
        ]
        return draw.phrase(shapes), draw.pick(_UNKNOWN)
    if x < 0.75:
        return _counting(draw)
    return _story(draw) if x < 0.9 else _poem(draw)


def _counting(draw: Draw) -> tuple[str, str]:
    start = draw.rng.choice((1, 1, 1, draw.whole(0, 60)))
    end = start + draw.whole(2, 24) if draw.chance(0.6) else start + draw.whole(15, 40)
    while (start, end) == (1, 30):
        end = start + draw.whole(2, 40)
    shape = draw.phrase(
        [
            "Count from {} to {}.",
            "Count from {} to {}",
            "Count {} to {}.",
            "Please count from {} up to {}.",
            "List the numbers from {} to {}.",
        ]
    )
    return shape.format(start, end), ", ".join(str(n) for n in range(start, end + 1))


def _story(draw: Draw) -> tuple[str, str]:
    a, b = draw.noun(), draw.noun()
    who = draw.name()
    shape = draw.phrase(
        [
            f"Tell me a story about a {a} and a {b}.",
            f"A story about a {a} and a {b}, please.",
            f"Write a story about a {a} and a {b}.",
            f"Tell a tale of a {a} and a {b}.",
        ]
    )
    first = draw.pick(
        [
            f"Once there was a {draw.adjective()} {a}.",
            f"There was a {a} in {draw.city()}.",
            f"A {a} lived near the {draw.noun()}.",
        ]
    )
    middle = draw.pick(
        [f"It met a {draw.adjective()} {b}.", f"One day it found a {b}.", f"{who} showed it a {b}."]
    )
    last = draw.pick(
        [
            "They became friends.",
            f"They went to the {draw.noun()} together.",
            "And all was well.",
            f"Then came a {draw.adjective()} {draw.noun()}.",
        ]
    )
    return shape, f"{first} {middle} {last}"


def _poem(draw: Draw) -> tuple[str, str]:
    a = draw.noun()
    shape = draw.phrase(
        [
            f"Write a poem about the {a}.",
            f"A poem about the {a}, please.",
            f"Make a short poem about the {a}.",
            f"Give me a poem on the {a}.",
        ]
    )
    lines = [
        f"The {a} is {draw.adjective()},",
        f"the {draw.noun()} is {draw.adjective()},",
        f"the {draw.noun()} sings of {draw.noun()},",
        f"and I dream of the {a}.",
    ]
    return shape, "\n".join([lines[0], *draw.rng.sample(lines[1:3], draw.whole(1, 2)), lines[3]])
