/**
 * 200 random small models: on the device, causal inference is finite, causal, equal to the float64 reference, and the
 * same through a cache as over the whole text.
 */
import { assert, assertEquals } from "@std/assert";
import type { GpuDevice } from "../../gpu/device.ts";
import { forwardCached, forwardCausal } from "../../model/forward.ts";
import type { ModelConfig } from "../../model/config.ts";
import { decidingRouter } from "../reference/expert_choice.ts";
import { randomModel } from "../reference/tiny_model.ts";
import { forward, type ModelTape } from "../reference/transformer.ts";
import type { Model } from "../reference/weights.ts";
import { assertClose } from "../support/close.ts";
import { gpuTest } from "../support/device.ts";
import { uploadModel } from "../support/gpu_model.ts";
import { createRandom, type Random } from "../support/random.ts";
import { randomConfig } from "../support/random_config.ts";

const SEED = 20261123;
const COUNT = 200;

/** Models of a test; several tests, so that progress shows and a failure names its part. */
const PART = 25;

/** The golden cases' tolerance, of the largest logit. */
const TOLERANCE = 2e-4;

/**
 * Rounding may turn a decision that is closer than this to the other side, and all that follows from it: such a model is
 * drawn again. It is some 100 times what float32 rounding moves the numbers of these models by.
 */
const MARGIN = 1e-3;

interface Case {
  readonly model: Model;
  readonly ids: number[];
  readonly tape: ModelTape;
}

/** How far the closest decision of a causal pass is from the other side, relative to the numbers compared. */
function closestDecision({ config, weights }: Model, tape: ModelTape): number {
  const margins: number[] = [];
  for (const step of tape.steps) margins.push(...decidingRouter(step).logits.map(Math.abs));
  const largestTwo = (values: ArrayLike<number>): number => {
    const [first, second = -Infinity] = Array.from(values).sort((a, b) => b - a);
    return first! - second;
  };
  if (tape.tokenChoice) {
    const { numRecursions } = config.recursion!;
    const bias = weights.get("model.router.bias");
    const { probabilities } = tape.tokenChoice.choice;
    for (let start = 0; start < probabilities.length; start += numRecursions) {
      const scores = probabilities.slice(start, start + numRecursions);
      margins.push(largestTwo(scores.map((p, j) => p + (bias?.[j] ?? 0))));
    }
  }
  const largest = tape.logits.reduce((most, logit) => Math.max(most, Math.abs(logit)), 0);
  for (let start = 0; start < tape.logits.length; start += config.vocabSize) {
    margins.push(largestTwo(tape.logits.subarray(start, start + config.vocabSize)) / largest);
  }
  return Math.min(...margins);
}

/** A model and a text whose decisions are all clear. */
function drawCase(random: Random): Case {
  for (;;) {
    const config = randomConfig(random);
    const { weights } = randomModel(config, { random });
    const model = {
      config,
      weights: new Map(Array.from(weights, ([name, weight]) => [name, weight.map(Math.fround)])),
    };
    const ids = Array.from({ length: 1 + random.integer(24) }, () => random.integer(config.vocabSize));
    const tape = forward(model, { ids, sequences: 1, selection: { kind: "threshold", threshold: 0 } });
    if (closestDecision(model, tape) > MARGIN) return { model, ids, tape };
  }
}

async function checkCase(device: GpuDevice, { model, ids, tape }: Case, random: Random): Promise<void> {
  const { config } = model;
  const uploaded = uploadModel(device, model);
  const whole = await forwardCausal(device, { model: uploaded, input: { ids: [ids], targets: null } });
  const logits = whole.logits[0]!;
  assert(logits.flat().every(Number.isFinite), "logits are not finite");
  assertClose(logits.flat(), tape.logits, { relative: TOLERANCE, label: "logits against the reference" });
  const depths = config.recursion ? [Array.from(tape.depths)] : null;
  assertEquals(whole.depths, depths, "depths against the reference");

  const edited = random.integer(ids.length);
  const changed = ids.with(edited, (ids[edited]! + 1) % config.vocabSize);
  const other = await forwardCausal(device, { model: uploaded, input: { ids: [changed], targets: null } });
  assertEquals(
    other.logits[0]!.slice(0, edited),
    logits.slice(0, edited),
    "an edit changed what came before",
  );

  const split = random.integer(ids.length + 1);
  const input = { ids: [ids], targets: null };
  const cached = await forwardCached(device, { model: uploaded, input, split });
  assertEquals(cached.depths, depths, `depths with a cache, split ${split}`);
  assertClose(cached.logits[0]!.flat(), logits.flat(), { relative: TOLERANCE, label: "cached logits" });
  const greedy = (rows: readonly number[][]): number[] => rows.map((row) => row.indexOf(Math.max(...row)));
  assertEquals(greedy(cached.logits[0]!), greedy(logits), `greedy tokens with a cache, split ${split}`);
  device.destroyBuffer(uploaded.weights.flat.buffer);
}

/** What a failing case was, in one line. */
function describe(config: ModelConfig): string {
  const { extra: _, tokenizer: __, ...shown } = config;
  return JSON.stringify(shown);
}

for (let start = 0; start < COUNT; start += PART) {
  const name = `random models ${start + 1} to ${start + PART} of seed ${SEED}`;
  gpuTest(`${name} are finite, causal, right, and the same with a cache`, async (device) => {
    const random = createRandom(SEED + start);
    for (let i = start; i < start + PART; i++) {
      const drawn = drawCase(random);
      try {
        await checkCase(device, drawn, random);
      } catch (cause) {
        throw new Error(
          `model ${i + 1}, ids [${drawn.ids}], ${describe(drawn.model.config)}: ${(cause as Error).message}`,
          { cause },
        );
      }
    }
  });
}
