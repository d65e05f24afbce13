/** How a router behaves, by the names that the paper's tables use. */
import type { Tensor, TensorData } from "../gpu/tensor.ts";
import type { Selection } from "./selection.ts";
import type { Workspace } from "./workspace.ts";

/** Measured on one batch. */
export interface RouterHealth {
  /** Fraction of the tokens with each depth, 0 recursion steps first. */
  readonly depthFractions: readonly number[];
  /** Fraction of expert choice's candidates whose logit has the sign that top-k's decision asks for; else null. */
  readonly selectionAccuracy: number | null;
  /** Fraction of the positions that no sequence of the batch sends to the last recursion step. */
  readonly deadTokens: number;
  /** MaxVio: how far the fullest depth exceeds the mean load of a depth, as a fraction of that mean. */
  readonly maxViolation: number;
  /** Entropy of the tokens' distribution over depths 1..R, nats; ln R is balanced. */
  readonly entropy: number;
}

/** The choices of a pass; none without a router. */
export function selectionsOf({ decisions }: Pick<Workspace, "decisions">): readonly Selection[] {
  if (decisions.kind === "none") return [];
  return decisions.kind === "expert_choice" ? decisions.selections : decisions.decision.selections;
}

/** What `routerHealth` reads, in its order; none without a router. */
export function healthTensors(workspace: Workspace): Tensor[] {
  const selections = selectionsOf(workspace);
  if (selections.length === 0) return [];
  const counts = selections.map(({ packing }) => packing.rows.count);
  return [workspace.agreements, selections.at(-1)!.packing.records, ...counts];
}

/** The health of the last batch of a pass, from the elements of `healthTensors`; null without a router. */
export function routerHealth(
  data: readonly TensorData[],
  { decisions, shape: { lengths } }: Workspace,
): RouterHealth | null {
  if (decisions.kind === "none") return null;
  const [agreements, records, ...counts] = data as [TensorData, TensorData, ...TensorData[]];
  const tokens = lengths.reduce((sum, length) => sum + length, 0);
  const active = counts.map((count) => count[0]!);
  const fractions = depthFractions(active, { tokens });
  const positions = new Set<number>();
  for (let row = 0; row < active.at(-1)!; row++) positions.add(records[row * 4 + 1]!);
  const candidates = [tokens, ...active.slice(0, -1)].reduce((sum, count) => sum + count, 0);
  const agreed = Array.from(agreements).reduce((sum, count) => sum + count, 0);
  return {
    depthFractions: fractions,
    selectionAccuracy: decisions.kind === "expert_choice" ? agreed / candidates : null,
    deadTokens: 1 - positions.size / Math.max(...lengths),
    ...loadOf(fractions.slice(1)),
  };
}

/** From tokens that take part in each step to the fraction with each depth. */
export function depthFractions(active: readonly number[], { tokens }: { tokens: number }): number[] {
  return [tokens, ...active].map((count, r) => (count - (active[r] ?? 0)) / tokens);
}

/** Violation of balance, and entropy, of a load on depths 1..R. */
export function loadOf(load: readonly number[]): { maxViolation: number; entropy: number } {
  const total = load.reduce((sum, part) => sum + part, 0);
  return {
    maxViolation: (Math.max(...load) * load.length) / total - 1,
    entropy: load.reduce((sum, part) => part > 0 ? sum - (part / total) * Math.log(part / total) : sum, 0),
  };
}

/** Part of the tokens at one depth from which a router counts as collapsed. */
export const COLLAPSED_FRACTION = 0.95;

/** The depth that more than `COLLAPSED_FRACTION` of the tokens have; null if none, or if there is only one. */
export function collapsedDepth(fractions: readonly number[]): number | null {
  const depth = fractions.findIndex((fraction) => fraction > COLLAPSED_FRACTION);
  return depth < 0 || fractions.length <= 2 ? null : depth;
}

/** Notices a depth that takes nearly all tokens for many steps in a row. */
export class CollapseWatch {
  /** Steps in a row that count as a collapse. */
  static readonly steps = 100;
  #depth: number | null = null;
  #count = 0;

  /** Takes a step's depth fractions; gives the depth once when the collapse is complete, else null. */
  see(fractions: readonly number[]): number | null {
    const depth = collapsedDepth(fractions);
    this.#count = depth !== null && depth === this.#depth ? this.#count + 1 : 1;
    this.#depth = depth;
    return depth !== null && this.#count === CollapseWatch.steps ? depth : null;
  }
}
