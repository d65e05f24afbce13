/** A whole text through the model against the float64 reference, window by window. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import type { GpuDevice } from "../../gpu/device.ts";
import type { ModelConfig } from "../../model/config.ts";
import { type EvaluatedBatch, evaluateText } from "../../model/evaluate_text.ts";
import { evaluationReport } from "../../model/evaluation_report.ts";
import { CheckpointError } from "../../model/files/safetensors.ts";
import type { Routing } from "../../model/selection.ts";
import { crossEntropy } from "../reference/cross_entropy.ts";
import { decidingRouter } from "../reference/expert_choice.ts";
import {
  randomIds,
  tinyConfig,
  tinyRecursiveConfig,
  tinyRouter,
  tinyTokenRouter,
} from "../reference/tiny_model.ts";
import { forward } from "../reference/transformer.ts";
import type { Model } from "../reference/weights.ts";
import { assertClose } from "../support/close.ts";
import { gpuTest } from "../support/device.ts";
import { roundedModel, uploadModel } from "../support/gpu_model.ts";
import { createRandom } from "../support/random.ts";

const middleCycle = { sharing: "middle_cycle", numRecursions: 3, blockLayers: 1 } as const;
const shape = { batchSize: 2, sequenceLength: 8 };

/** Two whole batches and one of windows of 8 and 5 tokens. */
const TOKENS = 4 * 8 + 8 + 5 + 1;

/**
 * Random ids. No window begins with one token twice: these would have equal states, a tie between their logits that
 * only rounding breaks, in f32 not as in float64.
 */
function textOf(config: ModelConfig): Uint32Array<ArrayBuffer> {
  return Uint32Array.from(randomIds(config, { random: createRandom(94), count: TOKENS }));
}

const configs: Readonly<Record<string, ModelConfig>> = {
  "vanilla": tinyConfig(),
  "recursive": tinyRecursiveConfig(middleCycle),
  "expert choice": tinyRecursiveConfig(middleCycle, { router: tinyRouter({ alpha: 1 }) }),
  "expert choice in every step": tinyRecursiveConfig(middleCycle, {
    router: tinyRouter({ alpha: 1, capacities: [0.9, 0.5, 0.2] }),
  }),
  "expert choice with auxiliary routers": tinyRecursiveConfig(middleCycle, {
    router: tinyRouter({ alpha: 1, auxiliary: "router" }),
  }),
  "token choice": tinyRecursiveConfig(middleCycle, { router: tinyTokenRouter() }),
};

async function evaluate(
  device: GpuDevice,
  { model, tokens, routing }: { model: Model; tokens: Uint32Array<ArrayBuffer>; routing: Routing },
): Promise<EvaluatedBatch[]> {
  return await Array.fromAsync(
    evaluateText(device, { model: uploadModel(device, model), tokens, routing, shape }),
  );
}

interface Expected {
  readonly windows: { tokens: number; loss: number }[];
  readonly depths: { tokens: number; loss: number }[];
  readonly decisions: { candidates: number; agreed: number }[];
}

/** What the reference computes for the same windows, one after the other. */
function expectedOf(model: Model, { tokens, routing }: { tokens: Uint32Array; routing: Routing }): Expected {
  const expected: Expected = {
    windows: [],
    depths: Array.from({ length: 4 }, () => ({ tokens: 0, loss: 0 })),
    decisions: Array.from({ length: 3 }, () => ({ candidates: 0, agreed: 0 })),
  };
  const selection = routing === "top-k"
    ? { kind: "top_k" } as const
    : { kind: "threshold", threshold: 0 } as const;
  for (let start = 0; start < tokens.length - 1; start += shape.sequenceLength) {
    const end = Math.min(start + shape.sequenceLength, tokens.length - 1);
    const tape = forward(model, { ids: tokens.subarray(start, end), sequences: 1, selection });
    const targets = tokens.subarray(start + 1, end + 1);
    const losses = crossEntropy({ logits: tape.logits, targets }, model.config);
    expected.windows.push({ tokens: losses.length, loss: losses.reduce((sum, loss) => sum + loss, 0) });
    tape.depths.forEach((depth, row) => {
      expected.depths[depth]!.tokens++;
      expected.depths[depth]!.loss += losses[row]!;
    });
    tape.steps.forEach((step, r) => {
      const { logits } = decidingRouter(step);
      expected.decisions[r]!.candidates += logits.length;
      logits.forEach((logit, i) => {
        if (logit > 0 === (step.labels[i] === 1)) expected.decisions[r]!.agreed++;
      });
    });
  }
  return expected;
}

