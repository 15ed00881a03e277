/** Data that lies beside the repository on some machines only. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

const root = fileURLToPath(new URL("../../../../shared/golden/", import.meta.url));

/** Whether the reference's data is there; tests that need it skip, with this as their reason, where it isn't. */
export const hasGolden: boolean = existsSync(root);
export const WHY_SKIPPED = "needs ../shared/golden beside the repository";

export function goldenPath(file: string): string {
  return `${root}${file}`;
}

export function goldenFiles(folder: string, suffix: string): string[] {
  if (!hasGolden) return [];
  return readdirSync(goldenPath(folder)).filter((file) => file.endsWith(suffix));
}

export function readGoldenJson<T>(file: string): T {
  return JSON.parse(readFileSync(goldenPath(file), "utf8")) as T;
}
