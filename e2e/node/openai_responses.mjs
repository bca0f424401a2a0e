// OpenAI's Node SDK, responses.
import OpenAI from "openai";
import { MODEL, main, runTool, usage } from "./harness.mjs";

const client = (url) => new OpenAI({ baseURL: url + "/v1", apiKey: "x", maxRetries: 0 });
const counted = (u) => usage(u.input_tokens, u.output_tokens, u.input_tokens_details.cached_tokens);
const settings = { model: MODEL, reasoning: { summary: "auto" } };

function seen(answer) {
  const reasoning = answer.output.filter((item) => item.type === "reasoning").flatMap((item) => item.summary);
  return {
    text: answer.output_text,
    reasoning: reasoning.map((part) => part.text).join(""),
    finish: answer.status,
    usage: [counted(answer.usage)],
  };
}

async function chat({ url, prompt }) {
  return seen(await client(url).responses.create({ ...settings, input: prompt }));
}

async function stream({ url, prompt }) {
  const events = client(url).responses.stream({ ...settings, input: prompt });
  let [pieces, text] = [0, ""];
  for await (const event of events) {
    if (event.sequence_number !== pieces) throw new Error(`event ${pieces} has number ${event.sequence_number}`);
    pieces += 1;
    if (event.type === "response.output_text.delta") text += event.delta;
  }
  const answer = await events.finalResponse();
  if (text !== answer.output_text) throw new Error(`deltas make ${text}`);
  return { ...seen(answer), pieces };
}

async function tools({ url, prompt, tool }) {
  const input = [{ role: "user", content: prompt }];
  const all = { calls: [], outputs: [], usage: [] };
  for (;;) {
    const events = client(url).responses.stream({
      ...settings,
      input,
      temperature: 0,
      tools: [{ type: "function", strict: false, ...tool }],
      store: false,
      include: ["reasoning.encrypted_content"],
    });
    const answer = await events.finalResponse();
    all.usage.push(counted(answer.usage));
    const asked = answer.output.filter((item) => item.type === "function_call");
    if (!asked.length) return { text: answer.output_text, ...all };
    input.push(...answer.output.map(({ parsed_arguments, ...item }) => item));
    for (const call of asked) {
      const args = JSON.parse(call.arguments);
      all.calls.push({ name: call.name, arguments: args });
      all.outputs.push(runTool(call.name, args));
      input.push({ type: "function_call_output", call_id: call.call_id, output: all.outputs.at(-1) });
    }
  }
}

async function cancel({ url, prompt }) {
  const events = await client(url).responses.create({ ...settings, input: prompt, stream: true });
  let pieces = 0;
  for await (const _ of events) if (++pieces === 6) break;
  events.controller.abort();
  return { pieces };
}

await main({ chat, stream, tools, cancel });
