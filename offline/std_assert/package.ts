export { equal } from "./equal.ts";
export * from "./comparisons.ts";
export * from "./throws.ts";
