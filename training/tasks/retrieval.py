"""Documents with scattered facts, and questions about them."""

import random

import pool
import words as w

from .base import Turn

# Kinds of facts: statement forms, question forms, answer. {k} key, {v} value.
_KINDS = {
    "code": (
        ("The code of the {k} is {v}.", "The {k} has the code {v}.", "The code of the {k} is {v}."),
        ("What is the code of the {k}?", "what is the code of the {k}", "Which code does the {k} have?",
         "Tell me the code of the {k}.", "code of the {k}?"),
        "The code of the {k} is {v}.",
    ),
    "password": (
        ("The password of {k} is {v}.", "The password for {k} is {v}."),
        ("What is the password of {k}?", "what is the password for {k}?", "Tell me the password of {k}.",
        "password of {k}?"),
        "The password of {k} is {v}.",
    ),
    "color": (
        ("The color of the {k} is {v}.", "The {k} has the color {v}."),
        ("What is the color of the {k}?", "Which color does the {k} have?", "Tell me the color of the {k}."),
        "The color of the {k} is {v}.",
    ),
    "place": (
        ("The {k} is in {v}.", "You can find the {k} in {v}."),
        ("Where is the {k}?", "where is the {k}", "In which city is the {k}?", "Where can I find the {k}?"),
        "The {k} is in {v}.",
    ),
    "owner": (
        ("The {k} belongs to {v}.", "The owner of the {k} is {v}."),
        ("Who owns the {k}?", "Who is the owner of the {k}?", "To whom does the {k} belong?"),
        "The {k} belongs to {v}.",
    ),
}  # fmt: skip
_MIX = ["code"] * 5 + ["password"] * 3 + ["color", "place", "owner"]
MISSING = "It is not in the text."

_WHO = ("the man", "the woman", "the child", "the teacher", "the driver", "the old man", "the farmer", "the guest")
_DID = (
    "walked along the road", "looked out of the window", "sat at the table", "waited for the train",
    "read a long letter",
    "talked about the weather", "went to the market", "closed the door", "made a cup of tea", "slept for an hour",
    "listened to the rain", "worked in the garden", "carried a heavy box", "told a short story", "washed the plates",
    "crossed the bridge", "played with the ball", "wrote a few words", "cut some bread", "opened an old book",
)  # fmt: skip
_WHEN = (
    "In the morning",
    "In the evening",
    "Later",
    "After that",
    "Before noon",
    "At night",
    "Then",
    "Every day",
    "Soon",
)
_SCENES = (
    "The wind was {a} and the sky was {b}.", "It was a {a} day.", "The water was {a} and {b}.", "Nobody said a word.",
    "The house was {a} and {b}.", "There was a {a} smell in the air.", "The street was {a}.", "Time went by.",
    "The night was {a}.", "All was {a} again.", "The food was {a} and {b}.", "The song was {a}.",
)  # fmt: skip
_MOODS = (
    "warm cold quiet dark bright clear soft long short slow calm sweet fresh strange good simple empty clean".split()
)


def filler(rng: random.Random) -> str:
    """A sentence that holds no fact."""
    pick = rng.random
    style = pick()
    if style < 0.35:
        return f"{_WHEN[int(pick() * len(_WHEN))]}, {_WHO[int(pick() * len(_WHO))]} {_DID[int(pick() * len(_DID))]}."
    if style < 0.65:
        who = _WHO[int(pick() * len(_WHO))]
        return f"T{who[1:]} {_DID[int(pick() * len(_DID))]}."
    if style < 0.75:
        did = _DID[int(pick() * len(_DID))]
        return f"{w.PEOPLE[int(pick() * len(w.PEOPLE))]} {did} and {_DID[int(pick() * len(_DID))]}."
    return _SCENES[int(pick() * len(_SCENES))].format(
        a=_MOODS[int(pick() * len(_MOODS))], b=_MOODS[int(pick() * len(_MOODS))]
    )


def value(rng: random.Random, kind: str, split: str) -> str:
    """A value that suits the kind of fact."""
    if kind == "color":
        return w.any_word(rng, split, w.COLORS, 0.25)
    if kind == "place":
        return w.any_word(rng, split, w.CITIES, 0.25)
    if kind == "owner":
        return w.any_word(rng, split, w.PEOPLE, 0.25)
    if split == "train" and rng.random() < 0.2:
        return pool.name(rng)
    style = rng.random()
    if style < 0.45:
        return str(rng.randint(1000, 9999))
    if style < 0.75:
        return w.nonsense(rng, split)
    if style < 0.85:
        return str(rng.randint(10, 99))
    return rng.choice(w.NOUNS) if style < 0.95 else rng.choice(w.NOUNS) + str(rng.randint(10, 99))


