"""Training documents: whole conversations of mixed turns, rendered with the official template.

`make(seed, max_tokens)` and `make_retrieval(seed, n_tokens)` are pure functions of their arguments.
"""

import random
import re

import pool
from render import EFFORT, render
from tasks import agent, arith, chat, clutter, dense, exam, library, memory, order, prompts, retrieval, structured, tools

# Characters in one token of the pruned vocabulary, measured on this corpus (see vocab.py); on the safe side.
CHARS_PER_TOKEN = 3.6
RETRIEVAL_CHARS = 4.25
# About one match for one token; measured within 5% on talk and calls. Schemas have more runs of marks, so fewer tokens.
_PIECES = re.compile(r" ?[A-Za-z]{1,6}|\d{1,2}|[^\sA-Za-z\d]{1,2}|\s+").findall
_SCHEMA_DENSITY = 0.8
_TOOLS_HEAD = 820
_TOOLS_TEXT = "You have access to tools. Use them when they help."
_OPENINGS = ("Hi, ", "Hello! ", "Hello, ", "Please: ", "Hi! ", "hey, ", "I have a question. ", "Question: ")
# Of a message: its control tokens.
_TURN_OVERHEAD = 9


def measure(text: str) -> float:
    """The space of a text in characters of average density: its tokens, estimated without the tokenizer."""
    return CHARS_PER_TOKEN * len(_PIECES(text))


_RUNS = re.compile(r"( ?[A-Za-z]+)|\d{1,2}|[^\sA-Za-z\d]{1,2}|\s+").findall


def measure_any(text: str) -> float:
    """The same for training's irregular words, with a look at the vocabulary; slower and closer."""
    runs = _RUNS(text)
    letters = [run for run in runs if run]
    return CHARS_PER_TOKEN * (len(runs) - len(letters) + sum(map(pool.tokens, letters)))


class Draft:
    """A conversation under construction with its remaining space in characters."""

    def __init__(self, rng: random.Random, split: str, space: float):
        self.rng, self.split, self.space = rng, split, space
        self.measure = measure_any if split == "train" else measure
        self.messages: list = []
        self.thinking = rng.random() < 0.5
        self.kept = rng.random() < 0.55
        self.space -= 110 if self.thinking and not self.kept else 0
        style = rng.random() if self.thinking else 1.0
        self.effort = "max" if style < 0.03 else "max-0731" if style < 0.045 else None
        if self.effort:
            self.space -= self.measure(EFFORT[self.effort])

    def cost(self, messages: list) -> float:
        """Space that messages take in the rendered text."""
        total = 0.0
        # Without tools the template drops earlier reasoning unless it is kept.
        reasoned = self.thinking and (self.kept or bool(self.messages and self.messages[0].get("tools")))
        for message in messages:
            total += self.measure(message.get("content") or "") + _TURN_OVERHEAD
            if message["role"] == "tool":
                total += 20
            if reasoned:
                total += self.measure(message.get("reasoning_content") or "")
            for call in message.get("tool_calls", ()):
                function = call["function"]
                total += 95 + self.measure(function["arguments"]) + self.measure(function["name"])
                total += 40 * function["arguments"].count('": ')
        return total

    def add(self, messages: list) -> bool:
        """Appends complete turns if they fit."""
        cost = self.cost(messages)
        if cost > self.space:
            return False
        self.space -= cost
        self.messages += messages
        return True

    def add_turns(self, turns: list) -> bool:
        """Appends several turns as far as they fit; true when all did."""
        return all(self.add(turn.messages()) for turn in turns)

    def system(self, text: str | None, **extra) -> None:
        """Puts a system message in front."""
        if text is not None or extra:
            message = {"role": "system", "content": text or "", **extra}
            self.messages.insert(0, message)
            self.space -= self.measure(text or "")
            if extra.get("tools"):
                schemas = "".join(str(tool["function"]) for tool in extra["tools"])
                self.space -= _TOOLS_HEAD + _SCHEMA_DENSITY * self.measure(schemas)

    def long_system(self, most: float, opening: str | None = None) -> str | None:
        """In about one conversation in six a long system text of at most that share of the space, else None."""
        characters = min(most * self.space, 9000)
        if characters < 220 or self.rng.random() > 0.17:
            return None
        size = self.rng.uniform(200, characters) if self.rng.random() < 0.6 else characters
        return prompts.long_text(self.rng, self.split, int(size), opening)

    def text(self) -> str:
        """The rendered conversation."""
        mode = "thinking" if self.thinking else "chat"
        return render(self.messages, mode, not self.kept, self.effort)


