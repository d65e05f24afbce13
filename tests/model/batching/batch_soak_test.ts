/** Twenty seconds of what `deno task bench soak` does for ten minutes. */
import { assert, assertGreater } from "@std/assert";
import { tinyRecursiveConfig, tinyTokenRouter } from "../../reference/tiny_model.ts";
import { soak } from "../../support/batch_soak.ts";
import { gpuTest } from "../../support/device.ts";
import { roundedModel, uploadModel } from "../../support/gpu_model.ts";

/** More than the process may grow by in the last three quarters. */
const GROWTH_BYTES = 32 * 2 ** 20;

gpuTest("twenty seconds of random arrivals and cancels leave nothing behind", async (device) => {
  const config = tinyRecursiveConfig({ sharing: "middle_cycle", numRecursions: 3, blockLayers: 2 }, {
    router: tinyTokenRouter(),
    maxPositionEmbeddings: 64,
  });
  const model = uploadModel(device, roundedModel(config, { seed: 26 }));
  const report = await soak(device, model, { seconds: 20, seed: 20261124 });
  for (const name of ["waves", "texts", "cancelled", "repeated"] as const) {
    assertGreater(report[name], 3, name);
  }
  const grown = report.bytesAfter - report.bytesBefore;
  assert(grown < GROWTH_BYTES, `the process grew by ${grown} bytes`);
});
