/**
 * A router's logits: W x / temperature, or W2 GELU(W1 x / temperature) for an mlp router. No biases.
 *
 * Both kinds of routing score packed rows of the state with it: expert choice with one output for each recursion step,
 * token choice with one for each depth.
 */
import type { Commands } from "../gpu/commands.ts";
import { gatherRows, gatherRowsBackward } from "../gpu/kernels/gather_rows.ts";
import { gelu, geluBackward } from "../gpu/kernels/gelu.ts";
import { linear, linearBackwardInput, linearBackwardWeight } from "../gpu/kernels/linear.ts";
import { routerScore, routerScoreBackward } from "../gpu/kernels/router_score.ts";
import type { Allocator } from "../gpu/memory.ts";
import { fullRecords, type Packing } from "../gpu/packing.ts";
import { createTensor, type Tensor, tensorFrom } from "../gpu/tensor.ts";
import type { RouterConfig } from "./config.ts";
import type { RouterWeights } from "./model_weights.ts";

/** What the hidden layer of an mlp router works with. */
export interface RouterActivations {
  /** (rows, C) */
  readonly gathered: Tensor;
  /** (rows, hidden width) */
  readonly hidden: Tensor;
  readonly activated: Tensor;
  readonly gradHidden: Tensor;
  readonly gradActivated: Tensor;
  /** (rows, C) */
  readonly gradGathered: Tensor;
  /** The packed rows themselves. */
  readonly packedRows: Packing;
}

/** Activations for the rows of a packing; null for a linear router, which needs none. Hidden width 2 C unless told. */
export function allocateRouter(
  device: Allocator,
  { router: { architecture }, hiddenSize, hiddenWidth = 2 * hiddenSize, packing: { rows }, backward }: {
    router: RouterConfig;
    hiddenSize: number;
    hiddenWidth?: number;
    packing: Packing;
    backward: boolean;
  },
): RouterActivations | null {
  if (architecture === "linear") return null;
  const gradRows = backward ? rows.maximum : 0;
  const tensor = (label: string, ...shape: number[]): Tensor => createTensor(device, { shape, label });
  return {
    gathered: tensor("router input", rows.maximum, hiddenSize),
    hidden: tensor("router hidden", rows.maximum, hiddenWidth),
    activated: tensor("router activated", rows.maximum, hiddenWidth),
    gradHidden: tensor("router hidden gradient", gradRows, hiddenWidth),
    gradActivated: tensor("router activated gradient", gradRows, hiddenWidth),
    gradGathered: tensor("router input gradient", gradRows, hiddenSize),
    packedRows: {
      rows,
      records: tensorFrom(device, {
        data: fullRecords([rows.maximum]),
        shape: [rows.maximum, 4],
        label: "packed rows",
      }),
    },
  };
}

/** A router and the rows that it scores. */
export interface RouterRun {
  readonly weights: RouterWeights;
  readonly activations: RouterActivations | null;
  /** Which rows of the state x are scored. */
  readonly packing: Packing;
}

/** Records the logits (rows, O) of packed rows of x (state rows, C). */
export function routerForward(
  commands: Commands,
  { x, run: { weights, activations, packing }, logits }: { x: Tensor; run: RouterRun; logits: Tensor },
  { temperature }: { temperature: number },
): void {
  const { hidden: weight, output } = weights;
  if (weight === null) {
    routerScore(commands, { x, packing, weight: output, logits }, { temperature });
    return;
  }
  const { gathered, hidden, activated, packedRows } = activations!;
  const { rows } = packing;
  gatherRows(commands, { x, packing, out: gathered });
  linear(commands, { x: gathered, weight, out: hidden }, { rows });
  gelu(commands, { x: hidden, out: activated }, { rows, scale: 1 / temperature });
  routerScore(commands, { x: activated, packing: packedRows, weight: output, logits }, { temperature: 1 });
}

/**
 * Records the gradients of `routerForward`: those of the weights and of x (unless `gradX` is null) are added to.
 */
export function routerBackward(
  commands: Commands,
  { x, run: { weights, activations, packing }, gradients, gradLogits, gradX }: {
    x: Tensor;
    run: RouterRun;
    gradients: RouterWeights;
    gradLogits: Tensor;
    gradX: Tensor | null;
  },
  { temperature }: { temperature: number },
): void {
  const { hidden: weight, output } = weights;
  if (weight === null) {
    routerScoreBackward(commands, {
      x,
      packing,
      weight: output,
      gradLogits,
      gradX,
      gradWeight: gradients.output,
    }, { temperature });
    return;
  }
  const { gathered, hidden, activated, gradHidden, gradActivated, gradGathered, packedRows } = activations!;
  const { rows } = packing;
  commands.clear(gradActivated);
  routerScoreBackward(commands, {
    x: activated,
    packing: packedRows,
    weight: output,
    gradLogits,
    gradX: gradActivated,
    gradWeight: gradients.output,
  }, { temperature: 1 });
  geluBackward(commands, { x: hidden, gradOut: gradActivated, gradX: gradHidden }, {
    rows,
    scale: 1 / temperature,
  });
  linearBackwardWeight(commands, { gradOut: gradHidden, x: gathered, gradWeight: gradients.hidden! }, {
    rows,
  });
  if (gradX === null) return;
  linearBackwardInput(commands, { gradOut: gradHidden, weight, gradX: gradGathered }, { rows });
  gatherRowsBackward(commands, { gradOut: gradGathered, packing, gradX });
}
