/**
 * The whole model on the device against golden cases of an independent float64 implementation: logits, every loss term,
 * every gradient, six AdamW updates, causal inference. Tolerances are checkpoint.md's: 2e-4 of the largest value on
 * logits and losses, 2e-3 of a tensor's norm on gradients.
 */
import { assertEquals } from "@std/assert";
import { Commands, submit } from "../../gpu/commands.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import { readTensor, readTensors } from "../../gpu/readback.ts";
import { createTensor, type Tensor, writeTensor } from "../../gpu/tensor.ts";
import { headLogits } from "../../model/head.ts";
import { DEFAULT_OPTIMIZER } from "../../model/optimizer.ts";
import type { ParameterLayout, ParameterViews } from "../../model/parameter_layout.ts";
import type { Decisions } from "../../model/recursion.ts";
import { selectionsOf } from "../../model/router_health.ts";
import { allocateTraining, TrainingPrograms } from "../../model/training.ts";
import { transformerForward, transformerLosses } from "../../model/transformer.ts";
import { parameterTensor } from "../../model/weights.ts";
import { allocateWorkspace } from "../../model/workspace.ts";
import { assertClose } from "../support/close.ts";
import { gpuTest } from "../support/device.ts";
import { type Golden, goldenNames, goldenValues, readGolden } from "../support/golden.ts";

const VALUES = 2e-4;
const GRADIENTS = 2e-3;

function goldenShape({ tensors }: Golden): { sequences: number; tokens: number } {
  const [sequences, tokens] = tensors.get("input_ids")!.shape as [number, number];
  return { sequences, tokens };
}

function uploadWeights(
  device: GpuDevice,
  { golden, layout, weights }: { golden: Golden; layout: ParameterLayout; weights: ParameterViews },
): void {
  for (const [name, { data }] of golden.weights) {
    writeTensor(device, parameterTensor(layout, weights, name), data as Float32Array<ArrayBuffer>);
  }
}

/** Drops the padding columns of the vocabulary. */
async function readLogits(device: GpuDevice, logits: Tensor, vocabSize: number): Promise<number[]> {
  const padded = logits.shape[1]!;
  return Array.from(await readTensor(device, logits)).filter((_, i) => i % padded < vocabSize);
}

/** The routers' decisions and gates of a forward pass as in training. */
async function assertDecisions(
  device: GpuDevice,
  { golden, decisions }: { golden: Golden; decisions: Decisions },
): Promise<void> {
  async function assertValues(label: string, tensor: Tensor): Promise<void> {
    assertClose(await readTensor(device, tensor), goldenValues(golden, label), { relative: VALUES, label });
  }
  if (decisions.kind === "expert_choice") {
    for (const { step, packing, gates } of decisions.selections) {
      const records = await readTensor(device, packing.records);
      const positions = Array.from(records).filter((_, i) => i % 4 === 1);
      assertEquals(positions, Array.from(goldenValues(golden, `selected.${step}`)), `selected.${step}`);
      await assertValues(`gates.${step}`, gates);
    }
  } else if (decisions.kind === "token_choice") {
    const { depths, gates, logits, probabilities } = decisions.decision;
    assertEquals(Array.from(await readTensor(device, depths)), Array.from(goldenValues(golden, "depth")));
    await assertValues("gates", gates);
    await assertValues("router_logits", logits);
    await assertValues("probabilities", probabilities);
  }
}

/** Each case with all its logits at once, and with those of 16 rows at a time. */
const trainings = goldenNames.flatMap((name) => [
  { name, how: "", logitRows: undefined },
  { name, how: ", logits of 16 rows at a time", logitRows: 16 },
]);

