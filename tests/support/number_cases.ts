/** Tensors that packing has trouble with, the same on every machine: exact arithmetic on seeded draws. */
import { uniform } from "../../model/random.ts";

/** How to make a tensor. */
export interface NumberCase {
  readonly shape: readonly [rows: number, columns: number];
  /** Element i. */
  readonly draw: (next: () => number, i: number) => number;
}

/** Seed of the draws. */
const SEED = 4;

/** By what is special about them. */
export const numberCases: Readonly<Record<string, NumberCase>> = {
  "one block": { shape: [1, 32], draw: (next) => 2 * next() - 1 },
  "even spread": { shape: [7, 96], draw: (next) => 2 * next() - 1 },
  "a bell": { shape: [5, 256], draw: (next) => (next() + next() + next() + next() - 2) / 32 },
  "long tails": { shape: [40, 64], draw: (next) => (2 * next() - 1) * 2 ** Math.floor(40 * next() - 36) },
  // From the smallest subnormal f32, far below f16's range, to its upper end.
  "a magnitude for each block": {
    shape: [165, 32],
    draw: (next, i) => (2 * next() - 1) * 2 ** (Math.floor(i / 32) - 149),
  },
  "halves between two bytes": {
    shape: [9, 32],
    draw: (next, i) => i % 32 === 5 ? 127 : Math.floor(254 * next()) - 126.5,
  },
  "halves between two nibbles": {
    shape: [9, 64],
    draw: (next, i) => i % 32 === 20 ? -8 : Math.floor(32 * next()) / 2 - 7.5,
  },
  // What f32 and float64 arithmetic round to different sides.
  "nearly halves between two bytes": {
    shape: [40, 32],
    draw: (next, i) => nearlyHalf(i, { steps: 127, half: Math.floor(254 * next()) - 126.5 }),
  },
  "nearly halves between two nibbles": {
    shape: [40, 32],
    draw: (next, i) => nearlyHalf(i, { steps: -8, half: Math.floor(15 * next()) - 7.5 }),
  },
  "equal magnitudes": { shape: [6, 32], draw: (next) => next() < 0.5 ? -0.3 : 0.3 },
  "mostly zeros of either sign": {
    shape: [30, 32],
    draw: (next) => next() < 0.96 ? (next() < 0.5 ? -0 : 0) : next() - 0.5,
  },
  zeros: { shape: [2, 32], draw: () => 0 },
};

/** The largest number of a block, first; then halves of its step, as near as f32 comes to them. */
function nearlyHalf(i: number, { steps, half }: { steps: number; half: number }): number {
  const largest = Math.fround(1 + Math.floor(i / 32) / 41);
  const inverse = Math.fround(1 / Math.fround(largest / steps));
  return i % 32 === 0 ? largest : half / inverse;
}

/** The numbers of a case, row by row. */
export function numbersOf(name: string): Float32Array<ArrayBuffer> {
  const { shape: [rows, columns], draw } = numberCases[name]!;
  const next = uniform(SEED, name);
  return Float32Array.from({ length: rows * columns }, (_, i) => draw(next, i));
}
