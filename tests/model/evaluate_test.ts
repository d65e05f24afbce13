import { assertEquals } from "@std/assert";
import { Evaluator } from "../../model/evaluate.ts";
import { allocateWorkspace } from "../../model/workspace.ts";
import { lossTerms } from "../reference/loss.ts";
import { randomIds, tinyConfig, tinyRecursiveConfig, tinyRouter } from "../reference/tiny_model.ts";
import { forward } from "../reference/transformer.ts";
import { assertClose } from "../support/close.ts";
import { gpuTest } from "../support/device.ts";
import { roundedModel, uploadModel } from "../support/gpu_model.ts";
import { createRandom } from "../support/random.ts";

const middleCycle = { sharing: "middle_cycle", numRecursions: 3, blockLayers: 1 } as const;
const [sequences, tokens] = [2, 17];

const configs = {
  "vanilla": tinyConfig(),
  "expert choice": tinyRecursiveConfig(middleCycle, { router: tinyRouter({ alpha: 1 }) }),
  "expert choice in every step": tinyRecursiveConfig(middleCycle, {
    router: tinyRouter({ alpha: 1, capacities: [0.9, 0.5, 0.2] }),
  }),
};

/** All logits at once, or those of at most 16 of the 34 rows at a time. */
const heads = {
  "all logits at once": { head: "all" },
  "16 rows at a time": { head: "losses", logitRows: 16 },
} as const;

for (const [name, config] of Object.entries(configs)) {
  for (const [how, head] of Object.entries(heads)) {
    gpuTest(
      `Evaluator means losses and depths of causal routing over all batches: ${name}, ${how}`,
      async (device) => {
        const model = roundedModel(config, { seed: 41 });
        const random = createRandom(42);
        const count = sequences * tokens;
        const batches = Array.from({ length: 3 }, () => ({
          ids: Uint32Array.from(randomIds(config, { random, count })),
          targets: Uint32Array.from(randomIds(config, { random, count })),
        }));
        let loss = 0;
        const depths = [0, 0, 0, 0];
        for (const { ids, targets } of batches) {
          const tape = forward(model, { ids, sequences, selection: { kind: "threshold", threshold: 0 } });
          loss += lossTerms(model, { tape, targets }).crossEntropy / batches.length;
          for (const depth of tape.depths) depths[depth]! += 1 / (batches.length * count);
        }

        const { weights } = uploadModel(device, model);
        const lengths = new Array<number>(sequences).fill(tokens);
        const shape = { lengths, routing: "causal", backward: false, ...head } as const;
        const workspace = allocateWorkspace(device, { config, shape });
        const evaluator = new Evaluator(device, { config, weights, workspace });
        const met = await evaluator.run(batches);
        assertEquals(met.tokens, 3 * count);
        assertClose([met.loss], [loss], { relative: 2e-4, label: "loss" });
        if (config.router) {
          assertClose(met.depthFractions!, depths, { relative: 1e-12, label: "depth fractions" });
        } else assertEquals(met.depthFractions, null);
        assertEquals(await evaluator.run(batches), met);
        const { loss: first } = await evaluator.run(batches.slice(0, 1));
        const tape = forward(model, {
          ids: batches[0]!.ids,
          sequences,
          selection: { kind: "threshold", threshold: 0 },
        });
        const { crossEntropy } = lossTerms(model, { tape, targets: batches[0]!.targets });
        assertClose([first], [crossEntropy], { relative: 2e-4, label: "loss of one batch" });
      },
    );
  }
}
