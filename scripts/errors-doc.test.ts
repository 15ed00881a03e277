/** Compares docs/errors.md with what the catalogue gives now. */
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { ERROR_CATALOGUE, ERROR_CLASSES } from "../packages/pccl-core/src/base/errors.js";
import { ERRORS_DOC, renderErrorsDoc } from "./generate-errors-doc.mjs";
import { ROOT } from "./lib/command.mjs";

it("docs/errors.md is what `npm run bootstrap && node scripts/generate-errors-doc.mjs` writes", () => {
  expect(readFileSync(join(ROOT, ERRORS_DOC), "utf8")).toBe(renderErrorsDoc(ERROR_CATALOGUE, ERROR_CLASSES));
});
