"""The small knowledge base: question and answer pairs with several wordings."""

import random

import words as w

from .base import Turn, casual, upper_first


def _capital(rng: random.Random) -> tuple:
    country, city = rng.choice(list(w.CAPITALS.items()))
    if rng.random() < 0.75:
        ask = rng.choice(("What is the capital of {}?", "what is the capital of {}", "capital of {}?",
        "Tell me the capital of {}.",
                          "Which city is the capital of {}?", "Do you know the capital of {}?"))  # fmt: skip
        return (
            ask.format(country),
            f"The capital of {country} is {city}.",
            city,
            [c for c in w.CAPITALS.values() if c != city],
        )
    ask = rng.choice(("In which country is {}?", "{} is the capital of which country?", "Where is {}?"))
    return ask.format(city), f"{city} is in {country}.", country, [c for c in w.CAPITALS if c != country]


def _sound(rng: random.Random) -> tuple:
    animal, sound = rng.choice(list(w.SOUNDS.items()))
    named = w.article(animal)
    ask = rng.choice(
        ("What sound does {} make?", "What does {} say?", "which sound does {} make", "How does {} sound?")
    )
    return ask.format(named), f"{upper_first(named)} says {sound}.", sound, [s for s in w.SOUNDS.values() if s != sound]


def _legs(rng: random.Random) -> tuple:
    animal, legs = rng.choice(list(w.LEGS.items()))
    named = w.article(animal)
    ask = rng.choice(("How many legs does {} have?", "how many legs has {}", "How many legs has {}?"))
    text = f"{upper_first(named)} has {legs} legs." if legs else f"{upper_first(named)} has no legs."
    return ask.format(named), text, str(legs), [str(n) for n in (0, 2, 4, 6, 8) if n != legs]


def _color(rng: random.Random) -> tuple:
    thing, color = rng.choice(list(w.THING_COLORS.items()))
    ask = rng.choice(("What color is {}?", "what color is {}", "Which color does {} have?", "What is the color of {}?"))
    return ask.format(thing), f"{upper_first(thing)} is {color}.", color, [c for c in w.COLORS if c != color]


def _opposite(rng: random.Random) -> tuple:
    a, b = rng.choice(w.OPPOSITES)
    if rng.random() < 0.5 and b not in ("short", "old"):
        a, b = b, a
    ask = rng.choice(
        ("What is the opposite of {}?", "opposite of {}?", "what is the opposite of {}", "Tell me the opposite of {}.")
    )
    words = [word for pair in w.OPPOSITES for word in pair if word not in (a, b)]
    return ask.format(a), f"The opposite of {a} is {b}.", b, words


def _plural(rng: random.Random) -> tuple:
    one, many = rng.choice(list(w.PLURALS.items()))
    ask = rng.choice(
        ("What is the plural of {}?", "plural of {}?", "what is the plural of {}", 'Tell me the plural of "{}".')
    )
    return ask.format(one), f"The plural of {one} is {many}.", many, [m for m in w.PLURALS.values() if m != many]


def _sequence(rng: random.Random) -> tuple:
    names, unit = (w.DAYS, "day") if rng.random() < 0.55 else (w.MONTHS, "month")
    i = rng.randrange(len(names))
    after = rng.random() < 0.6
    found = names[(i + (1 if after else -1)) % len(names)]
    word = "after" if after else "before"
    ask = rng.choice(
        ("Which {u} comes {w} {n}?", "What {u} is {w} {n}?", "what comes {w} {n}?", "Which {u} is {w} {n}?")
    )
    others = [n for n in names if n != found]
    return ask.format(u=unit, w=word, n=names[i]), f"{found} comes {word} {names[i]}.", found, others


def _ordinal(rng: random.Random) -> tuple:
    i = rng.randrange(12)
    month = w.MONTHS[i]
    places = "first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth".split()
    ask = rng.choice(("Which month is the {} month?", "What is the {} month of the year?", "the {} month?"))
    return ask.format(places[i]), f"The {places[i]} month is {month}.", month, [m for m in w.MONTHS if m != month]


def _size(rng: random.Random) -> tuple:
    a, b = rng.sample(range(len(w.SIZES)), 2)
    bigger = rng.random() < 0.6
    found = w.SIZES[max(a, b) if bigger else min(a, b)]
    first, second = w.article(w.SIZES[a]), w.article(w.SIZES[b])
    word = rng.choice(("bigger", "larger") if bigger else ("smaller",))
    ask = rng.choice(("Which is {w}, {a} or {b}?", "What is {w}: {a} or {b}?", "Is {a} or {b} {w}?"))
    return (
        ask.format(w=word, a=first, b=second),
        f"{upper_first(w.article(found))} is {word}.",
        found,
        [w.SIZES[a], w.SIZES[b]],
    )


_COUNTS = [
    ("days are in a week", "A week has 7 days.", 7), ("months are in a year", "A year has 12 months.", 12),
    ("hours are in a day", "A day has 24 hours.", 24), ("minutes are in an hour", "An hour has 60 minutes.", 60),
    ("seconds are in a minute", "A minute has 60 seconds.", 60), ("legs does a person have", "A person has 2 legs.", 2),
    ("eyes do you need to see", "I have no eyes, but a person has 2.", 2), ("fingers are on a hand",
    "A hand has 5 fingers.", 5),
    ("wheels does a car have", "A car has 4 wheels.", 4), ("sides does a triangle have", "A triangle has 3 sides.", 3),
]  # fmt: skip


