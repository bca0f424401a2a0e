"""Questions about what was said several turns ago: lists, first and last messages."""

import random

import words as w

from .base import Turn, listing

_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth")
_NUMBERS = ("Remember these numbers: {}.", "Here are my numbers: {}.", "My numbers are {}.", "Keep in mind: {}",
            "The numbers are {}", "I give you some numbers: {}.")  # fmt: skip
_LISTS = ("My shopping list is {}.", "Here is my list: {}.", "Remember these words: {}.", "I need to buy {}.",
          "My list: {}", "The words are {}.")  # fmt: skip
_NAMES = ("My friends are {}.", "The people in my team are {}.", "Remember these names: {}.", "I invited {}.")


def given_list(rng: random.Random, split: str) -> tuple:
    """The turn that gives a list and one to three questions to ask later, as (turn, questions)."""
    style = rng.random()
    count = rng.randint(2, 6)
    if style < 0.45:
        word, texts, items = "number", _NUMBERS, [str(n) for n in rng.sample(range(100), count)]
    elif style < 0.8:
        pool = w.FOODS if rng.random() < 0.5 else w.NOUNS
        word, texts, items = rng.choice(("word", "thing")), _LISTS, w.some_words(rng, split, pool, count, 0.4)
        if rng.random() < 0.2:
            items = list(dict.fromkeys(w.nonsense(rng, split) for _ in range(count)))
    else:
        word, texts, items = "name", _NAMES, w.some_words(rng, split, w.PEOPLE, count, 0.3)
    text = rng.choice(texts).format(", ".join(items) if rng.random() < 0.6 else listing(items))
    told = Turn(text, rng.choice(("I will remember it.",)), f"The user gives me {len(items)} {word}s.")
    asks = [_ask(rng, word, items) for _ in range(rng.randint(1, 3))]
    return told, asks


def _ask(rng: random.Random, word: str, items: list) -> Turn:
    style = rng.random()
    if style < 0.15:
        joined = ", ".join(items)
        text = rng.choice(("What were the {}s?", "Repeat my {}s.", "Which {}s did I give you?", "tell me my {}s again"))
        return Turn(text.format(word), f"The {word}s were {joined}.", f"The user gave {joined}.", [joined])
    if style < 0.27:
        text = rng.choice(("How many {}s did I give you?", "How many {}s were there?")).format(word)
        return Turn(text, f"You gave me {len(items)} {word}s.", f"They are {', '.join(items)}.", [str(len(items))])
    place = rng.randrange(len(items))
    ordinal = "last" if place == len(items) - 1 and rng.random() < 0.5 else _ORDINALS[place]
    text = rng.choice((
        "What was the {o} {w} I gave you?", "What was the {o} {w}?", "Which {w} was the {o} one?", "the {o} {w}?",
        "tell me the {o} {w} of my list", "What is the {o} {w}?", "Do you remember the {o} {w}?",
    )).format(o=ordinal, w=word)  # fmt: skip
    think = f"The {word}s are {', '.join(items)}."
    return Turn(text, f"The {ordinal} {word} was {items[place]}.", think, [items[place]])


def session(rng: random.Random, split: str, between: list) -> list:
    """The list, other turns, the questions."""
    told, asks = given_list(rng, split)
    return [told, *between, *asks]


def looking_back(rng: random.Random, messages: list) -> Turn | None:
    """A question about the conversation so far (its plain user and assistant texts), or None when it has no short one."""
    users = [m["content"] for m in messages if m["role"] == "user"]
    answers = [m["content"] for m in messages if m["role"] == "assistant" and m["content"]]
    style = rng.random()
    if style < 0.4 and answers and len(answers[-1]) < 200:
        text = rng.choice((
            "Repeat your last answer.", "What did you just say?", "say that again", "Repeat that.", "Say it again.",
            "Can you repeat that?", "What was your last answer?", "I did not hear you. Say that again.", "repeat please",
        ))  # fmt: skip
        return Turn(text, answers[-1], "The user wants my last answer again.", [answers[-1]], "exact")
    if style < 0.75 and users and len(users[-1]) < 120:
        text = rng.choice((
            "What did I just say?", "What did I say?", "what was my last message?", "Repeat my last message.",
            "What did I ask you just now?", "what have I just said?", "What was my last question?",
        ))  # fmt: skip
        return Turn(text, f"You said: {users[-1]}", "The user asks about the last message.", [users[-1]])
    if users and len(users[0]) < 120 and len(users) > 1:
        text = rng.choice((
            "What was my first message?", "What did I say first?", "What was the first thing I said?",
            "How did I start this chat?", "what was my first question?",
        ))  # fmt: skip
        return Turn(text, f"You said: {users[0]}", "The user asks about the first message.", [users[0]])
    return None
