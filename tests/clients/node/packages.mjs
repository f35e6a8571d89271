// The packages live in .deps, not beside this file: MAGICAPI_DEPS names another place.

import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

const { MAGICAPI_DEPS } = process.env;
const deps = MAGICAPI_DEPS ? pathToFileURL(`${MAGICAPI_DEPS}/`) : new URL("../../../.deps/", import.meta.url);

export const require = createRequire(new URL("node/package.json", deps));
