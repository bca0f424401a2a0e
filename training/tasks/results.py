"""Tool results and the answers that follow from them."""

import random
from dataclasses import dataclass

import pool
import words as w

from .base import listing
from .schemas import code, date, phrase


@dataclass
class Result:
    """A result body as the tool returns it and what is known from it (`fields`: name to spoken value)."""

    body: str
    fields: dict
    answer: str
    want: list


FIELDS = """price weight size count level score color owner city status id date speed temperature total stock length
name rank state rating title age code balance""".split()
_STATES = "open closed ready empty full lost sold new active broken busy free".split()
_ERRORS = """not found|no access|the name is not valid|time out|the server is busy|the file does not exist|
permission denied|the limit is too high|no such user|the key is wrong|disk full|no network""".replace("\n", "").split(
    "|"
)


def field_value(rng: random.Random, name: str, split: str):
    """A JSON value that suits the field."""
    if split == "train" and rng.random() < 0.15:
        return pool.word(rng)
    if name in ("color",):
        return rng.choice(w.COLORS)
    if name in ("owner", "name"):
        return rng.choice(w.PEOPLE) if rng.random() < 0.7 else w.nonsense(rng, split)
    if name == "city":
        return rng.choice(w.CITIES)
    if name in ("status", "state"):
        return rng.choice(_STATES)
    if name == "date":
        return date(rng)
    if name in ("id", "code"):
        return code(rng, split)
    if name == "title":
        return pool.phrase(rng) if split == "train" and rng.random() < 0.4 else phrase(rng)
    if name in ("price", "weight", "temperature", "speed", "balance", "rating") and rng.random() < 0.5:
        return rng.randint(1, 999) / 10
    return rng.randint(0, 99) if rng.random() < 0.85 else rng.randint(100, 9999)


def fields_result(rng: random.Random, split: str, dumps, asked: str | None) -> Result:
    """An object of one to four fields. The answer tells the asked field, or all (at most two) when none is asked."""
    names = rng.sample(FIELDS, rng.randint(0, 3) if asked else rng.randint(1, 2))
    if asked:
        names = [asked, *(name for name in names if name != asked)]
    values = {name: field_value(rng, name, split) for name in names}
    order = list(names)
    rng.shuffle(order)
    body = {name: values[name] for name in order}
    style = rng.random()
    if style < 0.7:
        text = dumps(body)
    elif style < 0.85:
        text = "\n".join(f"{name}: {value}" for name, value in body.items())
    else:
        text = ", ".join(f"{name} = {value}" for name, value in body.items())
    spoken = {name: str(values[name]) for name in names}
    if asked:
        answer = f"The {names[0]} is {spoken[names[0]]}."
        return Result(text, spoken, answer, [spoken[names[0]]])
    parts = [f"the {name} is {spoken[name]}" for name in order]
    answer = listing(parts)
    return Result(text, spoken, answer[0].upper() + answer[1:] + ".", [spoken[n] for n in order])


def plain_result(rng: random.Random, split: str, dumps) -> Result:
    """Success, a text, a list, a single value or an error."""
    style = rng.random()
    if style < 0.25:
        body = rng.choice(("ok", "done", '{"status": "ok"}', '{"success": true}', "success", '{"ok": true}', "OK"))
        return Result(body, {}, "Done.", ["done"])
    if style < 0.4:
        key = w.nonsense(rng, split) if rng.random() < 0.5 else str(rng.randint(10, 9999))
        return Result(dumps({"status": "ok", "id": key}), {"id": key}, f"Done. The id is {key}.", [key])
    if style < 0.58:
        words = phrase(rng)
        text = rng.choice((words, f"The {w.pair(rng, split)} is {rng.choice(_STATES)}"))
        return Result(text, {}, f"The result is: {text}.", [text])
    if style < 0.72:
        items = (
            w.some_words(rng, split, w.NOUNS, rng.randint(2, 4), 0.4) if rng.random() < 0.6 else [w.nonsense(rng, split) for _ in "abc"]
        )
        body = dumps(items) if rng.random() < 0.6 else "\n".join(items)
        return Result(body, {}, f"The result is: {', '.join(items)}.", items)
    if style < 0.84:
        number = str(rng.randint(0, 9999))
        body = number if rng.random() < 0.5 else dumps({"result": int(number)})
        return Result(body, {}, f"The result is {number}.", [number])
    return error_result(rng, dumps)


def error_result(rng: random.Random, dumps) -> Result:
    """A failure in one of the usual spellings."""
    reason = rng.choice(_ERRORS)
    body = rng.choice((dumps({"error": reason}), f"Error: {reason}", f"Tool error: {reason}"))
    return Result(body, {}, f"The tool reported an error: {reason}.", [reason])
