// What all clients ask, and the words for what they were answered: those of ../../python/scenarios/__init__.py.

import { require } from "../packages.mjs";

const { z } = require("zod");

export const PROMPT = "Name three colours.";
export const MAX_TOKENS = 16;
export const INPUTS = ["red", "green"];
export const FILE = ["colours.jsonl", Buffer.from('{"name": "red"}\n{"name": "green"}\n')];
const sound = [Buffer.from("RIFF\x24\0\0\0WAVEfmt "), Buffer.from([...Array(24).keys()]), Buffer.from("data\0\0\0\0")];
export const SOUND = ["colours.wav", Buffer.concat(sound)];
export const Person = z.object({ name: z.string(), age: z.number() });
export const City = z.object({ city: z.string() });
export const WEATHER = { name: "get_weather", description: "The weather of a city." };

// How a client's own settings are named alike in all.
export const settings = ({ scenario, base_url, api_key = "sk-of-the-client" }) => ({
  baseURL: base_url,
  apiKey: api_key,
  headers: { "x-thread-id": scenario },
});

export function exchange({ text, tool_calls, ...more } = {}) {
  return { text: text || undefined, tool_calls: tool_calls?.length ? tool_calls : undefined, ...more };
}

export const only = (said, more) => ({ exchanges: [said], ...more });
