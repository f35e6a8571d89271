// Vercel's `ai`, with its provider for OpenAI.

import { require } from "../packages.mjs";
import { City, INPUTS, MAX_TOKENS, PROMPT, Person, SOUND, WEATHER, exchange, only, settings } from "./shared.mjs";

const ai = require("ai");
const { createOpenAI } = require("@ai-sdk/openai");

const weather = ai.tool({
  description: WEATHER.description,
  inputSchema: City,
  execute: async ({ city }) => `sunny in ${city}`,
});
const withTools = { tools: { [WEATHER.name]: weather }, stopWhen: ai.stepCountIs(2) };

export const chat = (call) => generated(call, "chat");
export const chat_stream = (call) => streamed(call, "chat");
export const tools = (call) => generated(call, "chat", withTools);
export const tools_stream = (call) => streamed(call, "chat", withTools);
export const responses = (call) => generated(call, "responses");
export const responses_stream = (call) => streamed(call, "responses");

export async function parse(call) {
  const result = await ai.generateText({ ...asked(call, "chat"), output: ai.Output.object({ schema: Person }) });
  return { exchanges: result.steps.map(ofStep), parsed: result.output };
}

export async function embeddings(call) {
  const model = createOpenAI(settings(call)).embedding(call.model);
  const { embeddings, usage } = await ai.embedMany({ model, values: INPUTS, maxRetries: 0 });
  return only(exchange({ usage: { input: usage.tokens } }), { vectors: embeddings });
}

export async function transcription(call) {
  const model = createOpenAI(settings(call)).transcription(call.model);
  const { text } = await ai.experimental_transcribe({ model, audio: SOUND[1], maxRetries: 0 });
  return only(exchange({ text }));
}

export async function speech(call) {
  const model = createOpenAI(settings(call)).speech(call.model);
  const { audio } = await ai.experimental_generateSpeech({ model, text: PROMPT, maxRetries: 0 });
  return only(exchange(), { bytes: audio.uint8Array.byteLength });
}

function asked(call, kind) {
  const model = createOpenAI(settings(call))[kind](call.model);
  return { model, prompt: PROMPT, maxOutputTokens: MAX_TOKENS, temperature: 0, maxRetries: 0 };
}

async function generated(call, kind, more) {
  const result = await ai.generateText({ ...asked(call, kind), ...more });
  return { exchanges: result.steps.map(ofStep) };
}

async function streamed(call, kind, more) {
  const result = ai.streamText({ ...asked(call, kind), ...more });
  await result.consumeStream();
  return { exchanges: (await result.steps).map(ofStep) };
}

function ofStep({ text, toolCalls, rawFinishReason, response, usage }) {
  const tool_calls = toolCalls.map((call) => ({ id: call.toolCallId, name: call.toolName, arguments: call.input }));
  const { inputTokens: input, outputTokens: output, totalTokens: total } = usage;
  const cached = usage.inputTokenDetails?.cacheReadTokens || undefined;
  const reasoning = usage.outputTokenDetails?.reasoningTokens || undefined;
  const said = { text, tool_calls, finish_reason: rawFinishReason, id: response.id, model: response.modelId };
  return exchange({ ...said, usage: { input, output, total, cached, reasoning } });
}
