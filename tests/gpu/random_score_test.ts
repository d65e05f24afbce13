import { assert, assertAlmostEquals, assertEquals } from "@std/assert";
import type { GpuDevice } from "../../gpu/device.ts";
import { randomScore } from "../../gpu/kernels/random_score.ts";
import { blank, gpuTest, run, uploadIndices } from "../support/device.ts";
import { allPositions, recordRows, uploadPacking } from "../support/packing.ts";

interface Case {
  readonly positions: readonly (readonly number[])[];
  readonly tokens: number;
  readonly spare?: number;
  /** Scores of a candidate; one unless told. */
  readonly outputs?: number;
  readonly byPosition?: boolean;
}

const cases: Record<string, Case> = {
  "for whole workgroups": { positions: allPositions({ sequences: 2, tokens: 64 }), tokens: 64 },
  "for candidates here and there": { positions: [[0, 2, 5], [], [1, 2, 3, 6]], tokens: 7 },
  "for one candidate": { positions: [[4]], tokens: 6 },
  "for fewer candidates than there is room for": { positions: [[1, 3], [0, 4]], tokens: 5, spare: 80 },
  "for no candidates": { positions: [[], []], tokens: 5, spare: 9 },
  "for 70,000 candidates": { positions: allPositions({ sequences: 1, tokens: 70_000 }), tokens: 70_000 },
  "with three outputs": { positions: [[0, 2, 5], [], [1, 2, 3, 6]], tokens: 7, outputs: 3 },
  "with 64 outputs for whole workgroups": {
    positions: allPositions({ sequences: 1, tokens: 3 }),
    tokens: 3,
    outputs: 64,
  },
  "with three outputs, fewer candidates than there is room for": {
    positions: [[1, 3], [0, 4]],
    tokens: 5,
    spare: 80,
    outputs: 3,
  },
  "with four outputs for 70,000 candidates": {
    positions: allPositions({ sequences: 2, tokens: 35_000 }),
    tokens: 35_000,
    outputs: 4,
  },
  "by position": { positions: [[0, 2, 5], [], [1, 2, 3, 6]], tokens: 7, byPosition: true },
  "by position, with two outputs, for no candidates": {
    positions: [[], []],
    tokens: 5,
    spare: 9,
    outputs: 2,
    byPosition: true,
  },
  "by position, with two outputs": {
    positions: [[4], [0, 4]],
    tokens: 6,
    outputs: 2,
    byPosition: true,
  },
};

/** pcg3d of Jarzynski & Olano 2020, as the kernel's formula says. */
function expectedScore(place: number, { stream, seed }: { stream: number; seed: number }): number {
  let [x, y, z] = [place, stream, seed].map((value) => (Math.imul(value, 1664525) + 1013904223) >>> 0) as [
    number,
    number,
    number,
  ];
  x = (x + Math.imul(y, z)) >>> 0;
  y = (y + Math.imul(z, x)) >>> 0;
  z = (z + Math.imul(x, y)) >>> 0;
  [x, y, z] = [x ^ (x >>> 16), y ^ (y >>> 16), z ^ (z >>> 16)];
  x = (x + Math.imul(y, z)) >>> 0;
  return ((x >>> 9) + 0.5) / 2 ** 23;
}

async function scores(
  device: GpuDevice,
  { positions, tokens, spare, stream, seed, outputs = 1, byPosition = false }: Case & {
    stream: number;
    seed: number;
  },
): Promise<number[]> {
  const packing = uploadPacking(device, { positions, tokens, spare });
  const logits = blank(device, [packing.rows.maximum * outputs]);
  const [values] = await run(device, (commands) => {
    recordRows(commands, packing.rows);
    const tensors = { logits, packing, seed: uploadIndices(device, [seed]) };
    randomScore(commands, tensors, { stream, outputs, byPosition });
  }, [logits]);
  return [...values!];
}

for (const [name, settings] of Object.entries(cases)) {
  gpuTest(`randomScore is the hash of seed, stream and place ${name}`, async (device) => {
    const { positions, tokens, outputs = 1, byPosition = false } = settings;
    const key = { stream: 2, seed: 0xdeadbeef };
    const places = positions.flatMap((kept, sequence) =>
      kept.map((position) => byPosition ? position : sequence * tokens + position)
    );
    const wanted = places.flatMap((place) =>
      Array.from({ length: outputs }, (_, j) => expectedScore(place, { ...key, stream: key.stream + j }))
    );
    const actual = await scores(device, { ...settings, ...key });
    assertEquals(actual.slice(0, wanted.length), wanted);
    assert(actual.slice(wanted.length).every(Number.isNaN), "logits past the count were written");
  });
}

gpuTest("randomScore is uniform, and unrelated between rows, streams and seeds", async (device) => {
  const size = { positions: allPositions({ sequences: 1, tokens: 20_000 }), tokens: 20_000 };
  const first = await scores(device, { ...size, stream: 0, seed: 1 });
  assert(first.every((score) => score > 0 && score < 1), "a score is not between 0 and 1");
  const deciles = new Array<number>(10).fill(0);
  for (const score of first) deciles[Math.floor(score * 10)]! += 1;
  // Five standard deviations of a binomial with 20,000 draws.
  for (const decile of deciles) assertAlmostEquals(decile, 2000, 5 * Math.sqrt(20_000 * 0.1 * 0.9));
  const others = {
    "the next row": [...first.slice(1), first[0]!],
    "the next stream": await scores(device, { ...size, stream: 1, seed: 1 }),
    "the next seed": await scores(device, { ...size, stream: 0, seed: 2 }),
  };
  for (const [name, other] of Object.entries(others)) {
    const covariance = first.reduce((sum, score, i) => sum + (score - 0.5) * (other[i]! - 0.5), 0) /
      first.length;
    assertAlmostEquals(covariance * 12, 0, 5 / Math.sqrt(first.length), name);
  }
});
