/** Training steps beside jax-js's: the same model, weights, batch and optimizer, in one run, in turn. */
import { join } from "@std/path";
import type { GpuDevice } from "../../gpu/device.ts";
import { ConfigError } from "../../model/config.ts";
import { writeSafetensors } from "../../model/files/safetensors_writer.ts";
import { flopsPerToken } from "../../model/flops.ts";
import { DEFAULT_OPTIMIZER } from "../../model/optimizer.ts";
import type { Batch } from "../../model/text/dataset.ts";
import { parameterSources } from "../../model/weights.ts";
import type { JaxJsOptions } from "./jax_js.ts";
import { compare, disagreement, type Program, type Result } from "./jax_js_agreement.ts";
import { type JaxProcess, startJax } from "./jax_js_process.ts";
import { printComparison, printComparisonJson } from "./jax_js_report.ts";
import type { JaxBackend } from "./jax_js_worker.ts";
import { note } from "./report.ts";
import { SHAPE, type TimedStep, trainer, vanilla } from "./training.ts";

const CONFIG = vanilla(4);
const WORK =
  `${CONFIG.numHiddenLayers} layers, d ${CONFIG.hiddenSize}, ${CONFIG.numAttentionHeads} heads of ` +
  `${CONFIG.headDim}, SwiGLU ${CONFIG.intermediateSize}, V ${CONFIG.vocabSize}, tied head, ` +
  `T ${SHAPE.sequenceLength}, B ${SHAPE.batchSize}, f32, AdamW`;
const TOKENS = SHAPE.batchSize * SHAPE.sequenceLength;
/** Of a step: the backward pass costs twice the forward pass. */
const FLOPS = 3 * TOKENS * flopsPerToken(CONFIG, { tokens: SHAPE.sequenceLength }).full;

/** Steps whose losses and gradient norms are compared. */
const CHECKED_STEPS = 3;

/** High enough that every step changes the loss by many times the tolerance. */
const LEARNING_RATE = 1e-3;

/** A program that takes steps. */
interface Runner extends Program {
  readonly steps: TimedStep[];
  readonly step: () => Promise<TimedStep>;
}

/**
 * Prints losses and speeds.
 *
 * @throws ConfigError when jax-js cannot run or does not do the same.
 */
export async function compareTraining(device: GpuDevice, options: JaxJsOptions): Promise<void> {
  const files = await Deno.makeTempDir({ prefix: "mor-jax-js-" });
  try {
    const own = trainer(device, { config: CONFIG, learningRate: LEARNING_RATE });
    const weights = join(await Deno.realPath(files), "weights.safetensors");
    const { layout, weights: views } = own.buffers;
    await writeSafetensors(weights, { tensors: parameterSources(device, { layout, views }), metadata: {} });
    const start = (backend: JaxBackend): Promise<JaxProcess> =>
      startJax({ folder: options.folder, backend, weights });
    await using wasm = await start("wasm");
    await using webgpu = options.hasWebgpu ? await start("webgpu") : null;
    const runners = [
      { name: "ours", steps: [], step: own.step },
      await openRun(wasm, { name: "jax-js wasm", batch: own.batch, weights }),
      ...(webgpu ? [await openRun(webgpu, { name: "jax-js webgpu", batch: own.batch, weights })] : []),
    ];
    const results = await measure(runners, options);
    const jax = await (webgpu ?? wasm).ask("describe");
    const comparison = {
      adapter: device.info.description,
      jax,
      work: WORK,
      flops: FLOPS,
      tokens: TOKENS,
      results,
    };
    if (options.isJson) printComparisonJson(comparison);
    else printComparison(comparison);
  } finally {
    await Deno.remove(files, { recursive: true });
  }
}

/** Gives jax-js our weights and our batch. */
async function openRun(
  process: JaxProcess,
  { name, batch, weights }: { name: string; batch: Batch; weights: string },
): Promise<Runner> {
  await process.ask("open", {
    config: CONFIG,
    batchSize: SHAPE.batchSize,
    sequenceLength: SHAPE.sequenceLength,
    weights,
    ids: [...batch.ids],
    targets: [...batch.targets],
    optimizer: DEFAULT_OPTIMIZER,
    learningRate: LEARNING_RATE,
  });
  return { name, steps: [], step: () => process.ask("step") };
}

/** @throws ConfigError when the programs do not do the same in their first steps. */
async function measure(
  runners: readonly Runner[],
  { repeats, warmUp }: { repeats: number; warmUp: number },
): Promise<Result[]> {
  await takeSteps(runners, { count: CHECKED_STEPS, title: "compared" });
  const reason = disagreement(runners);
  if (reason !== null) throw new ConfigError(`Nothing was measured: ${reason}`);
  await takeSteps(runners, { count: warmUp, title: "warm-up" });
  await takeSteps(runners, { count: repeats, title: "measured" });
  return compare(runners, { checked: CHECKED_STEPS, repeats, tokens: TOKENS });
}

/** One step of each program after the other. */
async function takeSteps(
  runners: readonly Runner[],
  { count, title }: { count: number; title: string },
): Promise<void> {
  for (let i = 0; i < count; i++) {
    for (const { name, steps, step } of runners) {
      note(`${name}: ${title} step ${i + 1} of ${count}`);
      steps.push(await step());
    }
  }
}
