// LangChain for JavaScript.
import { HumanMessage, ToolMessage } from "@langchain/core/messages";
import { ChatOpenAI } from "@langchain/openai";
import { MODEL, main, runTool, usage } from "./harness.mjs";

const model = (url, more = {}) =>
  new ChatOpenAI({ model: MODEL, apiKey: "x", maxRetries: 0, streamUsage: true, configuration: { baseURL: url + "/v1" }, ...more });

function counted({ usage_metadata: u }) {
  return usage(u.input_tokens, u.output_tokens, u.input_token_details?.cache_read);
}

function seen(message) {
  const finish = message.response_metadata.finish_reason;
  return { text: message.text, reasoning: null, finish, usage: [counted(message)] };
}

async function chat({ url, prompt }) {
  return seen(await model(url).invoke(prompt));
}

async function whole(chunks) {
  let [message, pieces] = [undefined, 0];
  for await (const chunk of await chunks) [message, pieces] = [message ? message.concat(chunk) : chunk, pieces + 1];
  return [message, pieces];
}

async function stream({ url, prompt }) {
  const [message, pieces] = await whole(model(url).stream(prompt));
  return { ...seen(message), pieces };
}

async function tools({ url, prompt, tool }) {
  const bound = model(url, { temperature: 0 }).bindTools([{ type: "function", function: tool }]);
  const messages = [new HumanMessage(prompt)];
  const all = { calls: [], outputs: [], usage: [] };
  for (;;) {
    const [message] = await whole(bound.stream(messages));
    all.usage.push(counted(message));
    if (!message.tool_calls?.length) return { text: message.text, ...all };
    messages.push(message);
    for (const call of message.tool_calls) {
      all.calls.push({ name: call.name, arguments: call.args });
      all.outputs.push(runTool(call.name, call.args));
      messages.push(new ToolMessage({ content: all.outputs.at(-1), tool_call_id: call.id }));
    }
  }
}

async function cancel({ url, prompt }) {
  const abort = new AbortController();
  let pieces = 0;
  for await (const _ of await model(url).stream(prompt, { signal: abort.signal })) if (++pieces === 3) break;
  abort.abort();
  return { pieces };
}

await main({ chat, stream, tools, cancel });
