"""Writes the held-out evaluation cases: `python training/cases.py OUTDIR`.

One gzipped JSON Lines file per suite, bytes reproducible (fixed seeds, no time stamp). Tool names, document keys and
made-up words come from the held-out part of the word lists; sums, sorting and small talk have a closed range and are
held out by their seeds only.
"""

import gzip
import json
import random
import sys
from pathlib import Path

from dialogues import RETRIEVAL_CHARS, draft
from tasks import agent, arith, chat, clutter, exam, memory, order, prompts, retrieval, structured, tools
from tasks.base import Turn

SPLIT = "eval"
COUNTS = {"chat": 100, "thinking": 200, "arithmetic": 200, "order": 150, "tools": 200, "tool-result": 200, "json": 100}
# Suite: tokens of a document, documents, questions for each.
RETRIEVAL = {"retrieval-1k": (1000, 10, 10), "retrieval-4k": (4000, 5, 20), "retrieval-16k": (16000, 5, 20)}
DIALOGUES = 60


def case(suite: str, number: int, domain: str, kind: str, thinking: bool, **rest) -> dict:
    """The common fields of one case."""
    return {"id": f"{suite}-{number:04d}", "suite": suite, "source": "ds4-mini", "domain": domain, "kind": kind,
            "thinking": thinking, **rest}  # fmt: skip


def _title(text: str) -> str:
    return text.replace("\n", " ")[:48]


def _prompt(system: str | None, before: list, last: Turn) -> list:
    """System text, earlier exchanges without reasoning, and the question."""
    messages = [{"role": "system", "content": system}] if system is not None else []
    for turn in before:
        messages.append({"role": "user", "content": turn.user})
        messages.append({"role": "assistant", "content": turn.answer})
    return [*messages, {"role": "user", "content": last.user}]


def _wanted(turn: Turn) -> list:
    return [text.rstrip(".!?") for text in turn.want or [turn.answer]]


def chat_case(rng: random.Random, number: int) -> dict:
    """Small talk, knowledge, the library, persona, and what the user told earlier."""
    persona = chat.Persona(rng)
    before: list = []
    if rng.random() < 0.3:
        *before, last = [persona.shape(turn) for turn in chat.about_user(rng, SPLIT, persona)]
        domain = "memory"
    elif rng.random() < 0.15:
        between = [chat.any_turn(rng, SPLIT, persona) for _ in range(rng.randint(0, 3))]
        *before, last = [persona.shape(turn) for turn in memory.session(rng, SPLIT, between)]
        domain = "memory"
    else:
        last = chat.any_turn(rng, SPLIT, persona)
        while last.answer in chat.JOKES:
            last = chat.any_turn(rng, SPLIT, persona)
        last, domain = persona.shape(last), "talk"
    wanted = _wanted(last)
    if persona.tone == "formal":
        wanted = ["Certainly", *wanted]
    prompt = _prompt(persona.text, before, last)
    return case(
        "chat", number, domain, "contains", number % 2 == 1, title=_title(last.user), messages=prompt, answer=wanted
    )


def thinking_case(rng: random.Random, number: int) -> dict:
    """Any ability; only the form counts: closed reasoning and an answer."""
    source = rng.choice((arith.any_turn, order.any_turn, exam.any_turn, structured.turn_plain, None, None))
    persona = chat.Persona(rng)
    turn = source(rng, SPLIT) if source else chat.any_turn(rng, SPLIT, persona)
    system = exam.SYSTEM if source is exam.any_turn else persona.text
    prompt = _prompt(system, [], turn)
    return case("thinking", number, "mixed", "thinking", True, title=_title(turn.user), messages=prompt)


