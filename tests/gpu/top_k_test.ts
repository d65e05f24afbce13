import { assertEquals, assertThrows } from "@std/assert";
import { Commands } from "../../gpu/commands.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import { topK } from "../../gpu/kernels/top_k.ts";
import { fixedPacking } from "../../gpu/packing.ts";
import * as reference from "../reference/top_k.ts";
import { blank, blankIndices, gpuTest, run, upload } from "../support/device.ts";
import { asHardware } from "../support/hardware.ts";
import { allPositions, uploadPacking } from "../support/packing.ts";
import { createRandom, type Random } from "../support/random.ts";

interface Case {
  readonly positions: readonly (readonly number[])[];
  readonly tokens: number;
  readonly kept: number;
  /** Draws one logit; standard normal unless told. */
  readonly draw?: (random: Random) => number;
}

/** All tokens are candidates. */
function all({ sequences = 1, tokens, ...rest }: { sequences?: number } & Omit<Case, "positions">): Case {
  return { positions: allPositions({ sequences, tokens }), tokens, ...rest };
}

const few = [-Infinity, -1, -0, 0, 1e-40, 1, Infinity];
const cases: Record<string, Case> = {
  "half of the tokens": all({ sequences: 4, tokens: 16, kept: 8 }),
  "an odd part of an odd number": all({ sequences: 3, tokens: 137, kept: 45 }),
  "one of many": all({ sequences: 2, tokens: 100, kept: 1 }),
  "all but one": all({ sequences: 2, tokens: 100, kept: 99 }),
  "all": all({ sequences: 2, tokens: 70, kept: 70 }),
  "the only one": all({ tokens: 1, kept: 1 }),
  "survivors of an earlier choice": {
    positions: [[1, 2, 5, 8, 9], [0, 3, 4, 6, 7], [0, 1, 2, 3, 9]],
    tokens: 10,
    kept: 3,
  },
  "the lower index of equals": all({
    sequences: 2,
    tokens: 700,
    kept: 400,
    draw: (random) => few[random.integer(7)]!,
  }),
  "the first when all are equal": all({ tokens: 500, kept: 123, draw: () => -0.25 }),
  "by the last bits": all({ tokens: 600, kept: 200, draw: (random) => 1 + random.integer(400) * 2 ** -23 }),
  "of more than one invocation may loop over": all({ tokens: 70_000, kept: 31_007 }),
};

async function runTopK(
  device: GpuDevice,
  { positions, tokens, kept, logits }: Omit<Case, "draw"> & { logits: Float32Array },
): Promise<{ chosen: number[]; labels: number[]; records: number[] }> {
  const sequences = positions.length;
  const candidates = uploadPacking(device, { positions, tokens });
  const packing = fixedPacking(device, { sequences, kept });
  const chosen = blankIndices(device, [sequences * kept]);
  const labels = blank(device, [logits.length]);
  const [chosenValues, labelValues, records] = await run(device, (commands) => {
    const tensors = { logits: upload(device, logits), candidates, chosen, labels, packing };
    topK(commands, tensors, { sequences, candidatesPerSequence: logits.length / sequences, kept });
  }, [chosen, labels, packing.records]);
  return { chosen: [...chosenValues!], labels: [...labelValues!], records: [...records!] };
}

async function checkCase(
  device: GpuDevice,
  { positions, tokens, kept, draw = (random) => random.normal() }: Case,
): Promise<void> {
  const random = createRandom(2);
  const candidates = positions[0]!.length;
  const logits = Float32Array.from({ length: positions.length * candidates }, () => draw(random));
  const actual = await runTopK(device, { positions, tokens, kept, logits });

  const chosen = [...reference.topK({ logits: Float64Array.from(logits) }, { candidates, k: kept })];
  assertEquals(actual.chosen, chosen);
  const isKept = new Set(chosen);
  assertEquals(actual.labels, [...logits.keys()].map((i) => isKept.has(i) ? 1 : 0));
  assertEquals(
    actual.records,
    chosen.flatMap((slot) => {
      const sequence = Math.floor(slot / candidates);
      const position = positions[sequence]![slot % candidates]!;
      return [sequence * tokens + position, position, sequence * kept, (sequence + 1) * kept];
    }),
  );
}

for (const [name, settings] of Object.entries(cases)) {
  gpuTest(`topK keeps ${name}`, (device) => checkCase(device, settings));
  gpuTest(`topK keeps ${name}, hardware launch shapes`, (device) => checkCase(asHardware(device), settings));
}

gpuTest("topK keeps the wanted number of candidates whose logits are not numbers", async (device) => {
  const logits = new Float32Array(200).fill(NaN);
  const { chosen } = await runTopK(device, { ...all({ tokens: 200, kept: 30 }), logits });
  assertEquals(chosen, [...Array(30).keys()]);
});

gpuTest("topK refuses to keep none, more than there are, or among too many", (device) => {
  function record({ tokens, kept }: { tokens: number; kept: number }): void {
    const packing = {
      rows: { count: blank(device, [1]), maximum: 1, indirect: null },
      records: blank(device, [1, 4]),
    };
    const scalar = blank(device, [tokens]);
    const records = { ...packing, records: { ...packing.records, shape: [tokens, 4] } };
    const tensors = { logits: scalar, candidates: records, chosen: scalar, labels: scalar, packing: records };
    topK(new Commands(device, "test"), tensors, { sequences: 1, candidatesPerSequence: tokens, kept });
  }
  assertThrows(() => record({ tokens: 4, kept: 0 }), RangeError, "0 of 4");
  assertThrows(() => record({ tokens: 4, kept: 5 }), RangeError, "5 of 4");
  assertThrows(() => record({ tokens: 4_000_000, kept: 5 }), RangeError, "--sequence-length");
  return Promise.resolve();
});
