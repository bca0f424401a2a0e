// The AI SDK.
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateObject, generateText, isStepCount, jsonSchema, streamText, tool as declare } from "ai";
import { z } from "zod";
import { MODEL, main, runTool, usage } from "./harness.mjs";

const settings = (url) => ({
  model: createOpenAICompatible({ name: "ds4", baseURL: url + "/v1", apiKey: "x", includeUsage: true })(MODEL),
  maxRetries: 0,
});
const counted = (u) => usage(u.inputTokens, u.outputTokens, u.inputTokenDetails?.cacheReadTokens ?? u.cachedInputTokens);

async function chat({ url, prompt }) {
  const answer = await generateText({ ...settings(url), prompt });
  return { text: answer.text, reasoning: answer.reasoningText, finish: answer.finishReason, usage: [counted(answer.usage)] };
}

// Errors arrive as parts of the stream.
async function consume(answer, each = () => false) {
  let pieces = 0;
  for await (const part of answer.fullStream) {
    if (part.type === "error") throw part.error;
    pieces += 1;
    if (each(pieces)) break;
  }
  return pieces;
}

async function stream({ url, prompt }) {
  const answer = streamText({ ...settings(url), prompt });
  const pieces = await consume(answer);
  return {
    text: await answer.text,
    reasoning: await answer.reasoningText,
    finish: await answer.finishReason,
    usage: [counted(await answer.usage)],
    pieces,
  };
}

async function tools({ url, prompt, tool }) {
  const all = { calls: [], outputs: [] };
  const execute = (args) => {
    all.calls.push({ name: tool.name, arguments: args });
    all.outputs.push(runTool(tool.name, args));
    return all.outputs.at(-1);
  };
  const declared = declare({ description: tool.description, inputSchema: jsonSchema(tool.parameters), execute });
  const answer = streamText({ ...settings(url), prompt, temperature: 0, tools: { [tool.name]: declared }, stopWhen: isStepCount(4) });
  await consume(answer);
  return { text: await answer.text, ...all, usage: (await answer.steps).map((step) => counted(step.usage)) };
}

async function cancel({ url, prompt }) {
  const abort = new AbortController();
  const answer = streamText({ ...settings(url), prompt, abortSignal: abort.signal });
  const pieces = await consume(answer, (n) => n === 6);
  abort.abort();
  return { pieces };
}

// Structured output.
async function extras({ url }) {
  const schema = z.object({ x: z.number().int(), y: z.number().int() });
  const answer = await generateObject({ ...settings(url), schema, prompt: "Where is the point?" });
  return { object: answer.object };
}

await main({ chat, stream, tools, cancel, extras });
