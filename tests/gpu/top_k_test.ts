import { assertEquals, assertThrows } from "@std/assert";
import { Commands, submit } from "../../gpu/commands.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import { topK } from "../../gpu/kernels/top_k.ts";
import { fixedPacking, type Packing } from "../../gpu/packing.ts";
import { readTensors } from "../../gpu/readback.ts";
import { type Tensor, writeTensor } from "../../gpu/tensor.ts";
import * as reference from "../reference/top_k.ts";
import { blank, blankIndices, gpuTest } from "../support/device.ts";
import { asHardware } from "../support/hardware.ts";
import { allPositions } from "../support/packing.ts";
import { createRandom, type Random } from "../support/random.ts";

interface Case {
  /** Candidates of each sequence, as positions among its tokens. */
  readonly positions: readonly (readonly number[])[];
  readonly tokens: number;
  /** Kept candidates of each sequence. */
  readonly kept: readonly number[];
  /** Rows left out before each sequence's candidates, and before its kept rows; none unless told. */
  readonly gap?: number;
  /** Draws one logit; standard normal unless told. */
  readonly draw?: (random: Random) => number;
}

/** Sequences of one length, all tokens candidates, of which each keeps the same number. */
function all(
  { sequences = 1, tokens, kept, ...rest }:
    & { sequences?: number; kept: number }
    & Omit<Case, "positions" | "kept">,
): Case {
  const positions = allPositions({ sequences, tokens });
  return { positions, tokens, kept: positions.map(() => kept), ...rest };
}

/** Sequences of different lengths, all tokens candidates. */
function ragged(
  { lengths, ...rest }: { lengths: readonly number[] } & Omit<Case, "positions" | "tokens">,
): Case {
  const positions = lengths.map((tokens) => allPositions({ sequences: 1, tokens })[0]!);
  return { positions, tokens: Math.max(...lengths), ...rest };
}

const few = [-Infinity, -1, -0, 0, 1e-40, 1, Infinity];
const cases: Record<string, Case> = {
  "half of the tokens": all({ sequences: 4, tokens: 16, kept: 8 }),
  "an odd part of an odd number": all({ sequences: 3, tokens: 137, kept: 45 }),
  "one of many": all({ sequences: 2, tokens: 100, kept: 1 }),
  "all but one": all({ sequences: 2, tokens: 100, kept: 99 }),
  "all": all({ sequences: 2, tokens: 70, kept: 70 }),
  "the only one": all({ tokens: 1, kept: 1 }),
  "none of no candidates": ragged({ lengths: [0, 0], kept: [0, 0], gap: 2 }),
  "survivors of an earlier choice": {
    positions: [[1, 2, 5, 8, 9], [0, 3, 4, 6, 7], [0, 1, 2, 3, 9]],
    tokens: 10,
    kept: [3, 3, 3],
  },
  "its own number of each sequence's own length": ragged({
    lengths: [5, 0, 333, 1, 64, 90],
    kept: [2, 0, 111, 1, 64, 1],
  }),
  "what the ranges tell and leaves the other rows alone": ragged({
    lengths: [6, 0, 50],
    kept: [4, 0, 9],
    gap: 3,
  }),
  "the lower index of equals": all({
    sequences: 2,
    tokens: 700,
    kept: 400,
    draw: (random) => few[random.integer(7)]!,
  }),
  "the first when all are equal": all({ tokens: 500, kept: 123, draw: () => -0.25 }),
  "by the last bits": all({ tokens: 600, kept: 200, draw: (random) => 1 + random.integer(400) * 2 ** -23 }),
  "of more than one invocation may loop over": ragged({ lengths: [3, 70_000], kept: [1, 31_007] }),
};

/** Content of a row that must stay as it is. */
const UNTOUCHED = 0xffffffff;

interface Range {
  readonly firstCandidate: number;
  readonly candidates: number;
  readonly firstKept: number;
  readonly kept: number;
}

function rangesOf({ positions, kept, gap = 0 }: Case): Range[] {
  let [candidateRows, keptRows] = [0, 0];
  return positions.map(({ length }, b) => {
    const range = {
      firstCandidate: candidateRows + gap,
      candidates: length,
      firstKept: keptRows + gap,
      kept: kept[b]!,
    };
    candidateRows = range.firstCandidate + range.candidates;
    keptRows = range.firstKept + range.kept;
    return range;
  });
}

/** Buffers for `candidates` rows of candidates and `kept` kept rows, of `sequences` sequences. */
interface Buffers {
  readonly logits: Tensor;
  readonly candidates: Packing;
  readonly ranges: Tensor;
  readonly chosen: Tensor;
  readonly labels: Tensor;
  readonly packing: Packing;
}

function allocate(
  device: GpuDevice,
  { sequences, candidates, kept }: { sequences: number; candidates: number; kept: number },
): Buffers {
  return {
    logits: blank(device, [candidates]),
    candidates: fixedPacking(device, { count: candidates }),
    ranges: blankIndices(device, [sequences, 4]),
    chosen: blankIndices(device, [kept]),
    labels: blank(device, [candidates]),
    packing: fixedPacking(device, { count: kept }),
  };
}