class Facts:
    """Distinct keys with their values."""

    def __init__(self, rng: random.Random, split: str):
        self.rng, self.split = rng, split
        self.used: set = set()
        self.rows: list = []

    def key(self, kind: str) -> str:
        """A key that was not given out before."""
        while True:
            person = kind == "password"
            if person and self.rng.random() < 0.6 and len(self.used) < 60:
                text = self.rng.choice(w.PEOPLE)
            elif person:
                text = w.nonsense(self.rng, self.split).capitalize()
            else:
                text = w.pair(self.rng, self.split)
            if text not in self.used:
                self.used.add(text)
                return text

    def add(self) -> str:
        """A new fact; returns its sentence."""
        kind = self.rng.choice(_MIX)
        key, found = self.key(kind), value(self.rng, kind, self.split)
        self.rows.append((kind, key, found))
        return self.rng.choice(_KINDS[kind][0]).format(k=key, v=found)

    def question(self, row: tuple) -> Turn:
        """A question about one fact."""
        kind, key, found = row
        text = self.rng.choice(_KINDS[kind][1]).format(k=key)
        answer = _KINDS[kind][2].format(k=key, v=found)
        return Turn(text, answer, f"The text says: {key}, {found}.", [found])

    def absent(self) -> Turn:
        """A question whose key does not occur."""
        kind = self.rng.choice(_MIX)
        key = self.key(kind)
        return Turn(self.rng.choice(_KINDS[kind][1]).format(k=key), MISSING, f"The text does not say {key}.", [MISSING])


def document(rng: random.Random, split: str, characters: int) -> tuple:
    """(text, facts): filler of about that many characters with one fact in 60 to 120 tokens."""
    facts = Facts(rng, split)
    parts, size = [], 0
    # Short texts are denser, so that a first question rarely has a single fact to choose.
    low, high = (60, 170) if characters < 2500 else (200, 420)
    gap = rng.randint(20, high)
    while size < characters:
        if gap <= 0:
            sentence = facts.add()
            gap = rng.randint(low, high)
        else:
            sentence = filler(rng)
            gap -= len(sentence)
        parts.append(sentence)
        size += len(sentence) + 1
    if not facts.rows:
        parts.append(facts.add())
    if rng.random() < 0.5:
        return " ".join(parts), facts
    lines = []
    while parts:
        count = rng.randint(3, 8)
        lines.append(" ".join(parts[:count]))
        parts = parts[count:]
    return "\n".join(lines), facts


_INTRO = ("Read this text:\n", "Here is a text.\n\n", "Text:\n", "", "", "Remember this:\n")


def questions(rng: random.Random, facts: Facts, count: int) -> list:
    """`count` questions, each fact at most once until all were asked; about one in twelve has no answer."""
    rows: list = []
    turns = []
    for _ in range(count):
        if rng.random() < 0.08:
            turns.append(facts.absent())
            continue
        if not rows:
            rows = rng.sample(facts.rows, len(facts.rows))
        turns.append(facts.question(rows.pop()))
    return turns


def session(rng: random.Random, split: str, characters: int, count: int) -> list:
    """Turns: the document with a first question, then more questions."""
    text, facts = document(rng, split, characters)
    turns = questions(rng, facts, min(count, 2 * len(facts.rows) + 1))
    intro = rng.choice(_INTRO)
    if rng.random() < 0.12 and intro:
        turns.insert(0, Turn(intro + text, "I have read it.", "The user gives a text."))
    elif rng.random() < 0.5:
        turns[0].user = f"{intro}{text}\n\n{turns[0].user}"
    else:
        turns[0].user = f"{intro}{text}\n\nQuestion: {turns[0].user}"
    return turns


def table(rng: random.Random, split: str) -> list:
    """A short list of "key: value" lines with one to three questions."""
    size = rng.randint(3, 9)
    kind = rng.choice(("code", "price", "owner", "color", "id"))
    names = w.NOUNS if rng.random() < 0.6 else w.PEOPLE if kind not in ("owner",) else w.NOUNS
    keys = w.some_words(rng, split, names, size)
    rows = [
        (key, value(rng, "code" if kind == "id" else kind, split) if kind != "price" else str(rng.randint(1, 99)))
        for key in keys
    ]
    sign = rng.choice((": ", ": ", " = ", " - ", " | "))
    text = "\n".join(key + sign + found for key, found in rows)
    turns = []
    for key, found in rng.sample(rows, min(size, rng.randint(1, 4))):
        ask = rng.choice(
            ("What is the {w} of {k}?", "{w} of {k}?", "Which {w} does {k} have?", "what is the {w} of {k}")
        )
        turns.append(
            Turn(
                ask.format(w=kind, k=key),
                f"The {kind} of {key} is {found}.",
                f"The list says: {key}, {found}.",
                [found],
            )
        )
    head = rng.choice(("", f"This is a list of {kind}s.\n", "List:\n", f"{kind} list:\n"))
    turns[0].user = f"{head}{text}\n\n{turns[0].user}"
    return turns


def told(rng: random.Random, split: str) -> list:
    """The user tells one to four facts in turns and asks for them afterwards."""
    facts = Facts(rng, split)
    turns = []
    for _ in range(rng.randint(1, 3)):
        lead = rng.choice(("Remember: ", "Please remember: ", "Remember this. ", "Note: ", ""))
        count = rng.choice((1, 1, 2))
        turns.append(
            Turn(lead + " ".join(facts.add() for _ in range(count)), "I will remember it.", "The user tells me a fact.")
        )
    return turns + questions(rng, facts, len(facts.rows))
