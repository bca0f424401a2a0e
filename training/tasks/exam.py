"""Questions in the form of the evaluation command: choices or a number, and a last line `Answer: X`."""

import random

from render import EVAL_SYSTEM, EVAL_TAIL

from . import arith, knowledge
from .base import Turn

SYSTEM = EVAL_SYSTEM


def _options(rng: random.Random, right: str, wrong: list) -> tuple:
    """Two to four choices in random order and the letter of the right one."""
    options = rng.sample(wrong, min(len(wrong), rng.choice((1, 2, 3, 3, 3)))) + [right]
    rng.shuffle(options)
    return options, "ABCD"[options.index(right)]


def sum_choice(rng: random.Random) -> tuple:
    """(question, choices, letter, right choice, steps) of an arithmetic question."""
    expression, result, steps, *_ = arith.operation(rng)
    near = [str(result + d) for d in (-10, -3, -2, -1, 1, 2, 3, 10, 11)]
    options, letter = _options(rng, str(result), near)
    return f"What is {expression}?", options, letter, str(result), steps


def choice(rng: random.Random, split: str) -> Turn:
    """A question with two to four lettered choices."""
    if rng.random() < 0.35:
        question, options, letter, right, think = sum_choice(rng)
    else:
        question, think, right, wrong = knowledge.fact(rng)
        options, letter = _options(rng, right, sorted(set(wrong) - {right}))
        question = question[0].upper() + question[1:]
    text = question + "".join(f"\n{'ABCD'[i]}) {option}" for i, option in enumerate(options)) + EVAL_TAIL
    return Turn(text, f"{right}\nAnswer: {letter}", f"{think} {right} is {letter}.", [letter], "choice")


def integer(rng: random.Random, split: str) -> Turn:
    """An arithmetic question whose last line is the number."""
    if rng.random() < 0.25:
        told = arith.story(rng, split)
        return Turn(told.user + EVAL_TAIL, f"Answer: {told.want[0]}", told.think, told.want, "integer")
    expression, result, steps, *_ = arith.operation(rng)
    text = rng.choice(("What is {}?", "Calculate {}.", "Compute {}.", "{} = ?")).format(expression)
    return Turn(text + EVAL_TAIL, f"Answer: {result}", steps, [str(result)], "integer")


def any_turn(rng: random.Random, split: str) -> Turn:
    """Either form."""
    return choice(rng, split) if rng.random() < 0.5 else integer(rng, split)
