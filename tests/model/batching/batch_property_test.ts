/** 100 random workloads on random models: whatever comes together, every text is the one that it is alone. */
import { assert, assertEquals, assertGreater } from "@std/assert";
import type { ModelConfig } from "../../../model/config.ts";
import { randomModel, tinyRecursiveConfig, tinyTokenRouter } from "../../reference/tiny_model.ts";
import { decodeAlone, randomWorkload, runWorkload } from "../../support/batch_workload.ts";
import { gpuTest } from "../../support/device.ts";
import { uploadModel } from "../../support/gpu_model.ts";
import { createRandom, type Random } from "../../support/random.ts";
import { randomConfig } from "../../support/random_config.ts";

const SEED = 20261124;
const COUNT = 100;
const PART = 10;

/** Four steps for every token, of which two and a half are expected. */
function deepConfig(random: Random): ModelConfig {
  const sharing = random.uniform() < 0.5 ? "cycle" : "middle_cycle";
  return tinyRecursiveConfig({ sharing, numRecursions: 4, blockLayers: 1 }, { router: tinyTokenRouter() });
}

for (let start = 0; start < COUNT; start += PART) {
  const outgrows = start + PART === COUNT;
  const kind = outgrows ? ", which outgrow their memory," : "";
  gpuTest(
    `random workloads ${start + 1} to ${start + PART}${kind} of seed ${SEED} change no text`,
    async (device) => {
      let restarts = 0;
      for (let i = start; i < start + PART; i++) {
        const random = createRandom(SEED + i);
        const drawn = outgrows ? deepConfig(random) : randomConfig(random);
        const config = { ...drawn, maxPositionEmbeddings: 64 };
        const model = uploadModel(device, randomModel(config, { random }));
        const workload = randomWorkload(random, config, { outgrows });
        const name = `workload ${i + 1}`;
        const { texts, statistics } = await runWorkload(device, model, workload);
        const requests = workload.arrivals.map(({ request }) => request);
        const alone = await decodeAlone(device, model, { ...workload, requests });
        texts.forEach(({ tokens, reason }, r) => {
          const wanted = alone[r]!;
          const kept = reason === "cancelled" ? wanted.tokens.slice(0, tokens.length) : wanted.tokens;
          const parts = (list: typeof tokens): string =>
            list.map(({ id, depth }) => `${id}:${depth}`).join(" ");
          assertEquals(parts(tokens), parts(kept), `${name}, request ${r + 1}`);
          if (reason === "cancelled") assert(workload.arrivals[r]!.cancelAfter !== null);
          else assertEquals(reason, wanted.reason, `${name}, request ${r + 1}`);
        });
        restarts += statistics.restarts;
        assertEquals([statistics.pages, statistics.live, statistics.waiting], [0, 0, 0], name);
        device.destroyBuffer(model.weights.flat.buffer);
      }
      if (outgrows) assertGreater(restarts, 0);
    },
  );
}