def arithmetic_case(rng: random.Random, number: int) -> dict:
    """Sums as people write them, and the classic question form with a number or choices."""
    thinking = number % 2 == 1
    if number % 10 < 5:
        turn = arith.story(rng, SPLIT) if rng.random() < 0.15 else arith.simple(rng, SPLIT)
        # Two operations without reasoning are beyond so small a network: they are asked with thinking only.
        if thinking and rng.random() < 0.24:
            turn = arith.chain(rng, SPLIT)
        system = rng.choice((None, "You are a helpful assistant."))
        prompt = _prompt(system, [], turn)
        return case(
            "arithmetic",
            number,
            "chat",
            "integer",
            thinking,
            title=_title(turn.user),
            messages=prompt,
            answer=turn.want[0],
        )
    if number % 10 < 8:
        expression, result, *_ = arith.operation(rng)
        question = rng.choice(("What is {}?", "Calculate {}.", "Compute {}.")).format(expression)
        return case(
            "arithmetic", number, "integer", "integer", thinking, title=question, question=question, answer=str(result)
        )
    question, options, letter = exam.sum_choice(rng)[:3]
    return case(
        "arithmetic",
        number,
        "choice",
        "choice",
        thinking,
        title=question,
        question=question,
        choices=options,
        answer=letter,
    )


def order_case(rng: random.Random, number: int) -> dict:
    """Sorting, counting, copying, picking."""
    turn = order.any_turn(rng, SPLIT)
    answer = turn.want if turn.kind == "contains" else turn.answer
    prompt = _prompt(rng.choice((None, "You are a helpful assistant.")), [], turn)
    return case(
        "order", number, "lists", turn.kind, number % 2 == 1, title=_title(turn.user), messages=prompt, answer=answer
    )


def _expected(calls: list) -> list:
    return [{"name": c["function"]["name"], "arguments": json.loads(c["function"]["arguments"])} for c in calls]


def _session(rng: random.Random, known_share: float) -> tuple:
    """Tools and the opening messages; with `known_share` 0 no schema that training has seen."""
    session = tools.Session(rng, SPLIT, rng.randint(1, 6), known_share=known_share)
    system = rng.choice(
        (None, None, "You are a helpful assistant.", "You have access to tools. Use them when they help.")
    )
    return session, [] if system is None else [{"role": "system", "content": system}]


def _agent_messages(rng: random.Random) -> tuple:
    """A coding agent (its `expected` answer), its tools and one episode under a short or a long system text."""
    worker = agent.Agent(rng, SPLIT, rng.choice((2500, 6000)))
    offered = worker.openai(rng.randint(0, 3))
    system = rng.choice(("You are a coding agent.", prompts.long_text(rng, SPLIT, rng.randint(300, 2500))))
    return worker, offered, [{"role": "system", "content": system}, *worker.episode()]


def agent_call_case(rng: random.Random, number: int) -> dict:
    """One step of a coding agent: the calls that come next."""
    _, offered, messages = _agent_messages(rng)
    place = rng.choice([i for i, message in enumerate(messages) if "tool_calls" in message])
    return case("tools", number, "agent", "tool_calls", number % 2 == 1, title=_title(messages[1]["content"]),
                messages=messages[:place], tools=offered, answer=_expected(messages[place]["tool_calls"]))  # fmt: skip


def agent_answer_case(rng: random.Random, number: int) -> dict:
    """The last answer of a coding agent's episode."""
    worker, offered, messages = _agent_messages(rng)
    return case("tool-result", number, "agent", "contains", number % 2 == 1, title=_title(messages[1]["content"]),
                messages=messages[:-1], tools=offered, answer=worker.expected)  # fmt: skip


def _dressed(rng: random.Random, number: int, offered: list) -> list:
    """In one case of eight the tools with the additions of real clients."""
    return clutter.dress(rng, offered, rng.randint(0, 3)) if number % 8 == 5 else offered


def tools_case(rng: random.Random, number: int) -> dict:
    """A request for calls, or (one in eight) one that needs none."""
    if number % 8 == 3:
        return agent_call_case(rng, number)
    session, messages = _session(rng, 0.0)
    offered = _dressed(rng, number, session.openai())
    if rng.random() < 0.2:
        messages += session.call_turn()[0]
    if number % 8 == 7:
        persona = chat.Persona(random.Random(0))
        turn = session.unfit_turn() if rng.random() < 0.5 else chat.any_turn(rng, SPLIT, persona)
        messages.append({"role": "user", "content": turn.user})
        expected, domain = [], "none"
    else:
        asked, answered = session.call_turn(False)[0]
        messages.append(asked)
        expected = _expected(answered["tool_calls"])
        domain = "client" if number % 8 == 5 else "parallel" if len(expected) > 1 else "single"
    return case("tools", number, domain, "tool_calls", number % 2 == 1, title=_title(messages[-1]["content"]),
                messages=messages, tools=offered, answer=expected)  # fmt: skip