def _amount(rng: random.Random) -> tuple:
    text, answer, number = rng.choice(_COUNTS)
    others = [str(n) for n in (2, 3, 4, 5, 7, 10, 12, 24, 30, 60) if n != number]
    return rng.choice(("How many {}?", "how many {}", "how many {}?")).format(text), answer, str(number), others


_ALL = (_capital, _capital, _capital, _sound, _legs, _color, _opposite, _plural, _sequence, _ordinal, _size, _amount)


def fact(rng: random.Random) -> tuple:
    """(question, sentence, short answer, wrong answers of the same kind)."""
    return rng.choice(_ALL)(rng)


def turn(rng: random.Random, split: str) -> Turn:
    """A plain question."""
    ask, answer, short, _ = fact(rng)
    ask = ask.lower() if rng.random() < 0.1 else casual(rng, ask)
    shown = [short] if short != "0" else ["no legs"]
    return Turn(ask, answer, rng.choice((f"I know this: {short}.", f"It is {short}.")), shown)


_POOLS = {
    "animal": w.ANIMALS, "color": w.COLORS, "food": w.FOODS, "city": w.CITIES, "day": w.DAYS, "month": w.MONTHS,
    "country": list(w.CAPITALS), "name": w.PEOPLE,
}  # fmt: skip
_HELLO = {"French": "Bonjour", "Spanish": "Hola", "German": "Hallo", "Italian": "Ciao"}


def yes_no(rng: random.Random, split: str) -> Turn:
    """Is this right? With a correction when it is not."""
    style = rng.random()
    if style < 0.4:
        country, city = rng.choice(list(w.CAPITALS.items()))
        shown = city if rng.random() < 0.5 else rng.choice(list(w.CAPITALS.values()))
        text = rng.choice(("Is {a} the capital of {b}?", "is {a} the capital of {b}")).format(a=shown, b=country)
        right = f"The capital of {country} is {city}."
        good = shown == city
    elif style < 0.7:
        thing, color = rng.choice(list(w.THING_COLORS.items()))
        shown = color if rng.random() < 0.5 else rng.choice(w.COLORS)
        text, right, good = f"Is {thing} {shown}?", f"{upper_first(thing)} is {color}.", shown == color
    else:
        word = rng.choice(list(_POOLS)[:3])
        sort = rng.choice(list(_POOLS)[:3])
        item = rng.choice([item for item in _POOLS[sort] if sort == "animal" or item not in _AMBIGUOUS])
        if item in _AMBIGUOUS:
            word = "animal"
        named = w.article(item) if sort == "animal" else item
        text, right, good = (
            f"Is {named} {w.article(word)}?",
            f"{upper_first(named)} is {w.article(sort)}.",
            word == sort,
        )
    answer = f"Yes. {right}" if good else f"No. {right}"
    return Turn(text, answer, right, ["Yes" if good else "No"])


_AMBIGUOUS = {"chicken", "duck", "fish", "orange", "lemon", "chocolate", "goat", "rabbit", "pig", "deer"}


def example(rng: random.Random, split: str) -> Turn:
    """Names one to five things of a kind, in the order of the list."""
    word = rng.choice(list(_POOLS))
    pool = _POOLS[word]
    many = {"city": "cities", "country": "countries"}.get(word, word + "s")
    if rng.random() < 0.2:
        names, word, many = (
            (w.DAYS, "day", "the days of the week") if rng.random() < 0.6 else (w.MONTHS, "month", "the months")
        )
        text = rng.choice(("List {}.", "Name {}.", "What are {}?", "list {}", "Tell me {}.")).format(many)
        return Turn(text, ", ".join(names) + ".", f"There are {len(names)}.", [", ".join(names)])
    count = rng.randint(1, 5)
    if count == 1:
        text = rng.choice(("Name {}.", "Tell me {}.", "Give me {}.", "name {}")).format(w.article(word))
        return Turn(text, f"{upper_first(pool[0])}.", f"I know {pool[0]}.", [pool[0]])
    text = rng.choice(("Name {n} {m}.", "Tell me {n} {m}.", "List {n} {m}.", "name {n} {m}", "Give me {n} {m}."))
    shown = w.NUMBER_WORDS[count] if rng.random() < 0.7 else str(count)
    items = ", ".join(pool[:count])
    return Turn(text.format(n=shown, m=many), upper_first(items) + ".", f"I name {shown}.", [items])


def hello_in(rng: random.Random, split: str) -> Turn:
    """Hello in another language."""
    language, word = rng.choice(list(_HELLO.items()))
    text = rng.choice(
        ("How do you say hello in {}?", "Say hello in {}.", "say hello in {}", "What is hello in {}?")
    ).format(language)
    return Turn(text, f"{word}!", f"The language is {language}.", [word])


def extra(rng: random.Random, split: str) -> Turn:
    """One of the rarer forms."""
    return rng.choice((yes_no, yes_no, example, example, hello_in))(rng, split)


# A few plain facts that people try first, and questions about common things.