for (const [name, config] of Object.entries(configs)) {
  for (const routing of ["causal", "top-k"] as const) {
    gpuTest(
      `evaluateText gives the reference's losses, depths and decisions: ${name}, ${routing}`,
      async (device) => {
        const model = roundedModel(config, { seed: 91 });
        const tokens = textOf(config);
        const batches = await evaluate(device, { model, tokens, routing });
        assertEquals(batches.map(({ windows }) => windows.map((window) => window.tokens)), [[8, 8], [8, 8], [
          8,
          5,
        ]]);

        const expected = expectedOf(model, { tokens, routing });
        const { windows, loss, depths, agreement } = evaluationReport(batches);
        assertClose(windows.map((window) => window.loss), expected.windows.map((window) => window.loss), {
          relative: 2e-4,
          label: "losses of the windows",
        });
        if (config.recursion) {
          assertEquals(depths!.tokens, expected.depths.map((depth) => depth.tokens));
          assertClose(
            depths!.losses.map((mean) => mean ?? 0),
            expected.depths.map((depth) => depth.loss / Math.max(1, depth.tokens)),
            { relative: 2e-4, label: "loss by depth" },
          );
          const whole = depths!.losses.reduce(
            (sum: number, mean, d) => sum + (mean ?? 0) * depths!.fractions[d]!,
            0,
          );
          assertClose([whole], [loss.mean], { relative: 1e-12, label: "losses by depth put together" });
        } else assertEquals(depths, null);
        if (config.router?.kind === "expert_choice" && routing === "top-k") {
          const { decisions } = expected;
          assertEquals(agreement!.byStep, decisions.map(({ agreed, candidates }) => agreed / candidates));
        } else assertEquals(agreement, null);
      },
    );
  }
}

/** A model whose only router reads a token's logit from the first entry of its embedding, and keeps half. */
function halvingModel(logitOf: (id: number) => number): Model {
  const recursion = { sharing: "cycle", numRecursions: 1, blockLayers: 1 } as const;
  const config = tinyRecursiveConfig(recursion, { router: tinyRouter({ alpha: 1, capacities: [0.5] }) });
  const model = roundedModel(config, { seed: 93 });
  model.weights.get("model.routers.0.weight")!.fill(0)[0] = 1;
  for (let id = 0; id < config.vocabSize; id++) {
    model.weights.get("model.embed_tokens.weight")![id * config.hiddenSize] = logitOf(id);
  }
  return model;
}

gpuTest("the two routings agree where logits are separated at 0 by rank k", async (device) => {
  // Every window has four even ids and four odd ones.
  const tokens = Uint32Array.of(0, 2, 1, 3, 5, 4, 6, 7, 8, 1, 3, 9, 2, 6, 5, 0, 4);
  const separated = halvingModel((id) => id % 2 === 0 ? 1 + id : -1 - id);
  const topK = evaluationReport(await evaluate(device, { model: separated, tokens, routing: "top-k" }));
  assertEquals(topK.agreement, { overall: 1, byStep: [1] });
  const causal = evaluationReport(await evaluate(device, { model: separated, tokens, routing: "causal" }));
  assertEquals(causal, { ...topK, agreement: null });
  assertEquals(causal.depths!.tokens, [8, 8]);

  // Ranked alike, but all logits positive: causal routing keeps what top-k drops.
  const shifted = halvingModel((id) => id % 2 === 0 ? 20 + id : 10 - id);
  const other = evaluationReport(await evaluate(device, { model: shifted, tokens, routing: "top-k" }));
  assertEquals([other.agreement!.overall, other.depths!.tokens], [0.5, [8, 8]]);
  const kept = evaluationReport(await evaluate(device, { model: shifted, tokens, routing: "causal" }));
  assertEquals(kept.depths!.tokens, [0, 16]);
});

gpuTest("a random router has no decisions that could agree", async (device) => {
  const config = tinyRecursiveConfig(middleCycle, { router: tinyRouter({ random: true }) });
  const model = roundedModel(config, { seed: 94 });
  const tokens = textOf(config);
  const { agreement, depths } = evaluationReport(await evaluate(device, { model, tokens, routing: "top-k" }));
  assertEquals([agreement, depths!.tokens.length], [null, 4]);
});

gpuTest("evaluateText runs a text of two tokens", async (device) => {
  const model = roundedModel(configs["expert choice"]!, { seed: 96 });
  for (const routing of ["causal", "top-k"] as const) {
    const [batch, ...rest] = await evaluate(device, { model, tokens: Uint32Array.of(3, 7), routing });
    assertEquals([batch!.windows.length, batch!.windows[0]!.tokens, rest.length], [1, 1, 0]);
  }
});

gpuTest("evaluateText frees its buffers, also when the caller has seen enough", async (device) => {
  const model = uploadModel(device, roundedModel(configs["expert choice"]!, { seed: 97 }));
  const tokens = textOf(model.config);
  const evaluation = { model, tokens, routing: "causal", shape } as const;
  await Array.fromAsync(evaluateText(device, evaluation));
  const { live } = device.memory;
  await Array.fromAsync(evaluateText(device, evaluation));
  assertEquals(device.memory.live, live);
  for await (const batch of evaluateText(device, evaluation)) {
    assert(device.memory.live > live && batch.windows.length === 2);
    break;
  }
  assertEquals(device.memory.live, live);
});

gpuTest("evaluateText refuses weights that give no finite loss", async (device) => {
  const model = roundedModel(configs["vanilla"]!, { seed: 99 });
  model.weights.get("model.norm.weight")![0] = NaN;
  await assertRejects(
    () => evaluate(device, { model, tokens: Uint32Array.of(1, 2, 3), routing: "causal" }),
    CheckpointError,
    "wanted a finite number",
  );
});
