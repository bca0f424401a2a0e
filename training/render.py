"""The official DeepSeek V4 prompt renderer: messages to one string.

Source: prompt.md sections 7 to 14. Texts that must be byte-exact are read from `crates/text/src/constants`, the same
files that the engine embeds. `test_render.py` checks every golden case.
"""

import json
from pathlib import Path

CONSTANTS = Path(__file__).resolve().parent.parent / "crates" / "text" / "src" / "constants"
BOS = "<｜begin▁of▁sentence｜>"
EOS = "<｜end▁of▁sentence｜>"
USER = "<｜User｜>"
ASSISTANT = "<｜Assistant｜>"
REMINDER = "<｜latest_reminder｜>"
THINK, UNTHINK = "<think>", "</think>"
DSML = "｜DSML｜"
TASKS = ("action", "query", "authority", "domain", "title", "read_url")


def _constant(name: str) -> str:
    return (CONSTANTS / name).read_bytes().decode("utf-8")


_TOOLS_HEAD, _TOOLS_TAIL = _constant("tools_section.txt").split("{tool_schemas}")
_FORMAT_HEAD, _FORMAT_TAIL = _constant("response_format.txt").split("{schema}")
EFFORT = {"max": _constant("effort_preview_max.txt"), "max-0731": _constant("effort_0731_max.txt")}

# Wording of the classic question form, shared with the evaluation command (cli.md section 7).
EVAL_SYSTEM = "You answer questions. Think if needed, then end with one line `Answer: X`."
EVAL_TAIL = "\n\nEnd your reply with one line: Answer: X"

_encode = json.JSONEncoder(ensure_ascii=False).encode


def dumps(value) -> str:
    """JSON in the official spelling (prompt.md section 14)."""
    return _encode(value)


def _sections(message: dict) -> str:
    """Tools and response format of a system or developer message, each after two newlines."""
    text = ""
    if message.get("tools"):
        schemas = "\n".join(dumps(tool["function"]) for tool in message["tools"])
        text += "\n\n" + _TOOLS_HEAD + schemas + _TOOLS_TAIL
    if message.get("response_format"):
        text += "\n\n" + _FORMAT_HEAD + dumps(message["response_format"]) + _FORMAT_TAIL
    return text


def _parameter(key: str, value) -> str:
    if isinstance(value, str):
        return f'<{DSML}parameter name="{key}" string="true">{value}</{DSML}parameter>'
    return f'<{DSML}parameter name="{key}" string="false">{dumps(value)}</{DSML}parameter>'


def _invoke(call: dict) -> str:
    function = call["function"]
    raw = function["arguments"]
    try:
        arguments = json.loads(raw) if isinstance(raw, str) else {"arguments": raw}
    except ValueError:
        arguments = {"arguments": raw}
    if not isinstance(arguments, dict):
        raise TypeError("arguments must be a JSON object")
    body = "\n".join(_parameter(key, value) for key, value in arguments.items())
    return f'<{DSML}invoke name="{function["name"]}">\n{body}\n</{DSML}invoke>'


def calls_text(calls: list) -> str:
    """The DSML block of one assistant turn, with its two leading newlines; empty for no calls."""
    if not calls:
        return ""
    return f"\n\n<{DSML}tool_calls>\n" + "\n".join(map(_invoke, calls)) + f"\n</{DSML}tool_calls>"


def _body(content) -> str:
    if isinstance(content, list):
        parts = []
        for part in content:
            parts.append(part.get("text", "") if part.get("type") == "text" else f"[Unsupported {part.get('type')}]")
        return "\n\n".join(parts)
    return str(content)


def _merge(messages: list) -> list:
    """Joins user texts and tool results into user turns of blocks (prompt.md section 7, step 1)."""
    merged = []
    for message in messages:
        role = message["role"]
        last = merged[-1] if merged and merged[-1]["role"] == "user" else None
        if role == "tool":
            block = {"result": _body(message.get("content", "")), "id": message.get("tool_call_id", "")}
            if last is None:
                merged.append({"role": "user", "blocks": [block]})
            else:
                last["blocks"].append(block)
        elif role == "user":
            text = message.get("content", "")
            if not isinstance(text, str):
                raise TypeError("user content must be a string")
            if last is not None and not last.get("task"):
                last["blocks"].append({"text": text})
            else:
                kept = {key: message[key] for key in ("task", "wo_eos") if key in message}
                merged.append({"role": "user", "blocks": [{"text": text}], **kept})
        else:
            merged.append(message)
    return merged