/** What the kernel reads and must write, by the reference; outputs are NaN or `UNTOUCHED` where it must not write. */
function expectedOf(
  settings: Case,
  { candidates, kept, logits }: { candidates: number; kept: number; logits: Float32Array },
): { records: Uint32Array<ArrayBuffer>; chosen: number[]; labels: number[]; packing: number[] } {
  const records = new Uint32Array(candidates * 4).fill(UNTOUCHED);
  const chosen = new Array<number>(kept).fill(UNTOUCHED);
  const labels = new Array<number>(candidates).fill(NaN);
  const packing = new Array<number>(kept * 4).fill(UNTOUCHED);
  rangesOf(settings).forEach(({ firstCandidate: first, firstKept, ...range }, b) => {
    settings.positions[b]!.forEach((position, i) => {
      records.set([b * settings.tokens + position, position], (first + i) * 4);
      labels[first + i] = 0;
    });
    const own = Float64Array.from(logits.subarray(first, first + range.candidates));
    reference.topK({ logits: own }, { candidates: range.candidates, k: range.kept }).forEach((i, j) => {
      chosen[firstKept + j] = first + i;
      labels[first + i] = 1;
      const record = [
        ...records.subarray((first + i) * 4, (first + i) * 4 + 2),
        firstKept,
        firstKept + range.kept,
      ];
      packing.splice((firstKept + j) * 4, 4, ...record);
    });
  });
  return { records, chosen, labels, packing };
}

/** Names the first difference; a report of all of them would not end for the longest case. */
function assertSame(actual: ArrayLike<number>, expected: readonly number[], label: string): void {
  assertEquals(actual.length, expected.length, label);
  const i = expected.findIndex((value, i) => !Object.is(actual[i], value));
  assertEquals(i, -1, `${label}: at index ${i} met ${actual[i]}, expected ${expected[i]}`);
}

/** Records one program for the largest of the cases and runs it with each one's ranges. */
async function checkCases(device: GpuDevice, list: readonly Case[]): Promise<void> {
  const last = list.map((settings) => rangesOf(settings).at(-1)!);
  const sizes = {
    sequences: Math.max(...list.map(({ positions }) => positions.length)),
    candidates: Math.max(...last.map(({ firstCandidate, candidates }) => firstCandidate + candidates)),
    kept: Math.max(...last.map(({ firstKept, kept }) => firstKept + kept)),
  };
  const longest = Math.max(...list.flatMap(({ positions }) => positions.map(({ length }) => length)));
  const buffers = allocate(device, sizes);
  const commands = new Commands(device, "test");
  topK(commands, buffers, { sequences: sizes.sequences, longest });
  for (const settings of list) {
    const random = createRandom(2);
    const { draw = (): number => random.normal() } = settings;
    const logits = Float32Array.from({ length: sizes.candidates }, () => draw(random));
    const expected = expectedOf(settings, { ...sizes, logits });
    const ranges = new Uint32Array(sizes.sequences * 4);
    ranges.set(rangesOf(settings).flatMap((range) => Object.values(range)));
    writeTensor(device, buffers.ranges, ranges);
    writeTensor(device, buffers.logits, logits);
    writeTensor(device, buffers.candidates.records, expected.records);
    writeTensor(device, buffers.chosen, new Uint32Array(sizes.kept).fill(UNTOUCHED));
    writeTensor(device, buffers.labels, new Float32Array(sizes.candidates).fill(NaN));
    writeTensor(device, buffers.packing.records, new Uint32Array(sizes.kept * 4).fill(UNTOUCHED));
    submit(device, [commands]);
    const outputs = [buffers.chosen, buffers.labels, buffers.packing.records];
    const [chosen, labels, packing] = await readTensors(device, outputs);
    assertSame(chosen!, expected.chosen, "chosen");
    assertSame(labels!, expected.labels, "labels");
    assertSame(packing!, expected.packing, "packing");
  }
  commands.destroy();
}

for (const [name, settings] of Object.entries(cases)) {
  gpuTest(`topK keeps ${name}`, (device) => checkCases(device, [settings]));
  gpuTest(
    `topK keeps ${name}, hardware launch shapes`,
    (device) => checkCases(asHardware(device), [settings]),
  );
}

gpuTest("topK recorded once follows the ranges of each run", (device) =>
  checkCases(device, [
    ragged({ lengths: [40, 40, 40], kept: [20, 20, 20] }),
    ragged({ lengths: [40, 40, 40], kept: [13, 13, 13] }),
    ragged({ lengths: [7, 99], kept: [5, 80] }),
    ragged({ lengths: [0], kept: [0], gap: 1 }),
  ]));

gpuTest("topK keeps the wanted number of candidates whose logits are not numbers", async (device) => {
  const buffers = allocate(device, { sequences: 1, candidates: 200, kept: 30 });
  writeTensor(device, buffers.ranges, Uint32Array.of(0, 200, 0, 30));
  const commands = new Commands(device, "test");
  topK(commands, buffers, { sequences: 1, longest: 200 }); // blank logits are NaN
  submit(device, [commands]);
  const [chosen] = await readTensors(device, [buffers.chosen]);
  assertEquals([...chosen!], [...Array(30).keys()]);
});

gpuTest("topK refuses too many candidates and too few ranges", (device) => {
  const commands = new Commands(device, "test");
  const buffers = allocate(device, { sequences: 1, candidates: 4, kept: 2 });
  assertThrows(
    () => topK(commands, buffers, { sequences: 1, longest: 4_000_000 }),
    RangeError,
    "lower --sequence-length",
  );
  assertThrows(() => topK(commands, buffers, { sequences: 2, longest: 4 }), TypeError, "ranges");
  return Promise.resolve();
});
