"""Anthropic's Python SDK."""

import sys

import harness
from anthropic import Anthropic


def client(url):
    return Anthropic(base_url=url, api_key="x", max_retries=0)


def counted(u):
    read, written = u.cache_read_input_tokens or 0, u.cache_creation_input_tokens or 0
    return harness.usage(u.input_tokens + read + written, u.output_tokens, read)


def settings(prompt):
    return {"model": harness.MODEL, "max_tokens": 4000, "messages": [{"role": "user", "content": prompt}]}


def joined(answer, kind):
    return "".join(getattr(block, kind) for block in answer.content if block.type == kind)


def seen(answer, **more):
    return {
        "text": joined(answer, "text"),
        "reasoning": joined(answer, "thinking"),
        "finish": answer.stop_reason,
        "usage": [counted(answer.usage)],
    } | more


def chat(url, prompt):
    return seen(client(url).messages.create(**settings(prompt)))


def stream(url, prompt):
    pieces, text = 0, ""
    with client(url).messages.stream(**settings(prompt)) as events:
        for event in events:
            pieces += 1
            text += event.text if event.type == "text" else ""
        answer = events.get_final_message()
    assert text == joined(answer, "text"), text
    return seen(answer, pieces=pieces)


def tools(url, prompt, tool):
    request, calls, outputs, usages = settings(prompt), [], [], []
    declared = {"name": tool["name"], "description": tool["description"], "input_schema": tool["parameters"]}
    while True:
        with client(url).messages.stream(tools=[declared], extra_body={"temperature": 0}, **request) as events:
            answer = events.get_final_message()
        usages.append(counted(answer.usage))
        asked = [block for block in answer.content if block.type == "tool_use"]
        if not asked:
            return {"text": joined(answer, "text"), "calls": calls, "outputs": outputs, "usage": usages}
        request["messages"].append({"role": "assistant", "content": answer.content})
        results = []
        for call in asked:
            calls.append({"name": call.name, "arguments": call.input})
            outputs.append(harness.run_tool(call.name, call.input))
            results.append({"type": "tool_result", "tool_use_id": call.id, "content": outputs[-1]})
        request["messages"].append({"role": "user", "content": results})


def cancel(url, prompt):
    with client(url).messages.stream(**settings(prompt)) as events:
        for _, _ in zip(range(6), events):
            pass
    return {"pieces": 6}


def extras(url):
    """What only this API has."""
    api = client(url)
    request = settings("Say hello")
    answer = api.messages.create(**request)
    stopped = api.messages.create(stop_sequences=["wör"], **request)
    short = api.messages.create(**(request | {"max_tokens": 2}))
    del request["max_tokens"]
    return {
        "counted": api.messages.count_tokens(**request).input_tokens,
        "prompt": counted(answer.usage)["input"],
        "models": [model.id for model in api.models.list()],
        "stopped": [joined(stopped, "text"), stopped.stop_reason, stopped.stop_sequence],
        "short": short.stop_reason,
    }


if __name__ == "__main__":
    harness.main(sys.modules[__name__])
