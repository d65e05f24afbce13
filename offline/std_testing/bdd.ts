/** Stand-in for `@std/testing/bdd`, on `node:test`, whose runner hands its cases to `Deno.test`. */
export { after as afterAll, afterEach, before as beforeAll, beforeEach, describe, it } from "node:test";
