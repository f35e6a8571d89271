#!/usr/bin/env node
// One call with the unmodified official `openai` SDK; prints one JSON object with what the SDK saw.
//
//     node client.mjs SCENARIO BASE_URL        BASE_URL ends in /v1; the environment's BASE_URL does as well
//
// Scenarios, settings and printed keys are those of the Python client: see ../python/client.py.

import { require } from "./packages.mjs";

const { OpenAI, APIError } = require("openai");
const { VERSION } = require("openai/version");

const env = process.env;
const model = env.MODEL ?? "smollm2";
const prompt = env.PROMPT ?? "Name three colours.";
const maxTokens = Number(env.MAX_TOKENS ?? 16);
const fixed = { temperature: 0, seed: 7 };
const chatRequest = { model, messages: [{ role: "user", content: prompt }], max_tokens: maxTokens, ...fixed };
const responseRequest = { model, input: prompt, max_output_tokens: maxTokens, temperature: 0 };
const CHUNKS_BEFORE_CUT = 2;
const RESPONSE_ENDS = ["response.completed", "response.incomplete", "response.failed"];

const scenarios = {
  async chat(client, seen) {
    const completion = await answered(client.chat.completions.create(chatRequest), seen);
    const [choice] = completion.choices;
    saw(seen, completion, { text: choice.message.content, finish_reason: choice.finish_reason });
  },

  async chat_stream(client, seen, limit = Infinity) {
    const options = env.INCLUDE_USAGE === "0" ? {} : { stream_options: { include_usage: true } };
    const stream = await answered(client.chat.completions.create({ ...chatRequest, ...options, stream: true }), seen);
    Object.assign(seen, { chunks: [], chunk_count: 0, text: "", finish_reason: null, usage: null });
    for await (const chunk of stream) {
      seen.chunks.push(chunk);
      seen.chunk_count += 1;
      const { id, object, created } = chunk;
      Object.assign(seen, { id, object, model: chunk.model, created, usage: chunk.usage ?? seen.usage });
      for (const choice of chunk.choices) {
        seen.text += choice.delta.content ?? "";
        seen.finish_reason = choice.finish_reason ?? seen.finish_reason;
      }
      if (seen.chunk_count === limit) {
        stream.controller.abort();
        return;
      }
    }
  },

  async cut(client, seen) {
    await scenarios.chat_stream(client, seen, CHUNKS_BEFORE_CUT);
  },

  async completions(client, seen) {
    const call = client.completions.create({ model, prompt, max_tokens: maxTokens, ...fixed });
    const completion = await answered(call, seen);
    const [choice] = completion.choices;
    saw(seen, completion, { text: choice.text, finish_reason: choice.finish_reason });
  },

  async embeddings(client, seen) {
    const call = client.embeddings.create({ model, input: prompt, encoding_format: "float" });
    const result = await answered(call, seen);
    saw(seen, result, { vectors: result.data.length, dimensions: result.data[0].embedding.length });
  },

  async models(client, seen) {
    const page = await answered(client.models.list(), seen);
    Object.assign(seen, { object: page.object, models: page.data.map((entry) => entry.id) });
  },

  async responses(client, seen) {
    const response = await answered(client.responses.create(responseRequest), seen);
    saw(seen, response, { text: response.output_text, finish_reason: response.status });
  },

  async responses_stream(client, seen) {
    const stream = await answered(client.responses.create({ ...responseRequest, stream: true }), seen);
    Object.assign(seen, { chunks: [], chunk_count: 0, text: "", finish_reason: null, usage: null });
    for await (const event of stream) {
      seen.chunks.push(event);
      seen.chunk_count += 1;
      if (event.type === "response.output_text.delta") seen.text += event.delta;
      if (RESPONSE_ENDS.includes(event.type)) saw(seen, event.response, { finish_reason: event.response.status });
    }
  },

  // Messages that are no list: every server refuses that with a 400.
  async error(client, seen) {
    await answered(client.chat.completions.create({ ...chatRequest, messages: "none" }), seen);
  },
};

// Notes the answer's head while the SDK parses the body.
async function answered(call, seen) {
  const { data, response } = await call.withResponse();
  const headers = Object.fromEntries(response.headers);
  Object.assign(seen, { status: response.status, headers, request_id: headers["x-request-id"] ?? null });
  return data;
}

function saw(seen, answer, more) {
  for (const key of ["id", "object", "model", "created"]) seen[key] = answer[key] ?? null;
  Object.assign(seen, { usage: answer.usage ?? null, body: answer }, more);
}

function describeError(error) {
  const described = { class: error.constructor.name, message: error.message };
  if (!(error instanceof APIError)) return described;
  const { type = null, code = null, param = null, status = null, error: body = null } = error;
  const headers = Object.fromEntries(error.headers ?? []);
  return { ...described, type, code, param, body, status, headers, request_id: headers["x-request-id"] ?? null };
}

async function main([scenario, baseURL = env.BASE_URL]) {
  if (!(scenario in scenarios) || !baseURL) {
    console.error(`usage: client.mjs ${Object.keys(scenarios).join("|")} BASE_URL`);
    process.exit(1);
  }
  const client = new OpenAI({
    baseURL,
    apiKey: env.API_KEY ?? "sk-test",
    defaultHeaders: JSON.parse(env.EXTRA_HEADERS ?? "{}"),
    maxRetries: 0,
    timeout: 60_000,
  });
  const seen = { sdk: `openai-node ${VERSION}`, scenario };
  try {
    await scenarios[scenario](client, seen);
  } catch (error) {
    seen.error = describeError(error);
  }
  console.log(JSON.stringify(seen));
}

await main(process.argv.slice(2));
