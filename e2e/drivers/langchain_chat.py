"""LangChain for Python."""

import sys

import harness
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI


def model(url, **more):
    return ChatOpenAI(base_url=url + "/v1", model=harness.MODEL, api_key="x", max_retries=0, stream_usage=True, **more)


def counted(message):
    u = message.usage_metadata
    return harness.usage(u["input_tokens"], u["output_tokens"], u["input_token_details"]["cache_read"])


def seen(message, **more):
    finish = message.response_metadata["finish_reason"]
    return {"text": message.text, "reasoning": None, "finish": finish, "usage": [counted(message)]} | more


def chat(url, prompt):
    return seen(model(url).invoke(prompt))


def whole(chunks):
    message, pieces = None, 0
    for chunk in chunks:
        message, pieces = chunk if message is None else message + chunk, pieces + 1
    return message, pieces


def stream(url, prompt):
    message, pieces = whole(model(url).stream(prompt))
    return seen(message, pieces=pieces)


def tools(url, prompt, tool):
    bound = model(url, temperature=0).bind_tools([{"type": "function", "function": tool}])
    messages, calls, outputs, usages = [HumanMessage(prompt)], [], [], []
    while True:
        message, _ = whole(bound.stream(messages))
        usages.append(counted(message))
        if not message.tool_calls:
            return {"text": message.text, "calls": calls, "outputs": outputs, "usage": usages}
        messages.append(message)
        for call in message.tool_calls:
            calls.append({"name": call["name"], "arguments": call["args"]})
            outputs.append(harness.run_tool(call["name"], call["args"]))
            messages.append(ToolMessage(outputs[-1], tool_call_id=call["id"]))


def cancel(url, prompt):
    chunks = model(url).stream(prompt)
    for _, _ in zip(range(3), chunks):
        pass
    chunks.close()
    return {"pieces": 3}


def extras(url):
    """Structured output, by schema and by a forced tool."""
    schema = {
        "title": "Point",
        "description": "A point.",
        "type": "object",
        "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}},
        "required": ["x", "y"],
        "additionalProperties": False,
    }
    ask = lambda method: model(url).with_structured_output(schema, method=method).invoke("Where is the point?")
    return {method: ask(method) for method in ["json_schema", "function_calling"]}


if __name__ == "__main__":
    harness.main(sys.modules[__name__])
