import slotRouteCode from "./slot_route.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { rowCost } from "../cost.ts";
import { defineKernel } from "../kernel.ts";
import type { Packing } from "../packing.ts";
import { checkShape, type Tensor } from "../tensor.ts";
import { GATE_PART, gateConstants, type GateFunction } from "./gate.ts";
import { SLOT_PART } from "./slot_fields.ts";

const SLOT_ROUTE = defineKernel("slot_route.wgsl", slotRouteCode, { ...SLOT_PART, ...GATE_PART });

/** Invocations of a workgroup in the file. */
const WIDTH = 64;

/** Rows, by the slots in x of their records, that go on; slots (fields, S) u32. */
interface RoutedRows {
  readonly slots: Tensor;
  readonly packing: Packing;
}

/** Records that rows enter the recursion and are to run all its steps. */
export function enterAll(commands: Commands, routed: RoutedRows, { steps }: { steps: number }): void {
  route(commands, routed, { entryPoint: "enter_all", constants: { STEPS: steps }, numbers: 7 });
}

/**
 * Records that rows enter the recursion for depths (rows) f32 steps, 1 at least; gates (S) f32 become their rowGates
 * (rows) f32.
 */
export function enterByDepth(
  commands: Commands,
  { depths, rowGates, gates, ...routed }: RoutedRows & { depths: Tensor; rowGates: Tensor; gates: Tensor },
): void {
  const { maximum } = routed.packing.rows;
  checkShape("enterByDepth", {
    depths: [depths, [maximum]],
    rowGates: [rowGates, [maximum]],
    gates: [gates, [routed.slots.shape[1]!]],
  });
  route(commands, routed, {
    entryPoint: "enter_by_depth",
    tensors: { depths, row_gates: rowGates, gates },
    numbers: 10,
  });
}

/** Records that rows have run one more of the steps that they entered for, and leave after the last. */
export function recurByDepth(commands: Commands, routed: RoutedRows): void {
  route(commands, routed, { entryPoint: "recur_by_depth", numbers: 8 });
}

/**
 * Records expert choice for rows that enter the recursion or have run one more step: the next one, r, runs where
 * deciding_r > thresholds_r, with the gate alpha * f(logits_r); otherwise the row leaves. logits, deciding (rows, R);
 * thresholds (R); gates (S). All f32.
 */
export function routeByScore(
  commands: Commands,
  { logits, deciding, thresholds, gates, ...routed }: RoutedRows & {
    logits: Tensor;
    deciding: Tensor;
    thresholds: Tensor;
    gates: Tensor;
  },
  { isEntry, alpha, function: name }: { isEntry: boolean; alpha: number; function: GateFunction },
): void {
  const [steps] = thresholds.shape as [number];
  const { maximum } = routed.packing.rows;
  checkShape("routeByScore", {
    logits: [logits, [maximum, steps]],
    deciding: [deciding, [maximum, steps]],
    gates: [gates, [routed.slots.shape[1]!]],
  });
  route(commands, routed, {
    entryPoint: "by_score",
    tensors: { logits, deciding, thresholds, gates },
    constants: { STEPS: steps, IS_ENTRY: Number(isEntry), ...gateConstants({ alpha, function: name }) },
    // Scores are looked at, and gates made, for rows that have a next step: only the slots tell which.
    numbers: isEntry ? 6 : 7,
  });
}

function route(
  commands: Commands,
  { slots, packing: { rows, records } }: RoutedRows,
  { entryPoint, tensors = {}, constants = {}, numbers }: {
    entryPoint: string;
    tensors?: Readonly<Record<string, Tensor>>;
    constants?: Readonly<Record<string, number>>;
    /** That a row reads and writes: its record, fields of its slot, and what is decided by. */
    numbers: number;
  },
): void {
  checkShape(entryPoint, { packing: [records, [rows.maximum, 4]] });
  commands.dispatch(SLOT_ROUTE, {
    entryPoint,
    tensors: { rows: rows.count, records, slots, ...tensors },
    constants,
    grid: [Math.ceil(rows.maximum / WIDTH), 1, 1],
    cost: rowCost(rows, { numbers }),
  });
}
