/** Prompts of 4,096 tokens, decoding after them, and memory that grows with the length alone. */
import { assertEquals } from "@std/assert";
import { planAllocator } from "../../gpu/memory.ts";
import { ConfigError, type ModelConfig } from "../../model/config.ts";
import { Decoder } from "../../model/decoder.ts";
import { forwardCausal } from "../../model/forward.ts";
import { allocateCache } from "../../model/kv_cache.ts";
import { GREEDY } from "../../model/sampling.ts";
import { allocateWorkspace } from "../../model/workspace.ts";
import { randomIds, tinyConfig, tinyRecursiveConfig, tinyTokenRouter } from "../reference/tiny_model.ts";
import { assertClose } from "../support/close.ts";
import { gpuTest } from "../support/device.ts";
import { roundedModel, uploadModel } from "../support/gpu_model.ts";
import { createRandom } from "../support/random.ts";

const PROMPT = 4096;
const STEPS = 4;
const positions = { maxPositionEmbeddings: 16384 };
const middleCycle = { sharing: "middle_cycle", numRecursions: 2, blockLayers: 1 } as const;
const configs: Record<string, ModelConfig> = {
  "vanilla": tinyConfig(positions),
  "token choice": tinyRecursiveConfig(middleCycle, { ...positions, router: tinyTokenRouter() }),
};

for (const [name, config] of Object.entries(configs)) {
  gpuTest(
    `a prompt of 4,096 tokens and steps after it give the logits of the whole text: ${name}`,
    async (device) => {
      const model = uploadModel(device, roundedModel(config, { seed: 70 }));
      const ids = Array.from(randomIds(config, { random: createRandom(71), count: PROMPT + STEPS }));
      const { logits: [whole] } = await forwardCausal(device, {
        model,
        input: { ids: [ids], targets: null },
      });
      using decoder = new Decoder(device, { ...model, slots: 1, capacity: PROMPT + STEPS });
      await decoder.start(0, { prompt: ids.slice(0, PROMPT), sampling: { ...GREEDY, seed: 0 } });
      const found = [Array.from(await decoder.logits("prompt"))];
      for (let i = PROMPT; i < PROMPT + STEPS; i++) {
        decoder.force(0, ids[i]!);
        await decoder.step([0]);
        found.push(Array.from(await decoder.logits(0)));
      }
      // The tolerance of the contract (checkpoint layout): f32 sums in another order.
      for (const [i, row] of found.entries()) {
        assertClose(row, whole![PROMPT - 1 + i]!, { relative: 2e-4, label: `logits at ${PROMPT - 1 + i}` });
      }
    },
  );
}

/** Bytes of a cache and of a pass over whole texts. */
function bytesFor(config: ModelConfig, tokens: number): { cache: number; pass: number } {
  const [cache, pass] = [planAllocator(), planAllocator()];
  allocateCache(cache, { config, slots: 1, capacity: tokens });
  const shape = {
    lengths: [tokens],
    routing: "causal",
    backward: false,
    head: "losses",
    logitRows: 64,
  } as const;
  allocateWorkspace(pass, { config, shape });
  return { cache: cache.memory.live, pass: pass.memory.live };
}

Deno.test("memory of a cache and of a pass grows with the length, not with its square", () => {
  for (const config of Object.values(configs)) {
    const [short, middle, long] = [2048, 4096, 8192].map((tokens) => bytesFor(config, tokens));
    for (const kind of ["cache", "pass"] as const) {
      assertEquals(long![kind] - middle![kind], 2 * (middle![kind] - short![kind]), kind);
    }
  }
});

gpuTest("a text past the model's positions is refused before anything is taken", (device) => {
  const config = tinyConfig({ maxPositionEmbeddings: 4096 });
  const model = uploadModel(device, roundedModel(config, { seed: 70 }));
  const before = device.memory.live;
  let message = "";
  try {
    new Decoder(device, { ...model, slots: 1, capacity: 4097 });
  } catch (error) {
    if (error instanceof ConfigError) message = error.message;
  }
  assertEquals([message.includes("4097 tokens"), message.includes("4096 positions")], [true, true], message);
  assertEquals(device.memory.live, before);
  return Promise.resolve();
});
