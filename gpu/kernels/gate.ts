import gateCode from "./gate.wgsl" with { type: "text" };
import gateFunctionCode from "./gate_function.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { rowCost } from "../cost.ts";
import { type Constants, defineKernel } from "../kernel.ts";
import { rowGrid, type Rows } from "../rows.ts";
import { checkShape, type Tensor } from "../tensor.ts";

/** The part of a kernel that makes gates. */
export const GATE_PART = { "gate_function.wgsl": gateFunctionCode } as const;

const GATE = defineKernel("gate.wgsl", gateCode, GATE_PART);

/** Numbers of the functions in gate_function.wgsl. */
const FUNCTIONS = { sigmoid: 0, tanh: 1, none: 2 } as const;

/** Floating-point operations of a row. */
const OPERATIONS = {
  sigmoid: { forward: 4, backward: 7 },
  tanh: { forward: 2, backward: 6 },
  none: { forward: 1, backward: 3 },
} as const;

/** Invocations of a workgroup in gate.wgsl. */
const WIDTH = 64;

/** What turns a router logit into a gate, before alpha. */
export type GateFunction = keyof typeof FUNCTIONS;

/** Settings of `gate` and `gateBackward`. */
export interface GateSettings {
  /** Kept rows. */
  readonly rows: Rows;
  readonly alpha: number;
  readonly function: GateFunction;
}

/** The part's constants. */
export function gateConstants(
  { alpha, function: name }: { alpha: number; function: GateFunction },
): Constants {
  return { FUNCTION: FUNCTIONS[name], ALPHA: alpha };
}

/**
 * Records gates_i = alpha * f(logits[chosen_i]) for every kept row (Bae et al. 2025, arXiv 2507.10524).
 * logits (candidates) f32; chosen (rows) u32, indices into logits; gates (rows) f32.
 */
export function gate(
  commands: Commands,
  { logits, chosen, gates }: { logits: Tensor; chosen: Tensor; gates: Tensor },
  { rows, ...settings }: GateSettings,
): void {
  checkShape("gate", { chosen: [chosen, [rows.maximum]], gates: [gates, [rows.maximum]] });
  commands.dispatch(GATE, {
    entryPoint: "forward",
    tensors: { rows: rows.count, logits, chosen, gates },
    constants: gateConstants(settings),
    grid: rowGrid(rows, { unitsPerGroup: WIDTH }),
    cost: rowCost(rows, { numbers: 3, flops: OPERATIONS[settings.function].forward }),
  });
}

/**
 * Records the gradient of `gate`, added to: gradLogits[chosen_i] += gradGates_i * alpha * f'(logits[chosen_i]).
 * gradGates (rows) f32; gradLogits (candidates) f32. The choice itself has no gradient.
 */
export function gateBackward(
  commands: Commands,
  { logits, chosen, gradGates, gradLogits }: {
    logits: Tensor;
    chosen: Tensor;
    gradGates: Tensor;
    gradLogits: Tensor;
  },
  { rows, ...settings }: GateSettings,
): void {
  checkShape("gateBackward", {
    chosen: [chosen, [rows.maximum]],
    gradGates: [gradGates, [rows.maximum]],
    gradLogits: [gradLogits, logits.shape],
  });
  commands.dispatch(GATE, {
    entryPoint: "backward",
    tensors: { rows: rows.count, logits, chosen, grad_gates: gradGates, grad_logits: gradLogits },
    constants: gateConstants(settings),
    grid: rowGrid(rows, { unitsPerGroup: WIDTH }),
    cost: rowCost(rows, { numbers: 5, flops: OPERATIONS[settings.function].backward }),
  });
}
