"""Short turns, many in a document, that train matching and exact copying of any text. Training only."""

import json
import random

import pool
import words as w

from . import schemas
from .base import Turn, listing

_dumps = json.JSONEncoder(ensure_ascii=False).encode
_ORDINALS = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
_SUFFIXES = ("1st", "2nd", "3rd", "4th", "5th", "6th", "7th", "8th", "9th", "10th")


def _entries(rng: random.Random, count: int) -> list:
    """(name, verb, thing) rows that share prefixes, verbs and things on purpose."""
    taken: set = set()
    made, names = [], set()
    family = schemas.Family(rng)
    while len(made) < count:
        tool = schemas.any_tool(rng, family, taken, 0)
        if tool.name not in names:
            names.add(tool.name)
            made.append((tool.name, tool.intents[0], tool.thing))
    return made


_LINES = ("{n}: {d}", "{n}: {d}", "- {n}: {d}", "* {n} - {d}", "{n} = {d}", "{n} | {d}", "`{n}` {d}", "{d}: {n}", "{d} ({n})")
_HEADS = ("", "These are the tools:\n", "Tools:\n", "Commands:\n", "This is a list of names:\n", "Here is a list.\n\n")
_BY_PURPOSE = (
    "Which one can {v} the {t}?", "{v} the {t}", "I want to {v} the {t}.", "Which name is for: {v} {t}?", "Please {v} the {t}.",
    "Who can {v} a {t}?", "name to {v} one {t}?", "Can you {v} the {t} for me?", "Now {v} the {t}.", "I need to {v} a {t}",
)  # fmt: skip
_BY_NAME = ("What does {n} do?", "{n}?", "what is {n}", "Tell me what {n} is for.", "Describe {n}.", "And {n}?")


def glossary(rng: random.Random, space: float) -> list:
    """A list of names with descriptions; questions by description give the name, by name the description."""
    rows = _entries(rng, max(3, min(rng.randint(4, 24), int(space / 110))))
    shown, form = [], rng.choice(_LINES)
    as_json = rng.random() < 0.45
    for name, verb, thing in rows:
        text = f"{verb.capitalize()} {rng.choice(('a', 'the', 'one'))} {thing}"
        shown.append((name, verb, thing, text))
    if as_json:
        keys = rng.choice((("name", "description"), ("name", "description"), ("description", "name"), ("id", "text")))
        named = keys[0] != "description"
        lines = [_dumps(dict(zip(keys, (n, d) if named else (d, n), strict=True))) for n, _, _, d in shown]
    else:
        lines = [form.format(n=n, d=d) for n, _, _, d in shown]
    turns = []
    for name, verb, thing, text in _rounds(rng, shown):
        if rng.random() < 0.75:
            user = rng.choice(_BY_PURPOSE).format(v=verb, t=thing)
            turns.append(Turn(user, name, f"The user wants to {verb} the {thing}. It is {name}."))
        else:
            turns.append(Turn(rng.choice(_BY_NAME).format(n=name), text, f"The list says of {name}: {text}."))
    turns[0].user = rng.choice(_HEADS) + "\n".join(lines) + "\n\n" + turns[0].user
    return turns


def _rounds(rng: random.Random, rows: list) -> list:
    """The rows two times, each time in another order."""
    return rng.sample(rows, len(rows)) + rng.sample(rows, len(rows))


def pairs(rng: random.Random, space: float) -> list:
    """A table of any keys and any values; the question is little more than the key, the answer the bare value."""
    count = max(3, min(rng.randint(4, 30), int(space / 75)))
    keys = list(dict.fromkeys(pool.name(rng) if rng.random() < 0.6 else pool.label(rng) for _ in range(count)))
    rows = [(key, pool.value(rng) if rng.random() < 0.8 else str(rng.randint(0, 9999))) for key in keys]
    style = rng.random()
    if style < 0.3:
        text = _dumps(dict(rows))
    elif style < 0.5:
        text = "\n".join(_dumps({"key": key, "value": found}) for key, found in rows)
    else:
        sign = rng.choice((": ", " = ", " - ", " | ", "=", "\t", " is "))
        text = "\n".join(key + sign + found for key, found in rows)
    turns = []
    for key, found in _rounds(rng, rows):
        if rng.random() < 0.25 and sum(other == found for _, other in rows) == 1:
            user = rng.choice(("Which key has the value {}?", "Where is {}?", "key of {}?")).format(found)
            turns.append(Turn(user, key, f"{found} belongs to {key}."))
        else:
            user = rng.choice(("{}", "{}?", "What is {}?", "value of {}", "And {}?", "{}:", "Tell me {}.")).format(key)
            turns.append(Turn(user, found, f"The list says: {key}, {found}."))
    turns[0].user = text + "\n\n" + turns[0].user
    return turns


def _copied(rng: random.Random) -> str:
    return pool.real(rng) if rng.random() < 0.35 else pool.word(rng)