def _turn_group(rng: random.Random, split: str, persona: chat.Persona) -> list:
    """One or a few turns of an ability other than tools."""
    style = rng.random()
    if split == "train" and rng.random() < 0.35:
        # Talk gets the larger half: exams and drills train sums and lists as well.
        return [chat.any_turn(rng, split, persona)]
    if style < 0.30:
        return [arith.any_turn(rng, split)]
    if style < 0.56:
        return [order.any_turn(rng, split)]
    if style < 0.61:
        return retrieval.table(rng, split)
    if style < 0.65:
        return retrieval.told(rng, split)
    if style < 0.70:
        return chat.about_user(rng, split, persona)
    if style < 0.74:
        between = [other for _ in range(rng.choice((0, 1, 1, 2, 3))) for other in [chat.any_turn(rng, split, persona)]]
        return memory.session(rng, split, between)
    if style < 0.77:
        return library.session(rng, split, persona)
    if style < 0.82:
        return [structured.turn_plain(rng, split)]
    return [chat.any_turn(rng, split, persona)]


def mixed(draft: Draft) -> None:
    """Turns of all abilities but tools."""
    rng = draft.rng
    persona = chat.Persona(rng)
    draft.system(draft.long_system(0.6, persona.text) or persona.text)
    if rng.random() < 0.01:
        draft.add(persona.shape(chat.not_told(rng)).messages())
    elif rng.random() < 0.15:
        draft.add(persona.shape(chat.small_talk(rng, persona)).messages())
    tries = 0
    first = True
    while tries < 2 and draft.space > 150:
        turns = [persona.shape(turn) for turn in _turn_group(rng, draft.split, persona)]
        back = memory.looking_back(rng, draft.messages) if rng.random() < 0.035 else None
        if back:
            turns = [persona.shape(back)]
        if first and rng.random() < 0.06 and turns[0].kind == "contains":
            turns[0].user = rng.choice(_OPENINGS) + turns[0].user
        first = False
        if not draft.add_turns(turns):
            tries += 1


def exams(draft: Draft) -> None:
    """Questions with a last line `Answer: X`, each under the fixed system line."""
    rng = draft.rng
    if rng.random() < 0.85:
        draft.system(exam.SYSTEM)
    while draft.add(exam.any_turn(rng, draft.split).messages()):
        pass


def with_format(draft: Draft) -> None:
    """JSON answers under a response format."""
    rng = draft.rng
    first, form = structured.turn_formatted(rng, draft.split)
    text = rng.choice((None, None, "You are a helpful assistant.", "Extract the data.", "Answer in JSON."))
    draft.system(text, response_format=form)
    draft.space -= 120 + len(str(form))
    draft.add(first.messages())
    while draft.add(structured.turn_for(rng, draft.split, form).messages()):
        pass


def _tool_plan(draft: Draft, used: int) -> tuple:
    """(whether a client adds to the schemas, sentences it adds at most, number of tools, tools that would fit)."""
    rng, train = draft.rng, draft.split == "train"
    noisy = rng.random() < (0.3 if not train else 0.25 if draft.space < 2500 else 0.6)
    wordy = 0 if draft.space < 2500 else rng.randint(0, 4)
    if train and draft.space < 8000:
        wordy = wordy // 2
    room = (draft.space - used - 1230) / (270 + noisy * (130 + 120 * wordy))
    most = 6 if draft.space < 8000 else rng.randint(6, 14)
    if train and noisy and draft.space > 2500:
        # Reasoning over such schemas is the harder half.
        draft.thinking = draft.thinking or rng.random() < 0.4
        return noisy, wordy, max(1, min(rng.randint(2, 8), int(0.75 * room))), room
    return noisy, wordy, max(1, min(most, int(rng.random() * room) + 1)), room