for (const { name, how, logitRows } of trainings) {
  gpuTest(`training matches golden case ${name}${how}`, async (device) => {
    const golden = readGolden(name);
    const { config, tensors } = golden;
    const { sequences, tokens } = goldenShape(golden);
    const shape = { batchSize: sequences, sequenceLength: tokens, gradientAccumulation: 1 };
    const buffers = allocateTraining(device, { config, shape, evaluationSequences: 0, logitRows });
    const { layout, weights, gradients, workspace } = buffers;
    assertEquals(workspace.headChunks.length > 1, logitRows !== undefined);
    uploadWeights(device, { golden, layout, weights });
    const batch = {
      ids: Uint32Array.from(tensors.get("input_ids")!.data),
      targets: Uint32Array.from(tensors.get("targets")!.data),
    };

    const forward = new Commands(device, "forward");
    const pass = { config, weights, workspace };
    const allLogits = createTensor(device, {
      shape: [sequences * tokens, workspace.logits.shape[1]!],
      label: "all logits",
    });
    const state = transformerForward(forward, pass);
    transformerLosses(forward, pass, { state, lossScale: 1, gradients: null, allLogits });
    writeTensor(device, workspace.ids, batch.ids);
    writeTensor(device, workspace.targets, batch.targets);
    submit(device, [forward]);
    const logits = await readLogits(device, allLogits, config.vocabSize);
    assertClose(logits, goldenValues(golden, "logits"), { relative: VALUES, label: "logits" });
    await assertDecisions(device, { golden, decisions: workspace.decisions });

    const programs = new TrainingPrograms(device, { config, shape, buffers, settings: DEFAULT_OPTIMIZER });
    for (let step = 0; step < 6; step++) {
      const { losses, gradNorm } = await programs.step([batch], { learningRate: 1e-3, step, seed: 0 });
      const at = (tensor: string): number[] => [goldenValues(golden, tensor)[step]!];
      assertClose([losses.total], at("adamw_losses"), { relative: VALUES, label: `loss ${step}` });
      assertClose([losses.ce], at("adamw_losses_ce"), { relative: VALUES, label: `ce ${step}` });
      assertClose([gradNorm], at("adamw_grad_norms"), {
        relative: GRADIENTS,
        label: `gradient norm ${step}`,
      });
      if (step > 0) continue;
      for (const term of ["auxiliary", "balancing", "z"] as const) {
        if (losses[term] === null) continue;
        const expected = goldenValues(golden, `loss_${term}`);
        assertClose([losses[term]], expected, { relative: VALUES, label: `loss_${term}` });
      }
      for (const parameter of layout.places.keys()) {
        const actual = await readTensor(device, parameterTensor(layout, gradients, parameter));
        const expected = goldenValues(golden, `grad.${parameter}`);
        assertClose(actual, expected, { relative: GRADIENTS, measure: "norm", label: `grad.${parameter}` });
      }
    }
    const final = await readTensor(device, weights.flat);
    const norm = Math.sqrt(Array.from(final).reduce((sum, value) => sum + value ** 2, 0));
    assertClose([norm], goldenValues(golden, "adamw_final_norm"), { relative: VALUES, label: "final norm" });
  });
}

for (const name of goldenNames) {
  gpuTest(`causal inference matches golden case ${name}`, async (device) => {
    const golden = readGolden(name);
    const { config, tensors } = golden;
    const { sequences, tokens } = goldenShape(golden);
    const shape = { batchSize: sequences, sequenceLength: tokens, gradientAccumulation: 1 };
    const { layout, weights } = allocateTraining(device, { config, shape, evaluationSequences: 0 });
    uploadWeights(device, { golden, layout, weights });
    const workspace = allocateWorkspace(device, {
      config,
      shape: {
        lengths: new Array<number>(sequences).fill(tokens),
        routing: "causal",
        backward: false,
        head: "all",
      },
    });
    const commands = new Commands(device, "causal forward");
    const pass = { config, weights, workspace };
    headLogits(commands, pass, { state: transformerForward(commands, pass) });
    writeTensor(device, workspace.ids, Uint32Array.from(tensors.get("input_ids")!.data));
    submit(device, [commands]);
    const logits = await readLogits(device, workspace.logits, config.vocabSize);
    assertClose(logits, goldenValues(golden, "logits_causal"), { relative: VALUES, label: "logits_causal" });
    const selections = selectionsOf(workspace);
    if (selections.length === 0) return;
    const depths = new Array<number>(sequences * tokens).fill(0);
    for (const { packing } of selections) {
      const [count, records] = await readTensors(device, [packing.rows.count, packing.records]);
      for (let row = 0; row < count![0]!; row++) depths[records![row * 4]!]!++;
    }
    assertEquals(depths, Array.from(goldenValues(golden, "depths")));
  });
}
