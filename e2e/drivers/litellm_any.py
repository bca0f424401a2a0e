"""LiteLLM, by way of either API: `provider` is openai or anthropic."""

import json
import os
import sys

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import harness
import litellm

litellm.suppress_debug_info = True


def settings(url, provider):
    base = url + "/v1" if provider == "openai" else url
    return {
        "model": f"{provider}/{harness.MODEL}",
        "api_base": base,
        "api_key": "x",
        "max_retries": 0,
        "num_retries": 0,
        "max_tokens": 4000,
    }


def counted(u):
    return harness.usage(u.prompt_tokens, u.completion_tokens, u.prompt_tokens_details.cached_tokens)


def user(prompt):
    return [{"role": "user", "content": prompt}]


def seen(answer, **more):
    message = answer.choices[0].message
    return {
        "text": message.content,
        "reasoning": getattr(message, "reasoning_content", None),
        "finish": answer.choices[0].finish_reason,
        "usage": [counted(answer.usage)],
    } | more


def chat(url, prompt, provider):
    return seen(litellm.completion(messages=user(prompt), **settings(url, provider)))


def streamed(url, provider, messages, **more):
    chunks = list(
        litellm.completion(
            messages=messages,
            stream=True,
            stream_options={"include_usage": True},
            **settings(url, provider),
            **more,
        )
    )
    return litellm.stream_chunk_builder(chunks, messages=messages), len(chunks)


def stream(url, prompt, provider):
    answer, pieces = streamed(url, provider, user(prompt))
    return seen(answer, pieces=pieces)


def tools(url, prompt, tool, provider):
    messages, calls, outputs, usages = user(prompt), [], [], []
    while True:
        answer, _ = streamed(url, provider, messages, temperature=0, tools=[{"type": "function", "function": tool}])
        usages.append(counted(answer.usage))
        message = answer.choices[0].message
        if not message.tool_calls:
            return {"text": message.content, "calls": calls, "outputs": outputs, "usage": usages}
        messages.append(message.model_dump(exclude_none=True))
        for call in message.tool_calls:
            arguments = json.loads(call.function.arguments)
            calls.append({"name": call.function.name, "arguments": arguments})
            outputs.append(harness.run_tool(call.function.name, arguments))
            messages.append({"role": "tool", "tool_call_id": call.id, "content": outputs[-1]})


def cancel(url, prompt, provider):
    chunks = litellm.completion(messages=user(prompt), stream=True, **settings(url, provider))
    for _, _ in zip(range(3), chunks):
        pass
    # It has no way to close a stream but to end the program.
    print(json.dumps({"pieces": 3}), flush=True)
    os._exit(0)


if __name__ == "__main__":
    harness.main(sys.modules[__name__])
