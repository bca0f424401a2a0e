"""What a generator returns: one turn of a conversation."""

from dataclasses import dataclass, field


@dataclass
class Turn:
    """One exchange.

    `think` is the reasoning shown in thinking mode. `want` are strings that a right answer must hold (the evaluation's
    check); it is empty when only the form can be checked. `kind` names the grader.
    """

    user: str
    answer: str
    think: str = ""
    want: list = field(default_factory=list)
    kind: str = "contains"

    def messages(self) -> list:
        """The exchange as OpenAI-style messages."""
        return [
            {"role": "user", "content": self.user},
            {"role": "assistant", "content": self.answer, "reasoning_content": self.think},
        ]


def upper_first(text: str) -> str:
    """The text with its first letter in upper case, the rest unchanged."""
    return text[:1].upper() + text[1:]


def listing(items: list, last: str = "and") -> str:
    """ "a, b and c"."""
    items = [str(item) for item in items]
    if len(items) < 2:
        return "".join(items)
    return ", ".join(items[:-1]) + f" {last} " + items[-1]


def casual(rng, text: str) -> str:
    """Sometimes the hasty spelling of the same text: small first letter, no mark at the end, or another mark."""
    style = rng.random()
    if style < 0.75 or len(text) < 3:
        return text
    if style < 0.85:
        return text.rstrip(".?!")
    if style < 0.93 and text[1].islower() and text[:2] != "I ":
        return text[0].lower() + text[1:]
    bare = text.rstrip(".?!")
    return bare + "?" if text[-1] == "?" else bare + rng.choice(("!", ".", "..", " please"))
