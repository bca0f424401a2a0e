// OpenAI's Node SDK, chat completions.
import OpenAI from "openai";
import { MODEL, main, runTool, usage } from "./harness.mjs";

const client = (url) => new OpenAI({ baseURL: url + "/v1", apiKey: "x", maxRetries: 0 });
const counted = (u) => usage(u.prompt_tokens, u.completion_tokens, u.prompt_tokens_details.cached_tokens);
const user = (prompt) => [{ role: "user", content: prompt }];

async function chat({ url, prompt }) {
  const answer = await client(url).chat.completions.create({ model: MODEL, messages: user(prompt) });
  const { message, finish_reason } = answer.choices[0];
  return { text: message.content, reasoning: message.reasoning_content, finish: finish_reason, usage: [counted(answer.usage)] };
}

async function stream({ url, prompt }) {
  const seen = { text: "", reasoning: "", pieces: 0 };
  const chunks = await client(url).chat.completions.create({
    model: MODEL,
    messages: user(prompt),
    stream: true,
    stream_options: { include_usage: true },
  });
  for await (const chunk of chunks) {
    seen.pieces += 1;
    if (chunk.usage) seen.usage = [counted(chunk.usage)];
    for (const { delta, finish_reason } of chunk.choices) {
      seen.text += delta.content ?? "";
      seen.reasoning += delta.reasoning_content ?? "";
      seen.finish = finish_reason ?? seen.finish;
    }
  }
  return seen;
}

async function tools({ url, prompt, tool }) {
  const messages = user(prompt);
  const seen = { calls: [], outputs: [], usage: [] };
  for (;;) {
    const events = client(url).chat.completions.stream({
      model: MODEL,
      messages,
      temperature: 0,
      tools: [{ type: "function", function: tool }],
      stream_options: { include_usage: true },
    });
    const answer = await events.finalChatCompletion();
    seen.usage.push(counted(answer.usage));
    const { message } = answer.choices[0];
    if (!message.tool_calls?.length) return { text: message.content, ...seen };
    messages.push(message);
    for (const call of message.tool_calls) {
      const args = JSON.parse(call.function.arguments);
      seen.calls.push({ name: call.function.name, arguments: args });
      seen.outputs.push(runTool(call.function.name, args));
      messages.push({ role: "tool", tool_call_id: call.id, content: seen.outputs.at(-1) });
    }
  }
}

async function cancel({ url, prompt }) {
  const chunks = await client(url).chat.completions.create({ model: MODEL, messages: user(prompt), stream: true });
  let pieces = 0;
  for await (const _ of chunks) if (++pieces === 3) break;
  chunks.controller.abort();
  return { pieces };
}

await main({ chat, stream, tools, cancel });
