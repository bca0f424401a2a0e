"""OpenAI's Python SDK, chat completions."""

import json
import sys

import harness
from openai import OpenAI


def client(url):
    return OpenAI(base_url=url + "/v1", api_key="x", max_retries=0)


def counted(u):
    return harness.usage(u.prompt_tokens, u.completion_tokens, u.prompt_tokens_details.cached_tokens)


def user(prompt):
    return [{"role": "user", "content": prompt}]


def chat(url, prompt):
    answer = client(url).chat.completions.create(model=harness.MODEL, messages=user(prompt))
    message = answer.choices[0].message
    return {
        "text": message.content,
        "reasoning": message.reasoning_content,
        "finish": answer.choices[0].finish_reason,
        "usage": [counted(answer.usage)],
    }


def stream(url, prompt):
    text, reasoning, finish, used, pieces = "", "", None, None, 0
    chunks = client(url).chat.completions.create(
        model=harness.MODEL, messages=user(prompt), stream=True, stream_options={"include_usage": True}
    )
    for chunk in chunks:
        pieces += 1
        used = chunk.usage or used
        for choice in chunk.choices:
            text += choice.delta.content or ""
            reasoning += getattr(choice.delta, "reasoning_content", None) or ""
            finish = choice.finish_reason or finish
    return {"text": text, "reasoning": reasoning, "finish": finish, "usage": [counted(used)], "pieces": pieces}


def tools(url, prompt, tool):
    messages, calls, outputs, usages = user(prompt), [], [], []
    while True:
        with client(url).chat.completions.stream(
            model=harness.MODEL,
            messages=messages,
            temperature=0,
            tools=[{"type": "function", "function": tool}],
            stream_options={"include_usage": True},
        ) as events:
            for _ in events:
                pass
            answer = events.get_final_completion()
        usages.append(counted(answer.usage))
        message = answer.choices[0].message
        if not message.tool_calls:
            return {"text": message.content, "calls": calls, "outputs": outputs, "usage": usages}
        messages.append(
            {
                "role": "assistant",
                "content": message.content,
                "reasoning_content": message.reasoning_content,
                "tool_calls": [call.model_dump(include={"id", "type", "function"}) for call in message.tool_calls],
            }
        )
        for call in message.tool_calls:
            arguments = json.loads(call.function.arguments)
            calls.append({"name": call.function.name, "arguments": arguments})
            outputs.append(harness.run_tool(call.function.name, arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": outputs[-1]})


def cancel(url, prompt):
    chunks = client(url).chat.completions.create(model=harness.MODEL, messages=user(prompt), stream=True)
    for _, _ in zip(range(3), chunks):
        pass
    chunks.close()
    return {"pieces": 3}


def extras(url):
    """What only this API has."""
    from pydantic import BaseModel

    class Point(BaseModel):
        x: int
        y: int

    api = client(url)
    parsed = api.chat.completions.parse(
        model=harness.MODEL, messages=user("Where is the point?"), response_format=Point
    )
    scored = api.completions.create(
        model=harness.MODEL, prompt="Say hello to", max_tokens=1, echo=True, logprobs=1, temperature=0
    )
    logprobs = scored.choices[0].logprobs
    several = api.chat.completions.create(model=harness.MODEL, messages=user("Say hello"), n=3)
    stopped = api.chat.completions.create(model=harness.MODEL, messages=user("Say hello"), stop=["wör"])
    short = api.chat.completions.create(model=harness.MODEL, messages=user("Say hello"), max_tokens=2)
    return {
        "models": [model.id for model in api.models.list()],
        "model": api.models.retrieve("deepseek-chat").id,
        "parsed": parsed.choices[0].message.parsed.model_dump(),
        "echo": scored.choices[0].text,
        "tokens": logprobs.tokens,
        "token_logprobs": logprobs.token_logprobs,
        "several": [choice.message.content for choice in several.choices],
        "stopped": [stopped.choices[0].message.content, stopped.choices[0].finish_reason],
        "short": short.choices[0].finish_reason,
    }


if __name__ == "__main__":
    harness.main(sys.modules[__name__])
