/** The memory of training on long sequences: what is foretold is what is taken, and it grows with their length alone. */
import { assert, assertEquals, assertLess } from "@std/assert";
import { openDevice } from "../../gpu/device.ts";
import type { ModelConfig } from "../../model/config.ts";
import { DEFAULT_OPTIMIZER } from "../../model/optimizer.ts";
import { presetConfig } from "../../model/presets.ts";
import { allocateTraining, type StepShape, trainingMemory, TrainingPrograms } from "../../model/training.ts";
import { initializeWeights } from "../../model/weights.ts";
import { tinyRouter } from "../reference/tiny_model.ts";

const TOKENS = 2048;

function shapeOf(sequenceLength: number): StepShape {
  return { batchSize: 1, sequenceLength, gradientAccumulation: 1 };
}

function longer(preset: string, changes: Partial<ModelConfig> = {}): ModelConfig {
  return { ...presetConfig(preset), maxPositionEmbeddings: 2 * TOKENS, ...changes };
}

const models: Record<string, ModelConfig> = {
  "vanilla": longer("tiny-vanilla"),
  "recursive": longer("tiny-rec3"),
  // Of 1,024 tokens and of twice as many these keep whole numbers.
  "expert choice": longer("tiny-mor3", { router: tinyRouter({ capacities: [1, 0.5, 0.25] }) }),
  "expert choice, shared keys": longer("tiny-mor3", {
    router: tinyRouter({ capacities: [1, 0.5, 0.25] }),
    kvCache: "shared",
  }),
  "token choice": longer("tiny-tok3"),
};

/** Ways of keeping what gradients need, by what titles say of them. */
const keepings = {
  "": { recompute: false, activationDtype: "f32" },
  ", recomputed": { recompute: true, activationDtype: "f32" },
  ", stored in f16": { recompute: false, activationDtype: "f16" },
  ", recomputed from f16": { recompute: true, activationDtype: "f16" },
} as const;

for (const [name, config] of Object.entries(models)) {
  for (const [kept, keeping] of Object.entries(keepings)) {
    const title = `${name}${kept}`;

    Deno.test(`memory of training on ${TOKENS} tokens is foretold within 10 %: ${title}`, async () => {
      using device = await openDevice();
      const shape = shapeOf(TOKENS);
      const options = { config, shape, ...keeping, evaluationSequences: 1 };
      const planned = trainingMemory(options).peak;
      const buffers = allocateTraining(device, options);
      initializeWeights(device, { ...buffers, seed: 3 });
      assertEquals(device.memory.live, planned);
      const programs = new TrainingPrograms(device, { ...options, buffers, settings: DEFAULT_OPTIMIZER });
      const draw = (stride: number): Uint32Array<ArrayBuffer> =>
        Uint32Array.from({ length: TOKENS }, (_, i) => (stride * i) % config.vocabSize);
      const batch = { ids: draw(31), targets: draw(47) };
      const { losses } = await programs.step([batch], { learningRate: 1e-3, step: 0, seed: 3 });
      // Weights start small, so that all 257 tokens are about as likely.
      assertLess(Math.abs(losses.ce - Math.log(257)), 0.2);
      assertLess(Math.abs(device.memory.peak - planned), 0.1 * planned);
      assertLess(Math.abs(device.memory.live - planned), 0.1 * planned);
    });
  }
}

/** Bytes that each doubling adds, from 1,024 tokens to 4,096. */
function growth(config: ModelConfig, keeping: typeof keepings[keyof typeof keepings]): number[] {
  const [short, middle, long] = [1024, 2048, 4096].map((tokens) =>
    trainingMemory({ config, shape: shapeOf(tokens), ...keeping, evaluationSequences: 1 }).peak
  ) as [number, number, number];
  return [middle - short, long - middle];
}

for (const [name, config] of Object.entries(models)) {
  Deno.test(`memory of activations grows as the sequence does: ${name}`, () => {
    const grown = Object.values(keepings).map((keeping) => {
      const [first, second] = growth(config, keeping) as [number, number];
      assertEquals(second, 2 * first);
      return first;
    });
    const [whole, recomputed, stored, both] = grown as [number, number, number, number];
    for (const less of [recomputed, stored]) assertLess(less, whole);
    // Of layers that run alone no output is stored in f16: states stay f32.
    assert(both <= recomputed, `${both} bytes with both, ${recomputed} with recomputation alone`);
  });
}
