"""Arithmetic with small numbers: operands 0..99, products of 0..12."""

import random

import words as w

from .base import Turn, casual, upper_first

_PLUS = ("{a} + {b}", "{a}+{b}", "{a} plus {b}", "{a} + {b}", "the sum of {a} and {b}")
_MINUS = ("{a} - {b}", "{a}-{b}", "{a} minus {b}", "{a} - {b}")
_TIMES = ("{a} * {b}", "{a}*{b}", "{a} times {b}", "{a} x {b}", "{a} multiplied by {b}")
_ASK = (
    "What is {e}?", "what is {e}?", "What is {e}?", "Calculate {e}.", "Compute {e}.", "{e} = ?", "{e}?", "{e}",
    "what is {e}",
    "How much is {e}?", "Tell me {e}.", "what's {e}?", "Can you calculate {e}?", "Please compute {e}.", "{e} =",
    "Solve {e}.", "I need {e}.", "how much is {e}",
)  # fmt: skip


def plus_steps(a: int, b: int) -> str:
    """The written addition, digit by digit."""
    if a < 10 and b < 10:
        return f"{a} + {b} = {a + b}."
    ones = a % 10 + b % 10
    text = f"{a} + {b}: {a % 10} + {b % 10} = {ones}, write {ones % 10}"
    if ones > 9:
        return f"{text} carry 1. {a // 10} + {b // 10} + 1 = {a // 10 + b // 10 + 1}. So {a + b}."
    return f"{text}. {a // 10} + {b // 10} = {a // 10 + b // 10}. So {a + b}."


def minus_steps(a: int, b: int) -> str:
    """The written subtraction; a smaller first number is turned round."""
    if a < b:
        return f"{a} is less than {b}. {minus_steps(b, a)} So -{b - a}."
    if a < 10:
        return f"{a} - {b} = {a - b}."
    text = f"{a} - {b}: "
    if a % 10 >= b % 10:
        text += f"{a % 10} - {b % 10} = {a % 10 - b % 10}. {a // 10} - {b // 10} = {a // 10 - b // 10}."
    else:
        text += f"{a % 10 + 10} - {b % 10} = {a % 10 + 10 - b % 10} borrow 1. "
        text += f"{a // 10} - {b // 10} - 1 = {a // 10 - b // 10 - 1}."
    return f"{text} So {a - b}."


def operation(rng: random.Random) -> tuple:
    """(expression, result, steps, sign, a, b)."""
    style = rng.random()
    if style < 0.42:
        a, b = _operands(rng)
        return rng.choice(_PLUS).format(a=a, b=b), a + b, plus_steps(a, b), "+", a, b
    if style < 0.75:
        a, b = _operands(rng)
        if a < b and rng.random() < 0.8:
            a, b = b, a
        return rng.choice(_MINUS).format(a=a, b=b), a - b, minus_steps(a, b), "-", a, b
    a, b = rng.randint(0, 12), rng.randint(0, 12)
    return rng.choice(_TIMES).format(a=a, b=b), a * b, f"{a} * {b} = {a * b}.", "*", a, b


def _operands(rng: random.Random) -> tuple:
    top = 9 if rng.random() < 0.2 else 99
    return rng.randint(0, top), rng.randint(0, 99 if top == 9 and rng.random() < 0.3 else top)


def simple(rng: random.Random, split: str) -> Turn:
    """One operation, written or in words."""
    if rng.random() < 0.18:
        return story(rng, split)
    expression, result, steps, sign, a, b = operation(rng)
    text = rng.choice(_ASK).format(e=expression)
    text = casual(rng, upper_first(text) if rng.random() < 0.3 else text)
    shown = f"{a} {sign} {b} = {result}"
    # The form of the answer follows from the form of the question, so that it can be learned.
    answer = f"{shown}." if sign in expression else f"The answer is {result}."
    return Turn(text, answer, steps, [str(result)])


