export * from "./addon.js";
export { loadAddon } from "./load.js";
