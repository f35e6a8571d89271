// `openai` itself; chat, streams and errors on the level of HTTP are in ../client.mjs.

import { require } from "../packages.mjs";
import { City, FILE, INPUTS, MAX_TOKENS, PROMPT, Person, SOUND, WEATHER, exchange, only, settings } from "./shared.mjs";

const { OpenAI, toFile } = require("openai");
const { zodFunction, zodResponseFormat } = require("openai/helpers/zod");

const withTools = { tools: [zodFunction({ ...WEATHER, parameters: City })] };

export const chat = async (call) => only(ofCompletion(await client(call).chat.completions.create(asked(call))));
export const chat_stream = (call) => streamed(call);
export const tools = async (call) =>
  only(ofCompletion(await client(call).chat.completions.create({ ...asked(call), ...withTools })));
export const tools_stream = (call) => streamed(call, withTools);

export async function parse(call) {
  const request = { ...asked(call), response_format: zodResponseFormat(Person, "Person") };
  const completion = await client(call).chat.completions.parse(request);
  return only(ofCompletion(completion), { parsed: completion.choices[0].message.parsed });
}

export const responses = async (call) => only(ofResponse(await client(call).responses.create(response(call))));
export const responses_stream = async (call) =>
  only(ofResponse(await client(call).responses.stream(response(call)).finalResponse()));

export async function embeddings(call) {
  const { model, usage, data } = await client(call).embeddings.create({ model: call.model, input: INPUTS });
  const said = exchange({ model, usage: { input: usage.prompt_tokens, total: usage.total_tokens } });
  return only(said, { vectors: data.map((item) => item.embedding) });
}

export async function transcription(call) {
  const file = await toFile(SOUND[1], SOUND[0]);
  const { text, usage } = await client(call).audio.transcriptions.create({ model: call.model, file });
  return only(exchange({ text, usage: counts(usage) }));
}

export async function speech(call) {
  const answer = await client(call).audio.speech.create({ model: call.model, input: PROMPT, voice: "alloy" });
  return only(exchange(), { bytes: (await answer.arrayBuffer()).byteLength });
}

export async function files(call) {
  const file = await toFile(FILE[1], FILE[0]);
  const { id, filename: name, bytes, purpose } = await client(call).files.create({ file, purpose: "batch" });
  return only(exchange({ id }), { file: { name, bytes, purpose } });
}

function client(call) {
  const { headers: defaultHeaders, ...rest } = settings(call);
  return new OpenAI({ ...rest, defaultHeaders, maxRetries: 0, timeout: 60_000 });
}

const messages = [{ role: "user", content: PROMPT }];
const asked = ({ model }) => ({ model, messages, max_tokens: MAX_TOKENS, temperature: 0 });
const response = ({ model }) => ({ model, input: PROMPT, max_output_tokens: MAX_TOKENS });

// By the SDK's own assembly of a stream.
async function streamed(call, more) {
  const request = { ...asked(call), stream_options: { include_usage: true }, ...more };
  return only(ofCompletion(await client(call).chat.completions.stream(request).finalChatCompletion()));
}

function ofCompletion({ id, model, choices: [{ message, finish_reason }], usage }) {
  const tool_calls = (message.tool_calls ?? []).map(({ id, function: { name, arguments: text } }) => ({
    id,
    name,
    arguments: JSON.parse(text),
  }));
  const said = { text: message.content, tool_calls, finish_reason, id, model };
  return exchange({ ...said, usage: chatCounts(usage) });
}

const chatCounts = (usage) => ({
  input: usage.prompt_tokens,
  output: usage.completion_tokens,
  total: usage.total_tokens,
  cached: usage.prompt_tokens_details?.cached_tokens || undefined,
  reasoning: usage.completion_tokens_details?.reasoning_tokens || undefined,
});
const counts = (usage) => ({ input: usage.input_tokens, output: usage.output_tokens, total: usage.total_tokens });

const ofResponse = ({ id, model, status, output_text, usage }) =>
  exchange({ text: output_text, finish_reason: status, id, model, usage: counts(usage) });