_STORIES = (
    ("{p} has {a} {t}. {q} gives {p} {b} more. How many {t} does {p} have?", "+"),
    ("{p} has {a} {t} and buys {b} more. How many {t} are there now?", "+"),
    ("There are {a} {t} in the box and {b} on the table. How many {t} are there?", "+"),
    ("{p} has {a} {t} and {q} has {b}. How many do they have together?", "+"),
    ("{p} has {a} {t} and gives {b} to {q}. How many are left?", "-"),
    ("{p} had {a} {t} and lost {b}. How many {t} are left?", "-"),
    ("There are {a} {t}. {p} takes {b}. How many are left?", "-"),
    ("One box holds {a} {t}. How many {t} are in {b} boxes?", "*"),
    ("{p} buys {a} bags with {b} {t} each. How many {t} are that?", "*"),
)
_COUNTED = "apples books cards coins cups keys eggs balls stones flowers boxes birds".split()


def story(rng: random.Random, split: str) -> Turn:
    """An operation told as a small story."""
    text, sign = rng.choice(_STORIES)
    if sign == "*":
        a, b = rng.randint(2, 12), rng.randint(2, 12)
        result, steps = a * b, f"{a} * {b} = {a * b}."
    else:
        a, b = sorted((rng.randint(1, 99), rng.randint(1, 99)), reverse=True)
        result, steps = (a + b, plus_steps(a, b)) if sign == "+" else (a - b, minus_steps(a, b))
    p, q = rng.sample(w.PEOPLE, 2)
    text = text.format(p=p, q=q, a=a, b=b, t=rng.choice(_COUNTED))
    return Turn(text, f"The answer is {result}.", f"{a} {sign} {b}. {steps}", [str(result)])


def chain(rng: random.Random, split: str) -> Turn:
    """Two operations from left to right, without precedence traps: a + b - c, a - b + c."""
    a, b = rng.randint(1, 40), rng.randint(1, 40)
    first = rng.choice("+-")
    if first == "-" and a < b:
        a, b = b, a
    middle = a + b if first == "+" else a - b
    second = rng.choice("+-")
    c = rng.randint(1, 19) if second == "+" else rng.randint(0, min(19, middle))
    result = middle + c if second == "+" else middle - c
    expression = f"{a} {first} {b} {second} {c}"
    think = f"{a} {first} {b} = {middle}. {middle} {second} {c} = {result}."
    return Turn(rng.choice(_ASK).format(e=expression), f"{expression} = {result}.", think, [str(result)])


def compare(rng: random.Random, split: str) -> Turn:
    """Which of two numbers is larger or smaller, neighbours, even or odd."""
    a, b = rng.sample(range(100), 2)
    style = rng.random()
    if style < 0.25:
        good = a > b
        text = rng.choice(("Is {a} larger than {b}?", "is {a} more than {b}?", "Is {a} bigger than {b}?")).format(
            a=a, b=b
        )
        relation = "more" if good else "less"
        return Turn(text, "Yes." if good else "No.", f"{a} is {relation} than {b}.", ["Yes" if good else "No"])
    if style < 0.4:
        word = "odd" if a % 2 else "even"
        text = rng.choice(("Is {a} even or odd?", "is {a} odd or even?", "Is {a} an even number or an odd number?"))
        return Turn(text.format(a=a), f"{a} is {word}.", f"The last digit is {a % 10}.", [word])
    if style < 0.55:
        word, found = ("after", a + 1) if rng.random() < 0.6 or a == 0 else ("before", a - 1)
        text = rng.choice(("Which number comes {w} {a}?", "What comes {w} {a}?", "What is the number {w} {a}?"))
        return Turn(text.format(w=word, a=a), f"{found} comes {word} {a}.", f"It is {found}.", [str(found)])
    larger = rng.random() < 0.5
    word = rng.choice(("larger", "bigger", "greater") if larger else ("smaller", "less"))
    found = max(a, b) if larger else min(a, b)
    other = a + b - found
    relation = "more" if larger else "less"
    text = rng.choice(("Which is {w}, {a} or {b}?", "Which number is {w}: {a} or {b}?", "what is {w}, {a} or {b}"))
    return Turn(
        text.format(w=word, a=a, b=b), f"{found} is {word}.", f"{found} is {relation} than {other}.", [f"{found} is"]
    )


def any_turn(rng: random.Random, split: str) -> Turn:
    """A mixed arithmetic turn."""
    style = rng.random()
    if style < 0.82:
        return simple(rng, split)
    return chain(rng, split) if style < 0.91 else compare(rng, split)
