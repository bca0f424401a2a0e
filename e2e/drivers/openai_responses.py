"""OpenAI's Python SDK, responses."""

import json
import sys

import harness
from openai_chat import client


def counted(u):
    return harness.usage(u.input_tokens, u.output_tokens, u.input_tokens_details.cached_tokens)


def settings():
    return {"model": harness.MODEL, "reasoning": {"summary": "auto"}}


def summary(answer):
    return "".join(part.text for item in answer.output if item.type == "reasoning" for part in item.summary)


def seen(answer, **more):
    return {"text": answer.output_text, "reasoning": summary(answer), "finish": answer.status, "usage": [counted(answer.usage)]} | more


def chat(url, prompt):
    return seen(client(url).responses.create(input=prompt, **settings()))


def stream(url, prompt):
    pieces, text, numbers = 0, "", []
    with client(url).responses.stream(input=prompt, **settings()) as events:
        for event in events:
            pieces += 1
            numbers.append(event.sequence_number)
            if event.type == "response.output_text.delta":
                text += event.delta
        answer = events.get_final_response()
    assert numbers == list(range(len(numbers))), numbers
    assert text == answer.output_text, text
    return seen(answer, pieces=pieces)


def tools(url, prompt, tool):
    items, calls, outputs, usages = [{"role": "user", "content": prompt}], [], [], []
    while True:
        with client(url).responses.stream(
            input=items,
            temperature=0,
            tools=[{"type": "function", "strict": False, **tool}],
            store=False,
            include=["reasoning.encrypted_content"],
            **settings(),
        ) as events:
            for _ in events:
                pass
            answer = events.get_final_response()
        usages.append(counted(answer.usage))
        asked = [item for item in answer.output if item.type == "function_call"]
        if not asked:
            return {"text": answer.output_text, "calls": calls, "outputs": outputs, "usage": usages}
        items += [item.model_dump(exclude_none=True, exclude={"parsed_arguments"}) for item in answer.output]
        for call in asked:
            arguments = json.loads(call.arguments)
            calls.append({"name": call.name, "arguments": arguments})
            outputs.append(harness.run_tool(call.name, arguments))
            items.append({"type": "function_call_output", "call_id": call.call_id, "output": outputs[-1]})


def cancel(url, prompt):
    events = client(url).responses.create(input=prompt, stream=True, **settings())
    for _, _ in zip(range(6), events):
        pass
    events.close()
    return {"pieces": 6}


def extras(url):
    """Conversations that the server keeps."""
    api = client(url)
    first = api.responses.create(input="Say hello", **settings())
    second = api.responses.create(input="Say hello again", previous_response_id=first.id, **settings())
    kept = api.responses.retrieve(first.id)
    asked = api.responses.input_items.list(first.id)
    api.responses.delete(first.id)
    try:
        api.responses.retrieve(first.id)
        gone = None
    except Exception as error:
        gone = harness.describe(error)
    return {
        "first": seen(first),
        "second": seen(second),
        "kept": kept.output_text,
        "asked": [part.text for item in asked for part in item.content],
        "gone": gone,
        "tokens": api.responses.input_tokens.count(model=harness.MODEL, input="Say hello").input_tokens,
    }


if __name__ == "__main__":
    harness.main(sys.modules[__name__])