def _order_results(messages: list) -> None:
    """Puts the results of one turn in call order, in place (prompt.md section 7, step 2)."""
    index: dict = {}
    for message in messages:
        if message["role"] == "assistant" and message.get("tool_calls"):
            index = {}
            for place, call in enumerate(message["tool_calls"]):
                name = call.get("id") or call["function"].get("id")
                if name:
                    index[name] = place
        elif message["role"] == "user":
            slots = [i for i, block in enumerate(message["blocks"]) if "result" in block]
            if len(slots) > 1 and index:
                blocks = sorted((message["blocks"][i] for i in slots), key=lambda block: index.get(block["id"], 0))
                for slot, block in zip(slots, blocks, strict=True):
                    message["blocks"][slot] = block


def _last_user(messages: list) -> int:
    for i in range(len(messages) - 1, -1, -1):
        if messages[i]["role"] in ("user", "developer"):
            return i
    return -1


def _drop(messages: list) -> list:
    """Removes the reasoning of turns before the last user turn (prompt.md section 7, step 4)."""
    last = _last_user(messages)
    kept = []
    for i, message in enumerate(messages):
        if i >= last or message["role"] in ("user", "system", "latest_reminder", "direct_search_results"):
            kept.append(message)
        elif message["role"] == "assistant":
            kept.append({key: value for key, value in message.items() if key != "reasoning_content"})
    return kept


def _message_text(messages: list, i: int, thinking: bool, dropping: bool, last: int) -> str:
    message = messages[i]
    role = message["role"]
    if role == "system":
        return (message.get("content") or "") + _sections(message)
    if role == "developer":
        assert message.get("content"), "developer needs content"
        return USER + message["content"] + _sections(message)
    if role == "user":
        blocks = message["blocks"]
        return USER + "\n\n".join(
            b["text"] if "text" in b else f"<tool_result>{b['result']}</tool_result>" for b in blocks
        )
    if role == "latest_reminder":
        return REMINDER + str(message.get("content"))
    if role == "assistant":
        reasoning = ""
        after_task = i > 0 and messages[i - 1].get("task")
        if thinking and (not dropping or i > last) and not after_task:
            reasoning = (message.get("reasoning_content") or "") + UNTHINK
        end = "" if message.get("wo_eos") else EOS
        return reasoning + (message.get("content") or "") + calls_text(message.get("tool_calls")) + end
    raise NotImplementedError(f"role {role}")


def _transition(messages: list, i: int, thinking: bool, dropping: bool, last: int) -> str:
    """What stands between a message and the next one (prompt.md section 8)."""
    if i + 1 < len(messages) and messages[i + 1]["role"] not in ("assistant", "latest_reminder"):
        return ""
    message = messages[i]
    task = message.get("task")
    if task:
        assert task in TASKS, "unknown task"
        if task != "action":
            return f"<｜{task}｜>"
        return ASSISTANT + (THINK if thinking else UNTHINK) + f"<｜{task}｜>"
    if message["role"] in ("user", "developer"):
        return ASSISTANT + (THINK if thinking and (not dropping or i >= last) else UNTHINK)
    return ""


def render(messages, thinking_mode, drop_thinking=True, reasoning_effort=None, add_bos=True, context=None) -> str:
    """Renders a conversation.

    `thinking_mode` is "chat" or "thinking"; `reasoning_effort` is None, "high", "max" or "max-0731" (the later text).
    Raises AssertionError, TypeError or NotImplementedError on input that the official encoder refuses.
    """
    assert thinking_mode in ("chat", "thinking"), "unknown thinking mode"
    assert reasoning_effort in (None, "high", *EFFORT), "unknown effort"
    thinking = thinking_mode == "thinking"
    before = _merge(context or [])
    full = before + _merge(messages)
    _order_results(full)
    dropping = drop_thinking and not any(message.get("tools") for message in full)
    skip = len(before)
    if thinking and dropping:
        full = _drop(full)
        skip = len(_drop(before))
    last = _last_user(full)
    out = [BOS] if add_bos and not context else []
    if thinking and reasoning_effort in EFFORT and not context and full:
        out.append(EFFORT[reasoning_effort])
    for i in range(skip, len(full)):
        out.append(_message_text(full, i, thinking, dropping, last))
        out.append(_transition(full, i, thinking, dropping, last))
    return "".join(out)
