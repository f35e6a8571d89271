#!/usr/bin/env node
// Calls with one unmodified client; prints what the client returned, one JSON object for each call.
//
//     node calls.mjs CLIENT < CALLS
//
// Calls, scenarios and printed keys are those of ../python/calls.py; CLIENT is a module of the folder `scenarios`.

import { createInterface } from "node:readline";

// `ai` tells of what it cannot do in the middle of the output.
globalThis.AI_SDK_LOG_WARNINGS = false;

const client = await import(`./scenarios/${process.argv[2]}.mjs`);
for await (const line of createInterface({ input: process.stdin })) {
  const call = JSON.parse(line);
  let seen;
  try {
    seen = await client[call.scenario](call);
  } catch (error) {
    seen = { error: error.stack };
  }
  console.log(JSON.stringify({ scenario: call.scenario, ...seen }));
}