def _string(rng: random.Random) -> str:
    """5 to 40 tokens of any look."""
    style, count = rng.random(), rng.randint(2, 12)
    if style < 0.45:
        return " ".join(_copied(rng) for _ in range(count))
    if style < 0.6:
        return " ".join(pool.name(rng) for _ in range(count // 2 + 1))
    if style < 0.8:
        return ", ".join(pool.value(rng) for _ in range(count // 2 + 1))
    return rng.choice((" ", "-", "_", "/", "")).join(rng.choice(pool.PIECES) for _ in range(rng.randint(3, 20)))


_COPY = ("Repeat: {}", "Say: {}", 'Repeat exactly: "{}"', "Copy this: {}", "{}\n\nRepeat that.", "Echo: {}", "copy {}",
         'Write "{}".')  # fmt: skip


def copying(rng: random.Random, space: float) -> list:
    """Exact copies, and copies with one change."""
    turns = []
    for _ in range(rng.randint(2, 8)):
        text = _string(rng)
        turns.append(Turn(rng.choice(_COPY).format(text), text, f"I repeat: {text}"))
        words = text.split(" ")
        if len(words) > 1 and rng.random() < 0.5:
            old, new = rng.choice(words), pool.word(rng)
            if old.strip(",") == old and words.count(old) == 1:
                changed = " ".join(new if part == old else part for part in words)
                user = rng.choice(("Again, with {n} instead of {o}.", "Replace {o} by {n}.", "Now {n} for {o}."))
                turns.append(Turn(user.format(n=new, o=old), changed, f"I put {new} for {old}."))
    return turns


def items(rng: random.Random, space: float) -> list:
    """A list of any texts, then its items by place and by neighbour."""
    count = rng.randint(3, 10)
    rows = list(dict.fromkeys(pool.value(rng) if rng.random() < 0.5 else _copied(rng) for _ in range(count)))
    style = rng.random()
    if style < 0.35:
        text = "\n".join(f"{i}. {row}" for i, row in enumerate(rows, 1))
    elif style < 0.55:
        text = "\n".join("- " + row for row in rows)
    else:
        text = _dumps(rows) if style < 0.75 else ", ".join(rows)
    turns = []
    for _ in range(rng.randint(4, 12)):
        place, style = rng.randrange(len(rows)), rng.random()
        if style < 0.5 or place == 0:
            word = (_ORDINALS if rng.random() < 0.6 else _SUFFIXES)[place]
            if place == len(rows) - 1 and rng.random() < 0.5:
                word = "last"
            user = rng.choice(("Repeat the {} item.", "the {} one?", "What is the {} item?", "{}", "Say the {} item."))
            turns.append(Turn(user.format(word), rows[place], f"The {word} item is {rows[place]}."))
        elif style < 0.8:
            user = rng.choice(("What comes after {}?", "after {}?", "Which item follows {}?")).format(rows[place - 1])
            turns.append(Turn(user, rows[place], f"After {rows[place - 1]} comes {rows[place]}."))
        else:
            user = rng.choice(("What comes before {}?", "before {}?", "What is before {}?")).format(rows[place])
            turns.append(Turn(user, rows[place - 1], f"Before {rows[place]} is {rows[place - 1]}."))
    turns[0].user = text + "\n\n" + turns[0].user
    return turns


def respelled(rng: random.Random, space: float) -> list:
    """The same words without their spaces, in quotes, in capitals or letter by letter: they are cut into other tokens."""
    turns = []
    for _ in range(rng.randint(4, 12)):
        words = [_copied(rng) for _ in range(rng.randint(1, 4))]
        said, style = " ".join(words), rng.random()
        if style < 0.3:
            made = _dumps(words)
            user = rng.choice(("As a JSON array: {}", "JSON list of {}", "Write {} as a JSON array.")).format(said)
        elif style < 0.45:
            made, user = "_".join(words), rng.choice(("snake_case: {}", "Join with underscores: {}")).format(said)
        elif style < 0.55:
            made, user = words[0] + "".join(x.capitalize() for x in words[1:]), f"camelCase: {said}"
        elif style < 0.65:
            made, user = "\n".join(words), rng.choice(("One word a line: {}", "Each on its own line: {}")).format(said)
        elif style < 0.75:
            made, user = f"<{words[0]}>", rng.choice(("Put {} in angle brackets.", "In angle brackets: {}")).format(words[0])
        elif style < 0.85:
            made, user = words[0].capitalize(), rng.choice(("Capitalize {}.", "First letter large: {}")).format(words[0])
        else:
            said = words[0]
            made, user = " ".join(said), rng.choice(("Spell {}.", "spell {}", 'How do you spell "{}"?')).format(said)
        turns.append(Turn(user, made, f"The words are {listing(words)}." if style < 0.65 else f"The word is {words[0]}."))
    return turns


_ALL = (glossary, glossary, glossary, pairs, pairs, copying, items, respelled)


def group(rng: random.Random, space: float) -> list:
    """Turns of one kind; they belong together, as many of them as fit from the first on."""
    return rng.choice(_ALL)(rng, space)


def drill(rng: random.Random, session, several: float) -> tuple:
    """One request to a `tools.Session`, its calls and, in half of them, tiny results and an answer.

    Returns (messages, the results left open: they precede the next request).
    """
    text, reason, wants = session.plain_request(several)
    calls = [session.call(want["name"], want["arguments"]) for want in wants]
    messages = [
        {"role": "user", "content": text},
        {"role": "assistant", "content": "", "reasoning_content": reason, "tool_calls": calls},
    ]
    results = []
    for call in calls:
        body = rng.choice(("ok", "ok", "done", "OK", "", str(rng.randint(0, 99)), w.any_word(rng, "train", w.NOUNS)))
        results.append({"role": "tool", "tool_call_id": call["id"], "content": body})
    if rng.random() < 0.4:
        told = [r["content"] for r in results]
        done = [x.lower() in ("ok", "done", "") for x in told]
        answer = " ".join("Done." if ready else f"The result is {x}." for x, ready in zip(told, done, strict=True))
        thought = "The results are here. I tell them." if len(told) > 1 else "The result is here. I tell it."
        return messages + results + [{"role": "assistant", "content": answer, "reasoning_content": thought}], []
    return messages, results if rng.random() < 0.7 else []
