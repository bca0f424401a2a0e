// Anthropic's Node SDK.
import Anthropic from "@anthropic-ai/sdk";
import { MODEL, main, runTool, usage } from "./harness.mjs";

const client = (url) => new Anthropic({ baseURL: url, apiKey: "x", maxRetries: 0 });
const settings = (prompt) => ({ model: MODEL, max_tokens: 4000, messages: [{ role: "user", content: prompt }] });
const joined = (answer, kind) => answer.content.map((block) => (block.type === kind ? block[kind] : "")).join("");

function counted(u) {
  const [read, written] = [u.cache_read_input_tokens ?? 0, u.cache_creation_input_tokens ?? 0];
  return usage(u.input_tokens + read + written, u.output_tokens, read);
}

function seen(answer) {
  const [text, reasoning] = [joined(answer, "text"), joined(answer, "thinking")];
  return { text, reasoning, finish: answer.stop_reason, usage: [counted(answer.usage)] };
}

async function chat({ url, prompt }) {
  return seen(await client(url).messages.create(settings(prompt)));
}

async function stream({ url, prompt }) {
  const events = client(url).messages.stream(settings(prompt));
  let pieces = 0;
  for await (const _ of events) pieces += 1;
  return { ...seen(await events.finalMessage()), pieces };
}

async function tools({ url, prompt, tool }) {
  const request = settings(prompt);
  const all = { calls: [], outputs: [], usage: [] };
  const declared = { name: tool.name, description: tool.description, input_schema: tool.parameters };
  for (;;) {
    const answer = await client(url).messages.stream({ ...request, temperature: 0, tools: [declared] }).finalMessage();
    all.usage.push(counted(answer.usage));
    const asked = answer.content.filter((block) => block.type === "tool_use");
    if (!asked.length) return { text: joined(answer, "text"), ...all };
    const results = asked.map((call) => {
      all.calls.push({ name: call.name, arguments: call.input });
      all.outputs.push(runTool(call.name, call.input));
      return { type: "tool_result", tool_use_id: call.id, content: all.outputs.at(-1) };
    });
    request.messages.push({ role: "assistant", content: answer.content }, { role: "user", content: results });
  }
}

async function cancel({ url, prompt }) {
  const events = client(url).messages.stream(settings(prompt));
  let pieces = 0;
  for await (const _ of events) if (++pieces === 6) break;
  events.abort();
  return { pieces };
}

await main({ chat, stream, tools, cancel });