def with_tool_drill(draft: Draft) -> None:
    """Several small schemas that resemble each other, many short requests, mostly no reasoning. Training only."""
    rng = draft.rng
    noisy = draft.space > 2500 and rng.random() < 0.25
    draft.thinking = rng.random() < (0.6 if noisy else 0.25)
    draft.effort = draft.effort if draft.thinking else None
    room = (draft.space - 1230) / (210 + 150 * noisy)
    count = max(2, min(rng.randint(3, 10), int(rng.uniform(0.3, 0.6) * room)))
    most = rng.choice((1, 2, 2, 3)) if room > 20 else rng.choice((1, 1, 2)) if room > 4 else 1
    session = tools.Session(rng, draft.split, count, most, known_share=0.0, pool_share=0.9)
    offered = clutter.dress(rng, session.openai(), 0) if noisy else session.openai()
    draft.system(rng.choice((None, "You are a helpful assistant.", _TOOLS_TEXT)), tools=offered)
    several, tries, before = rng.choice((0.1, 0.3, 0.6)), 0, []
    while tries < 4 and draft.space > 100:
        if rng.random() < 0.06:
            turn, after = session.unfit_turn().messages(), []
        else:
            turn, after = dense.drill(rng, session, several)
        if draft.add([*before, *turn]):
            before = after
        else:
            tries += 1
    while not any("tool_calls" in message for message in draft.messages):
        draft.add(dense.drill(rng, session, 0.0)[0])
        draft.space += 100


def drills(draft: Draft) -> None:
    """Lists and strings of any text with many short questions, mostly without reasoning. Training only."""
    rng = draft.rng
    draft.thinking = rng.random() < 0.25
    draft.effort = draft.effort if draft.thinking else None
    draft.system(rng.choice((None, None, "You are a helpful assistant.", "Answer as short as you can.")))
    tries = 0
    while tries < 3 and draft.space > 150:
        share = 0.4 * draft.space
        tries += not draft.add_turns(dense.group(rng, share))


def with_tools(draft: Draft) -> None:
    """A conversation with tools: mostly calls, and some turns that need none."""
    rng = draft.rng
    persona = chat.Persona(rng)
    persona.tone = ""
    text = rng.choice((persona.text, persona.text, None, _TOOLS_TEXT))
    if text != persona.text:
        persona.name, persona.greeting = None, chat.GREETINGS["English"][0]
    long = draft.long_system(0.6, text) if draft.space > 2500 else None
    noisy, wordy, count, room = _tool_plan(draft, len(long or ""))
    session = tools.Session(rng, draft.split, count, 4 if room > 2 else 3)
    offered = clutter.dress(rng, session.openai(), wordy) if noisy else session.openai()
    draft.system(long or text, tools=offered)
    if rng.random() < 0.8:
        draft.add(session.call_turn()[0])
    tries = 0
    while tries < 4 and draft.space > 150:
        if not draft.add(_tool_group(rng, draft.split, session, persona)):
            tries += 1
    if not any("tool_calls" in message for message in draft.messages):
        draft.add(session.call_turn(False)[0])


def with_agent(draft: Draft) -> None:
    """A coding agent's conversation: requests of several steps over files and commands, and some talk."""
    rng = draft.rng
    long = draft.long_system(0.45) if draft.space > 2500 else None
    if long is None and draft.space > 9000 and rng.random() < 0.5:
        long = prompts.long_text(rng, draft.split, rng.randint(800, 6000))
    worker = agent.Agent(rng, draft.split, draft.space - len(long or "") - 900)
    offered = worker.openai(0 if draft.space < 3000 else 1 if draft.space < 8000 else rng.randint(1, 4))
    text = long or rng.choice((None, "You are a helpful assistant.", "You are a coding agent.", _TOOLS_TEXT))
    draft.system(text, tools=offered)
    persona = chat.Persona(random.Random(0))
    persona.name, persona.greeting, tries = None, chat.GREETINGS["English"][0], 0
    while tries < 6 and draft.space > 250:
        if rng.random() < 0.12:
            turn = (rng.random() < 0.15 and memory.looking_back(rng, draft.messages)) or chat.any_turn(
                rng, draft.split, persona
            )
            added = draft.add(turn.messages())
        else:
            added = draft.add(worker.episode())
        tries += not added
    worker.most = 5
    while not any("tool_calls" in message for message in draft.messages):
        if draft.add(worker.episode()):
            return
        draft.space += 100


