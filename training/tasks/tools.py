"""Conversations with tools: requests, DSML calls, results, answers, and turns that need no tool."""

import json
import random

import words as w

from . import known, requests, results, schemas
from .base import Turn, listing

_dumps = json.JSONEncoder(ensure_ascii=False).encode


class Session:
    """A conversation's tools and its call counter. Every method returns a list of messages."""

    def __init__(self, rng: random.Random, split: str, count: int, most: int = 4, known_share: float = 0.3,
                 pool_share: float = 0.67):  # fmt: skip
        self.rng, self.split = rng, split
        self.calls = 0
        self.follow = True
        self.known: list = []
        self.tools: list = []
        self.taken: set = set()
        if rng.random() < known_share:
            self.known = known.choose(rng, min(count, rng.randint(1, 3)))
            for entry in self.known:
                self.taken.update(entry.keys)
        self.names = {entry.name for entry in self.known}
        # In training most requests have tools with names and words of the large pool.
        self.family = schemas.Family(rng) if split == "train" and rng.random() < pool_share else None
        # Share of requests for several calls, and of a tool that is called twice among these.
        self.several, self.twice = (0.35, 0.35) if split == "train" else (0.2, 0.0)
        for _ in range(count - len(self.known)):
            tool = schemas.tool(rng, split, self.taken, most, self.family)
            if tool.name not in self.names:
                self.names.add(tool.name)
                self.tools.append(tool)
        self.shown = [t.openai() for t in self.tools] + [k.openai() for k in self.known]
        rng.shuffle(self.shown)
        self.calculates = any(key == ("count", "expression") for entry in self.known for key in entry.keys)

    def openai(self) -> list:
        """All tools as a request carries them, in their random order."""
        return self.shown

    def call(self, name: str, arguments: dict) -> dict:
        """A tool call with a fresh id."""
        self.calls += 1
        function = {"name": name, "arguments": _dumps(arguments)}
        return {"id": f"call_{self.calls}", "type": "function", "function": function}

    # One request: what the user says, the calls and the reasoning.

    def _one(self, ask: bool, again: schemas.Tool | None = None) -> dict:
        """One wanted call, of the tool `again` if given. `ask`: the user may also ask for a field of the result."""
        rng = self.rng
        if again is None and self.known and (not self.tools or rng.random() < len(self.known) / (len(self.known) + len(self.tools))):
            entry = rng.choice(self.known)
            text, arguments, result = entry.ask(rng, self.split)
            return {"text": text, "name": entry.name, "arguments": arguments, "asked": None, "result": result,
                    "opening": f"The user wants {entry.purpose}."}  # fmt: skip
        tool = again or rng.choice(self.tools)
        arguments = schemas.arguments(rng, tool, self.split)
        asked = rng.choice(results.FIELDS) if ask and rng.random() < 0.45 else None
        if asked:
            text = requests.question_for(rng, tool, arguments, asked)
        else:
            text = requests.request(rng, tool, arguments)
        opening = f"The user wants to {tool.intents[0]} the {tool.thing}."
        return {"text": text, "name": tool.name, "arguments": arguments, "asked": asked, "result": None,
                "opening": opening}  # fmt: skip

    @staticmethod
    def _reason(want: dict) -> str:
        opening, name, arguments = want["opening"], want["name"], want["arguments"]
        if not arguments:
            return f'{opening} The tool is "{name}". It needs no values.'
        # quoted as in the schema, so that names are copied token by token
        return f'{opening} The tool is "{name}" with {_dumps(arguments)}.'

    def request(self) -> tuple:
        """User text, reasoning and wanted calls (one to three)."""
        rng = self.rng
        style = rng.random()
        if style < self.several and (len(self.tools) + len(self.known) > 1 or style < self.several / 2):
            return self._parallel()
        want = self._one(True)
        return want["text"], self._reason(want), [want]

    def plain_request(self, several: float) -> tuple:
        """Like `request`, but for no field of the result; with probability `several` for more than one call."""
        if self.rng.random() < several:
            return self._parallel()
        want = self._one(False)
        return want["text"], self._reason(want), [want]

    def _parallel(self) -> tuple:
        rng = self.rng
        count = 2 if rng.random() < 0.75 else 3
        again = rng.choice(self.tools) if self.twice and self.tools and rng.random() < self.twice else None
        wants = [self._one(False, again if i < 2 else None) for i in range(count)]
        texts = [want["text"].rstrip(".?") for want in wants]
        if rng.random() < 0.5:
            text = ". ".join(texts) + "."
        else:
            text = (
                texts[0]
                + "".join(rng.choice((". Also ", ". Then ", " and then ")) + _lower(t) for t in texts[1:])
                + "."
            )
        reason = f"There are {w.NUMBER_WORDS[len(wants)]} calls. " + " ".join(map(self._reason, wants))
        return text, reason, wants

    # Whole turns.

    def call_turn(self, answered: bool = True) -> tuple:
        """Request, calls, results and answer; returns (messages, what the answer must hold)."""
        text, reason, wants = self.request()
        calls = [self.call(want["name"], want["arguments"]) for want in wants]
        messages = [
            {"role": "user", "content": text},
            {"role": "assistant", "content": "", "reasoning_content": reason, "tool_calls": calls},
        ]
        if not answered:
            return messages, []
        closing, shown = self._close(calls, wants)
        messages += closing
        asked = wants[0]["asked"]
        if self.follow and len(shown) == 1 and len(shown[0].fields) > 1 and asked and self.rng.random() < 0.5:
            messages += self._follow_up(shown[0], asked).messages()
        return messages, [item for result in shown for item in result.want]

    def _result(self, want: dict) -> results.Result:
        rng = self.rng
        if want["result"] and rng.random() < 0.93:
            return want["result"]
        if want["asked"] or want["result"]:
            if rng.random() < 0.07 or want["result"]:
                return results.error_result(rng, _dumps)
            return results.fields_result(rng, self.split, _dumps, want["asked"])
        if rng.random() < 0.35:
            return results.fields_result(rng, self.split, _dumps, None)
        return results.plain_result(rng, self.split, _dumps)

    def _close(self, calls: list, wants: list) -> tuple:
        """Result messages and the answer, and the results themselves."""
        shown = [self._result(want) for want in wants]
        messages = [
            {"role": "tool", "tool_call_id": call["id"], "content": result.body}
            for call, result in zip(calls, shown, strict=True)
        ]
        answer = " ".join(result.answer for result in shown)
        thought = _result_thought(shown, wants[0]["asked"])
        messages.append({"role": "assistant", "content": answer, "reasoning_content": thought})
        return messages, shown

    def _follow_up(self, result: results.Result, asked: str) -> Turn:
        other = self.rng.choice([name for name in result.fields if name != asked])
        text = self.rng.choice(("And the {}?", "What is the {}?", "And what is the {}?", "tell me the {} too")).format(
            other
        )
        return Turn(
            text, f"The {other} is {result.fields[other]}.", f"The result has the {other}: {result.fields[other]}."
        )

    def missing_turn(self) -> list:
        """A request without a required value: the model asks, the user tells, the call follows."""
        rng = self.rng
        able = [t for t in self.tools if t.params]
        if not able:
            return self.call_turn()[0]
        tool = rng.choice(able)
        full = {p.name: schemas.value(rng, p, self.split) for p in tool.params if p.required}
        lacking = rng.choice([p for p in tool.params if p.required])
        told = {key: item for key, item in full.items() if key != lacking.name}
        label = lacking.labels[0]
        want = {"opening": f"The user wants to {tool.intents[0]} the {tool.thing}.", "name": tool.name,
                "arguments": full, "asked": None, "result": None}  # fmt: skip
        given = requests.spoken(rng, lacking, full[lacking.name])
        calls = [self.call(tool.name, full)]
        ask = Turn(
            requests.request(rng, tool, told, 0.05),
            f"Please tell me the {label}.",
            f'{want["opening"]} The tool is "{tool.name}". The {label} is missing.',
        )
        reply = rng.choice(("{}", "{}", "The {l} is {}.", "{l}: {}", "Use {}.")).format(given, l=label)
        return (
            ask.messages()
            + [
                {"role": "user", "content": reply},
                {"role": "assistant", "content": "", "reasoning_content": self._reason(want), "tool_calls": calls},
            ]
            + self._close(calls, [want])[0]
        )

    def corrected_turn(self) -> list:
        """A finished call, then the user corrects one value: the call again with the new value."""
        rng = self.rng
        ends = [(t, p) for t in self.tools for p in t.params if p.required and p.kind in ("string", "integer", "enum")]
        if not ends:
            return self.call_turn()[0]
        tool, param = rng.choice(ends)
        given = schemas.arguments(rng, tool, self.split)
        fixed = schemas.value(rng, param, self.split)
        if fixed == given[param.name]:
            return self.call_turn()[0]
        old, label = requests.spoken(rng, param, given[param.name]), param.labels[0]
        new = requests.spoken(rng, param, fixed)
        texts = ["No, the {l} should be {n}.", "no, use {n} as the {l}", "Sorry, I meant {l} {n}.", "Change the {l} to {n}.",
                 "Again, but with {l} {n}.", "Wrong {l}. Take {n}."]  # fmt: skip
        if len(given) == 1:
            texts += ["No, use {n} instead.", "no, {n}", "I meant {n}.", "Now the same with {n}.", "Sorry, not {o} but {n}."]
        messages = []
        for text, values in ((requests.request(rng, tool, given), given),
                             (rng.choice(texts).format(l=label, n=new, o=old), {**given, param.name: fixed})):  # fmt: skip
            want = {"opening": f"The user wants to {tool.intents[0]} the {tool.thing}.", "name": tool.name,
                    "arguments": values, "asked": None, "result": None}  # fmt: skip
            if messages:
                want["opening"] = f"The user corrects the {label}."
            calls = [self.call(tool.name, values)]
            step = {"role": "assistant", "content": "", "reasoning_content": self._reason(want), "tool_calls": calls}
            messages += [{"role": "user", "content": text}, step, *self._close(calls, [want])[0]]
        return messages

    def two_step_turn(self) -> list:
        """A second call that takes a value from the first one's result, in one request."""
        rng = self.rng
        ends = [(t, p) for t in self.tools for p in t.params if p.required and p.kind == "string"]
        ends = [
            (t, p)
            for t, p in ends
            if (self.family or p.labels[0] in w.PARAM_STRINGS) and sum(q.required for q in t.params) == 1
        ]
        if not ends:
            return self.call_turn()[0]
        second, param = rng.choice(ends)
        first = rng.choice(self.tools)
        label, found = param.labels[0], schemas.text_value(rng, param.flavour, self.split)
        arguments = schemas.arguments(rng, first, self.split)
        doing = f"{rng.choice(second.intents)} the {second.thing}"
        start = requests.request(rng, first, arguments).rstrip(".?")
        text = rng.choice((
            "{s}. Then {d} with the {l} from the result.", "{s}, then {d} with that {l}.",
            "First {f}. Take the {l} from the result and {d}.",
        )).format(s=start, f=_lower(start), d=doing, l=label)  # fmt: skip
        steps = []
        for tool, given in ((first, arguments), (second, {param.name: found})):
            want = {"opening": f"The user wants to {tool.intents[0]} the {tool.thing}.", "name": tool.name,
                    "arguments": given, "asked": None, "result": None}  # fmt: skip
            call = self.call(tool.name, given)
            reason = self._reason(want)
            if steps:
                reason = f"The {label} is {found}. {reason}"
            steps.append(
                (want, call, {"role": "assistant", "content": "", "reasoning_content": reason, "tool_calls": [call]})
            )
        shown = {label: found}
        if rng.random() < 0.5:
            shown["count"] = rng.randint(0, 99)
        middle = {"role": "tool", "tool_call_id": steps[0][1]["id"], "content": _dumps(shown)}
        user = {"role": "user", "content": text}
        return [user, steps[0][2], middle, steps[1][2], *self._close([steps[1][1]], [steps[1][0]])[0]]

    def unfit_turn(self) -> Turn:
        """A request that no tool covers."""
        rng = self.rng
        things = {t.thing for t in self.tools}
        while True:
            tool = schemas.tool(rng, self.split, set(self.taken), 2, self.family)
            if tool.thing not in things and tool.name not in self.names:
                break
        text = requests.request(rng, tool, schemas.arguments(rng, tool, self.split), 0.0)
        doing = f"{tool.intents[0]} the {tool.thing}"
        return Turn(
            text, "No tool fits this request.", f"The user wants to {doing}. No tool does that.", ["no tool fits"]
        )

    def list_turn(self) -> Turn:
        """The user asks which tools there are."""
        names = [entry["function"]["name"] for entry in self.shown]
        text = self.rng.choice(
            ("Which tools do you have?", "What tools can you use?", "list your tools", "which tools?")
        )
        return Turn(text, f"I have {listing(names)}.", "I list the tool names.", names)


def _lower(text: str) -> str:
    return text[:1].lower() + text[1:] if text[1:2].islower() else text


def _result_thought(shown: list, asked: str | None) -> str:
    if asked and shown[0].fields:
        return f"The result has the {asked}: {shown[0].fields[asked]}."
    if any(result.answer.startswith("The tool reported") for result in shown):
        return "The result is an error. I report it."
    return "The results are here. I tell them." if len(shown) > 1 else "The result is here. I tell it."
