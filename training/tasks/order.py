"""Sorting, counting, copying and picking from short lists."""

import random
import string

import pool
import words as w

from . import schemas
from .base import Turn, listing

_LETTER_WORDS = w.ANIMALS + w.COLORS + w.FOODS
_SORT_WORDS = sorted(set(w.ANIMALS + w.FOODS + w.COLORS))


def _show(rng: random.Random, items: list) -> str:
    style = rng.random()
    if style < 0.6:
        return ", ".join(map(str, items))
    return " ".join(map(str, items)) if style < 0.8 else listing(items)


def sort_numbers(rng: random.Random, split: str) -> Turn:
    """Three to seven numbers, up or down."""
    numbers = rng.sample(range(100), rng.randint(3, 7))
    down = rng.random() < 0.4
    result = ", ".join(map(str, sorted(numbers, reverse=down)))
    if down:
        text = rng.choice((
            "Sort these numbers from large to small: {}", "Sort in descending order: {}",
            "Sort {} in descending order.",
            "Order from high to low: {}", "sort down: {}", "Put these numbers in order, largest first: {}",
        ))  # fmt: skip
    else:
        text = rng.choice((
            "Sort these numbers: {}", "Sort {}", "sort {}", "Sort in ascending order: {}",
            "Sort {} in ascending order.",
            "Sort from small to large: {}", "Put these numbers in order: {}", "Order the numbers {}", "Please sort: {}",
        ))  # fmt: skip
    think = (
        "From large to small" if down else "From small to large"
    ) + f": {sorted(numbers, reverse=down)[0]} is first."
    return Turn(text.format(_show(rng, numbers)), result, think, [result], "exact")


def sort_words(rng: random.Random, split: str) -> Turn:
    """Three to five words in alphabetical order."""
    items = rng.sample(_SORT_WORDS, rng.randint(3, 5))
    result = ", ".join(sorted(items))
    text = rng.choice((
        "Sort these words: {}", "Sort alphabetically: {}", "Put in alphabetical order: {}", "Sort the words {}",
        "Sort these words from a to z: {}", "sort a to z: {}",
    ))  # fmt: skip
    think = "First letters: " + ", ".join(word[0] for word in sorted(items)) + "."
    return Turn(text.format(_show(rng, items)), result, think, [result], "exact")


def count(rng: random.Random, split: str) -> Turn:
    """How many items a list holds, or how often one occurs in it."""
    size = rng.randint(1, 9)
    if rng.random() < 0.6:
        pool = rng.choice((w.NOUNS, w.ANIMALS, w.PEOPLE, list(range(100))))
        items = rng.sample(pool, size)
        text = rng.choice((
            "How many items are in this list: {}", "Count the items: {}", "How many words are here: {}", "count: {}",
            "How many are there: {}",
        )).format(", ".join(map(str, items)))  # fmt: skip
        think = ", ".join(f"{i + 1} {item}" for i, item in enumerate(items)) + "."
        return Turn(text, f"There are {size}." if size != 1 else "There is 1.", think, [str(size)])
    word, others = rng.choice(w.ANIMALS), rng.sample(w.FOODS, 2)
    items = [word] * rng.randint(1, 5) + [rng.choice(others) for _ in range(rng.randint(1, 4))]
    rng.shuffle(items)
    number = items.count(word)
    text = rng.choice(('How often is "{w}" in: {l}', 'Count "{w}" in {l}', "How many times does {w} occur: {l}"))
    think = f"{word}: " + ", ".join(str(i + 1) for i in range(number)) + "."
    answer = f"There are {number}." if number != 1 else "There is 1."
    return Turn(text.format(w=word, l=", ".join(items)), answer, think, [str(number)])


def letters(rng: random.Random, split: str) -> Turn:
    """Spelling and the number of letters of a common word."""
    word = rng.choice(_LETTER_WORDS)
    spelled = " ".join(word)
    style = rng.random()
    if style < 0.2:
        place = rng.choice(("first", "last"))
        letter = word[0] if place == "first" else word[-1]
        text = rng.choice(("What is the {p} letter of {w}?", "{p} letter of {w}?", "Which letter is {p} in {w}?"))
        return Turn(
            text.format(p=place, w=word), f"The {place} letter is {letter}.", f"{spelled}.", [f"letter is {letter}"]
        )
    if style < 0.6:
        text = rng.choice(
            (
                "How many letters are in {}?",
                'Count the letters of "{}".',
                "how many letters has {}",
                "How many letters does {} have?",
            )
        )
        return Turn(text.format(word), f"{len(word)} letters.", f"{spelled}: {len(word)}.", [str(len(word))])
    text = rng.choice(("Spell {}.", "spell {}", 'How do you spell "{}"?', "Spell the word {}."))
    return Turn(text.format(word), spelled, f"The word is {word}.", [spelled], "exact")