def result_case(rng: random.Random, number: int) -> dict:
    """A request, its calls and their results; the answer must hold the values."""
    if number % 8 == 3:
        return agent_answer_case(rng, number)
    session, messages = _session(rng, 0.2)
    offered = _dressed(rng, number, session.openai())
    session.follow = False
    turn, wanted = session.call_turn()
    messages += turn[:-1]
    domain = "client" if number % 8 == 5 else "answer"
    return case("tool-result", number, domain, "contains", number % 2 == 1, title=_title(turn[0]["content"]),
                messages=messages, tools=offered, answer=[text.rstrip(".") for text in wanted])  # fmt: skip


def json_case(rng: random.Random, number: int) -> dict:
    """Facts in a sentence, the schema as response format or in the text."""
    form = None
    if number % 2:
        turn, form = structured.turn_formatted(rng, SPLIT)
    else:
        turn = structured.turn_plain(rng, SPLIT)
    prompt = _prompt(rng.choice((None, "You are a helpful assistant.")), [], turn)
    extra = {"response_format": form} if form else {}
    return case("json", number, "schema", "json", number % 4 > 1, title=_title(turn.user), messages=prompt,
                answer=json.loads(turn.answer), **extra)  # fmt: skip


def retrieval_case(rng: random.Random, suite: str, number: int, tokens: int, questions: int) -> dict:
    """One document with questions about different facts spread over its whole length."""
    text, facts = retrieval.document(rng, SPLIT, int(tokens * RETRIEVAL_CHARS))
    rows = list(facts.rows)
    step = len(rows) / questions
    chosen = [rows[int(i * step)] for i in range(questions)]
    items = []
    for row in chosen:
        turn = facts.question(row)
        items.append({"question": turn.user, "answer": turn.want[0]})
    return {"id": f"{suite}-{number:02d}", "suite": suite, "source": "ds4-mini",
            "domain": "retrieval", "kind": "contains",
            "title": f"{len(rows)} facts", "thinking": False, "document": text, "items": items}  # fmt: skip


_MAKERS = {
    "chat": chat_case, "thinking": thinking_case, "arithmetic": arithmetic_case, "order": order_case,
    "tools": tools_case, "tool-result": result_case, "json": json_case,
}  # fmt: skip


def suites() -> dict:
    """All cases by suite."""
    made = {}
    for suite, count in COUNTS.items():
        made[suite] = [_MAKERS[suite](random.Random(f"eval {suite} {i}"), i) for i in range(count)]
    for suite, (tokens, documents, questions) in RETRIEVAL.items():
        seeds = [random.Random(f"eval {suite} {i}") for i in range(documents)]
        made[suite] = [retrieval_case(rng, suite, i, tokens, questions) for i, rng in enumerate(seeds)]
    return made


def dialogues() -> list:
    """Held-out rendered conversations for perplexity."""
    rows = []
    for i in range(DIALOGUES):
        made = draft(random.Random(f"eval dialogue {i}"), SPLIT, 512 if i % 3 else 800)
        rows.append({"id": f"dialogue-{i:02d}", "text": made.text()})
    return rows


def write(path: Path, rows: list) -> None:
    """Gzipped JSON Lines without name and time in the header."""
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode("utf-8"), 9, mtime=0))
    print(f"{path.name}: {len(rows)} rows, {path.stat().st_size} bytes")


def main() -> int:
    """Writes all files into the folder named on the command line."""
    if len(sys.argv) != 2:
        print("usage: python training/cases.py OUTDIR", file=sys.stderr)
        return 2
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for suite, rows in suites().items():
        write(folder / f"{suite}.jsonl.gz", rows)
    write(folder / "dialogues.jsonl.gz", dialogues())
    return 0


if __name__ == "__main__":
    sys.exit(main())
