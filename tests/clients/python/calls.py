#!/usr/bin/env python3
"""Calls with one unmodified client; prints what the client returned, one JSON object for each call.

    calls.py CLIENT < CALLS        one call a line: {"scenario": "chat", "base_url": "http://…/v1", "model": "gpt-4o-mini"}

CLIENT is a module of the folder `scenarios`, which has a function for each scenario. Each returns what the client said of
every exchange with the provider, in `exchanges`, in the words of `scenarios.exchange`; `parsed` is a structured answer.
One process makes all calls of a client: to import one takes longer than to call it. ../node/calls.mjs does the same.
"""

import importlib
import json
import sys
import traceback

from scenarios import Call


def main() -> None:
    client = importlib.import_module(f"scenarios.{sys.argv[1]}")
    for line in sys.stdin:
        wanted = json.loads(line)
        scenario = wanted["scenario"]
        try:
            seen = getattr(client, scenario)(Call(**wanted))
        except Exception:
            seen = {"error": traceback.format_exc()}
        print(json.dumps({"scenario": scenario, **seen}), flush=True)


if __name__ == "__main__":
    main()