def _tool_group(rng: random.Random, split: str, session: tools.Session, persona: chat.Persona) -> list:
    style = rng.random()
    if style < 0.69:
        return session.call_turn()[0]
    if style < 0.73:
        return session.corrected_turn()
    if style < 0.77:
        return session.missing_turn()
    if style < 0.80:
        return session.two_step_turn()
    if style < 0.86:
        return session.unfit_turn().messages()
    if style < 0.875:
        return session.list_turn().messages()
    if style < 0.95 or session.calculates:
        return chat.any_turn(rng, split, persona).messages()
    return arith.simple(rng, split).messages()


def reading(draft: Draft) -> None:
    """A short text with questions about it."""
    rng = draft.rng
    persona = chat.Persona(rng)
    persona.tone = ""
    draft.system((draft.long_system(0.3, persona.text) if draft.space > 2500 else None) or persona.text)
    size, count = rng.randint(250, max(300, int(draft.space * 0.7))), rng.randint(2, 8)
    if draft.split == "train":
        size = int(draft.space * rng.uniform(0.3, 0.7))
        count = max(3, int((draft.space - size) / 130))
    while not draft.add_turns(retrieval.session(rng, draft.split, size, count)) and len(draft.messages) < 3:
        size //= 2


# Share of each kind up to its bound. Held-out conversations keep plain words and their own shares.
_PLANS = {
    "eval": ((0.30, with_tools), (0.42, with_agent), (0.52, reading), (0.60, exams), (0.65, with_format), (1.0, mixed)),
    "train": ((0.18, with_tools), (0.41, with_tool_drill), (0.51, with_agent), (0.67, drills), (0.73, reading),
              (0.78, exams), (0.82, with_format), (1.0, mixed)),
    # Where the tool section takes half of the space, fewer conversations have tools.
    "small": ((0.13, with_tools), (0.33, with_tool_drill), (0.40, with_agent), (0.60, drills), (0.66, reading),
              (0.71, exams), (0.75, with_format), (1.0, mixed)),
}  # fmt: skip


def draft(rng: random.Random, split: str, max_tokens: int) -> Draft:
    """A finished conversation of at most about `max_tokens` tokens."""
    while True:
        made = Draft(rng, split, max_tokens * CHARS_PER_TOKEN)
        style = rng.random()
        for bound, plan in _PLANS["small" if split == "train" and max_tokens < 700 else split]:
            if style < bound:
                plan(made)
                break
        if any(message["role"] == "assistant" for message in made.messages):
            return made


def make(seed: int, max_tokens: int = 512, split: str = "train") -> str:
    """One rendered document. Deterministic; complete turns only; on average a tenth shorter than asked."""
    return draft(random.Random(seed * 2 + (split == "eval")), split, max_tokens).text()


def make_retrieval(seed: int, n_tokens: int, split: str = "train") -> str:
    """A long document of about `n_tokens` tokens that ends in 20 to 60 question turns (fewer below 2000 tokens)."""
    rng = random.Random(seed * 2 + 1_000_003 + (split == "eval"))
    made = Draft(rng, split, 1e9)
    made.thinking = rng.random() < 0.35
    count = max(4, min(60, rng.randint(n_tokens // 120, n_tokens // 60)))
    turn_size = 150 if made.thinking and made.kept else 105
    density = RETRIEVAL_CHARS if split == "eval" else 4.05
    size = max(400, int(n_tokens * density - count * turn_size))
    if rng.random() < 0.3:
        made.system(chat.Persona(rng).text)
    made.add_turns(retrieval.session(rng, split, size, count))
    return made.text()
