/**
 * Least-loaded expert parallelism for mixture-of-experts layers. Nothing of it is here yet but its version:
 * README.md says what is planned.
 */
export { VERSION } from "./version.js";