def count_up(rng: random.Random, split: str) -> Turn:
    """The numbers between two others, up or down; or a word several times."""
    if rng.random() < 0.4:
        word, times = w.any_word(rng, split, w.NOUNS + w.ANIMALS + w.PEOPLE, 0.4), rng.randint(2, 5)
        text = rng.choice(
            ("Say {x} {n} times.", "Repeat {x} {n} times.", 'Write "{x}" {n} times.', "Write {x} {n} times")
        )
        result = " ".join([word] * times)
        return Turn(
            text.format(x=word, n=w.NUMBER_WORDS[times]),
            result,
            f"I say it {w.NUMBER_WORDS[times]} times.",
            [result],
            "exact",
        )
    start = 1 if rng.random() < 0.5 else rng.randint(0, 90)
    end = start + rng.randint(2, 9)
    if rng.random() < 0.25:
        start, end = end, start
    step = 1 if end > start else -1
    result = ", ".join(map(str, range(start, end + step, step)))
    text = rng.choice(
        (
            "Count from {a} to {b}.",
            "count from {a} to {b}",
            "Write the numbers from {a} to {b}.",
            "List the numbers {a} to {b}.",
        )
    )
    if start == 1 and rng.random() < 0.4:
        text = rng.choice(("Count to {b}.", "count to {b}", "Can you count to {b}?"))
    return Turn(text.format(a=start, b=end), result, f"I start with {start} and end with {end}.", [result], "exact")


def _random_string(rng: random.Random, split: str) -> str:
    if split == "train" and rng.random() < 0.4:
        return pool.value(rng) if rng.random() < 0.5 else pool.phrase(rng, 9)
    style = rng.random()
    if style < 0.3:
        return " ".join(w.nonsense(rng, split) for _ in range(rng.randint(1, 4)))
    if style < 0.5:
        return " ".join(rng.choice(w.NOUNS + w.ADJECTIVES + w.PEOPLE + w.VERBS) for _ in range(rng.randint(1, 7)))
    if style < 0.62:
        return " ".join(str(rng.randint(0, 9999)) for _ in range(rng.randint(1, 4)))
    if style < 0.8:
        return " ".join(schemas.identifier(rng, split, w.NOUNS) for _ in range(rng.randint(1, 2)))
    if style < 0.9:
        return schemas.phrase(rng)
    if style < 0.95:
        letters_ = string.ascii_letters + string.digits
        return "".join(rng.choice(letters_) for _ in range(rng.randint(3, 8)))
    return schemas.path(rng, split)


def copy(rng: random.Random, split: str) -> Turn:
    """Repeats a random string exactly."""
    text = _random_string(rng, split)
    ask = rng.choice((
        "Repeat: {}", "Repeat after me: {}", "Copy this: {}", 'Say "{}".', "Say: {}", 'Write "{}".', "repeat {}",
        "Echo: {}",
        'Repeat exactly: "{}"', "Copy exactly: {}", "Please repeat: {}", 'Say "{}" and nothing else.',
    ))  # fmt: skip
    return Turn(ask.format(text), text, f"I repeat: {text}", [text], "exact")


def reverse(rng: random.Random, split: str) -> Turn:
    """A list from the end."""
    words = rng.choice((w.NOUNS, w.ANIMALS, w.PEOPLE, list(range(100))))
    items = [str(item) for item in w.some_words(rng, split, words, rng.randint(2, 5), 0.35)]
    result = ", ".join(reversed(items))
    text = rng.choice(("Reverse this list: {}", "Reverse: {}", "Turn the list around: {}", "Reverse the order of {}"))
    return Turn(text.format(", ".join(items)), result, f"The last is {items[-1]}.", [result], "exact")


_PLACES = "first second third fourth fifth".split()


def pick(rng: random.Random, split: str) -> Turn:
    """The largest, smallest, first, last or nth item."""
    style = rng.random()
    if style < 0.45:
        numbers = rng.sample(range(100), rng.randint(3, 6))
        large = rng.random() < 0.5
        word = rng.choice(("largest", "biggest", "highest") if large else ("smallest", "lowest"))
        found = max(numbers) if large else min(numbers)
        text = rng.choice(
            ("What is the {w} number: {l}", "Which number is the {w}: {l}?", "the {w} of {l}", "Find the {w}: {l}")
        )
        return Turn(
            text.format(w=word, l=_show(rng, numbers)),
            f"The {word} is {found}.",
            f"The {word} is {found}.",
            [str(found)],
        )
    words = rng.choice((w.NOUNS, w.ANIMALS, w.PEOPLE, w.CITIES))
    items = w.some_words(rng, split, words, rng.randint(3, 6), 0.35)
    place = rng.randint(0, min(4, len(items) - 1))
    word = _PLACES[place]
    if rng.random() < 0.4:
        place, word = len(items) - 1, "last"
    text = rng.choice(
        ("What is the {w} item: {l}", "Which word is {w}: {l}", "the {w} of: {l}", "Tell me the {w} word: {l}")
    )
    think = "It is at the end." if word == "last" else ", ".join(f"{i + 1} {items[i]}" for i in range(place + 1)) + "."
    answer = f"The {word} is {items[place]}."
    return Turn(text.format(w=word, l=", ".join(items)), answer, think, [items[place]])


_ALL = (copy, copy, copy, copy, sort_numbers, sort_numbers, sort_words, count, letters, reverse, pick, pick, count_up)


def any_turn(rng: random.Random, split: str) -> Turn:
    """A mixed turn of this module."""
    return rng.choice(_ALL)(rng, split)
