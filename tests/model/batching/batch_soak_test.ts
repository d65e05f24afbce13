/** Twenty seconds of what `deno task bench soak` does for ten minutes. */
import { assert, assertEquals, assertGreater } from "@std/assert";
import { fromFileUrl } from "@std/path";
import type { SoakReport } from "../../support/batch_soak.ts";
import { run, scriptCommand } from "../../support/program.ts";

/** More than the process may grow by in the last three quarters. */
const GROWTH_BYTES = 32 * 2 ** 20;

Deno.test("twenty seconds of random arrivals and cancels leave nothing behind", async () => {
  const script = fromFileUrl(new URL("../../support/batch_soak_process.ts", import.meta.url));
  // Tests beside it have the memory of the same process.
  const { code, stdout, stderr } = await run(scriptCommand(script, ["20", "20261124"]));
  assertEquals(code, 0, stderr);
  const report: SoakReport = JSON.parse(stdout);
  for (const name of ["waves", "texts", "cancelled", "repeated"] as const) {
    assertGreater(report[name], 3, name);
  }
  const grown = report.bytesAfter - report.bytesBefore;
  assert(grown < GROWTH_BYTES, `the process grew by ${grown} bytes`);
});
