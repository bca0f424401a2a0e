"""What a person says to get a tool called: an intent and its arguments in words."""

import random

from words import article

from .base import listing, upper_first
from .schemas import PREFIX_WORDS, Param, Tool

_QUOTES = ('"{}"', '"{}"', "'{}'")


def spoken(rng: random.Random, param: Param, value) -> str:
    """A value in words: quoted when it has spaces, lists joined, booleans as true, yes or on."""
    if isinstance(value, bool):
        return rng.choice((("false", "no", "off"), ("true", "yes", "on"))[value])
    if isinstance(value, str):
        if " " in value or (param.kind == "string" and rng.random() < 0.15):
            return rng.choice(_QUOTES).format(value)
        return value
    if isinstance(value, list):
        return ", ".join(map(str, value)) if rng.random() < 0.5 else listing(value)
    if isinstance(value, dict):
        return listing([f"{key} {spoken(rng, param, item)}" for key, item in value.items()])
    return str(value)


def argument(rng: random.Random, param: Param, value, form: int) -> str:
    """One argument in words; `form` is shared by all arguments of a request."""
    label = rng.choice(param.labels)
    text = spoken(rng, param, value)
    if isinstance(value, dict) and form in (1, 6):
        form = 0
    if form == 1:
        return f"{label} = {text}"
    if form == 2:
        return f"{label}: {text}"
    if form == 3:
        return f"the {label} is {text}"
    if form == 4:
        return f"{label} set to {text}"
    if form == 5 and isinstance(value, bool):
        return label if value else f"not {label}"
    if form == 6 and isinstance(value, (str, int)) and not isinstance(value, bool):
        return f"{text} as the {label}"
    if form == 7 and label in PREFIX_WORDS and isinstance(value, str):
        return f"{PREFIX_WORDS[label]} {text}"
    return f"{label} {text}"


_FORMS = (0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 7)
_BARE = (
    "{v} the {t}.", "{v} the {t}", "Please {v} the {t}.", "Can you {v} the {t}?", "I want to {v} the {t}.", "{v} {c}.",
    "Could you {v} the {t} for me?", "please {v} the {t}", "I need you to {v} the {t}.", "Now {v} the {t}.",
)  # fmt: skip
_WITH = (
    "{v} the {t} with {a}.", "{v} the {t} with {a}", "Please {v} the {t} with {a}.", "Can you {v} the {t} with {a}?",
    "{v} {c} with {a}.", "I want to {v} the {t} with {a}.", "{v} the {t}: {a}.", "{v} the {t}. Use {a}.",
    "please {v} the {t}, {a}", "Could you {v} the {t} with {a}?", "I need to {v} {c}: {a}", "Now {v} the {t} with {a}.",
    "With {a}, {v} the {t}.", "{v} the {t} ({a}).",
)  # fmt: skip
_IS = (
    "{v} the {t}. {A}.", "Please {v} the {t}, {a}.", "I want to {v} the {t}. {A}.", "Can you {v} the {t}? {A}.",
    "{A}. {v} the {t}.",
)  # fmt: skip
_NAMED = ("Use {n} with {a}.", "Call {n} with {a}.", "use the tool {n}: {a}", "Run {n} with {a}.", "{n}: {a}")
_NAMED_BARE = ("Use {n}.", "Call {n}.", "use the tool {n}", "Please run {n}.")


def request(rng: random.Random, tool: Tool, arguments: dict, by_name: float = 0.12) -> str:
    """A request for one call. With probability `by_name` it names the tool instead of the purpose."""
    params = [p for p in tool.params if p.name in arguments]
    if rng.random() < 0.3:
        rng.shuffle(params)
    form = rng.choice(_FORMS)
    parts = [argument(rng, p, arguments[p.name], form) for p in params]
    joined = listing(parts) if rng.random() < 0.6 and not _crowded(arguments) else ", ".join(parts)
    if _crowded(arguments) and len(parts) > 1:
        joined = "; ".join(parts)
    fields = {
        "v": rng.choice(tool.intents),
        "t": tool.thing,
        "c": article(tool.thing),
        "n": tool.name,
        "a": joined,
        "A": upper_first(joined),
    }
    if rng.random() < by_name:
        text = rng.choice(_NAMED if parts else _NAMED_BARE)
    elif not parts:
        text = rng.choice(_BARE)
    else:
        text = rng.choice(_IS if form == 3 else _WITH)
    first = text[:3] == "{v}"
    text = text.format(**fields)
    return upper_first(text) if first and rng.random() < 0.8 else text


def _crowded(arguments: dict) -> bool:
    """True when commas inside a value would blur where an argument ends."""
    return any(isinstance(v, (list, dict)) for v in arguments.values())


def question_for(rng: random.Random, tool: Tool, arguments: dict, field: str) -> str:
    """A request that also asks for one field of the result."""
    base = request(rng, tool, arguments)
    tail = rng.choice(("What is the {f}?", "Tell me the {f}.", "I want to know the {f}.", "What {f} does it give?"))
    return base + ("" if base[-1] in ".?" else ".") + " " + tail.format(f=field)
