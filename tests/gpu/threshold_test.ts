import { assertEquals, assertThrows } from "@std/assert";
import { Commands } from "../../gpu/commands.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import { gate } from "../../gpu/kernels/gate.ts";
import { thresholdSelect } from "../../gpu/kernels/threshold.ts";
import { dynamicPacking, fixedPacking } from "../../gpu/packing.ts";
import * as reference from "../reference/threshold.ts";
import { blank, blankIndices, gpuTest, run, upload } from "../support/device.ts";
import { asHardware } from "../support/hardware.ts";
import { allPositions, recordRows, uploadPacking } from "../support/packing.ts";
import { createRandom, type Random } from "../support/random.ts";

interface Case {
  readonly positions: readonly (readonly number[])[];
  readonly tokens: number;
  readonly threshold: number;
  readonly spare?: number;
  readonly scores?: "candidate" | "state";
  /** Draws one logit; standard normal unless told. */
  readonly draw?: (random: Random) => number;
}

const cases: Record<string, Case> = {
  "of whole sequences": { positions: allPositions({ sequences: 4, tokens: 64 }), tokens: 64, threshold: 0 },
  "of survivors, some sequences without any": {
    positions: [[1, 2, 5, 8, 9], [], [0, 3, 4, 6, 7, 8, 9], [], [2]],
    tokens: 10,
    threshold: -0.3,
  },
  "of one token": { positions: [[3]], tokens: 5, threshold: -9 },
  "when none is above": { positions: allPositions({ sequences: 2, tokens: 33 }), tokens: 33, threshold: 9 },
  "when all are above": { positions: allPositions({ sequences: 2, tokens: 33 }), tokens: 33, threshold: -9 },
  "but not those at the threshold": {
    positions: allPositions({ sequences: 2, tokens: 50 }),
    tokens: 50,
    threshold: 1,
    draw: (random) => random.integer(3),
  },
  "but not those without a number": {
    positions: allPositions({ sequences: 2, tokens: 50 }),
    tokens: 50,
    threshold: 0,
    draw: (random) => random.uniform() < 0.5 ? NaN : random.normal(),
  },
  "of fewer candidates than there is room for": {
    positions: [[1, 4], [0, 2, 3]],
    tokens: 5,
    threshold: 0,
    spare: 95,
  },
  "of no candidates": { positions: [[], []], tokens: 5, threshold: 0, spare: 10 },
  "of 70,000 candidates": {
    positions: allPositions({ sequences: 2, tokens: 35_000 }),
    tokens: 35_000,
    threshold: 0.2,
  },
  "of whole sequences, scored by state row": {
    positions: allPositions({ sequences: 3, tokens: 41 }),
    tokens: 41,
    threshold: 2,
    scores: "state",
    draw: (random) => 1 + random.integer(3),
  },
  "of survivors, scored by state row": {
    positions: [[1, 2, 5, 8, 9], [], [0, 3, 4, 6, 7, 8, 9], [], [2]],
    tokens: 10,
    threshold: -0.3,
    spare: 20,
    scores: "state",
  },
  "of no candidates, scored by state row": {
    positions: [[], []],
    tokens: 5,
    threshold: 0,
    spare: 10,
    scores: "state",
  },
  "of 70,000 candidates, scored by state row": {
    positions: allPositions({ sequences: 2, tokens: 35_000 }),
    tokens: 35_000,
    threshold: 0.2,
    scores: "state",
  },
};

async function checkCase(
  device: GpuDevice,
  { positions, tokens, threshold, spare, scores = "candidate", draw = (random) => random.normal() }: Case,
): Promise<void> {
  const random = createRandom(6);
  const slots = positions.flatMap((kept, sequence) => kept.map((position) => ({ sequence, position })));
  const stateRows = slots.map(({ sequence, position }) => sequence * tokens + position);
  const logits = Float32Array.from(slots, () => draw(random));
  const candidates = uploadPacking(device, { positions, tokens, spare });
  const { maximum } = candidates.rows;
  const packing = dynamicPacking(device, { maximum });
  // Other scores would pass, those past the count or of tokens that are no candidates: they must stay out.
  const places = scores === "state" ? stateRows : slots.keys();
  const values = new Float32Array(Math.max(maximum, positions.length * tokens)).fill(99);
  Array.from(places).forEach((place, i) => values[place] = logits[i]!);
  const scoreTensor = upload(device, values);
  const logitTensor = upload(device, Float32Array.from({ length: maximum }, (_, i) => logits[i] ?? 99));
  const [prefix, chosen] = [blankIndices(device, [maximum + 1]), blankIndices(device, [maximum])];
  const gates = blank(device, [maximum]);
  const [count, chosenValues, records, gateValues] = await run(device, (commands) => {
    recordRows(commands, candidates.rows);
    const tensors = { logits: scoreTensor, candidates, prefix, chosen, packing };
    const settings = scores === "candidate" ? { threshold } : { threshold, scores }; // it is the default
    thresholdSelect(commands, tensors, settings);
    gate(commands, { logits: logitTensor, chosen, gates }, {
      rows: packing.rows,
      alpha: 1,
      function: "none",
    });
  }, [packing.rows.count, chosen, packing.records, gates]);

  const lengths = positions.map((kept) => kept.length);
  const comparable = Float64Array.from(logits, (logit) => Number.isNaN(logit) ? -Infinity : logit);
  const expected = reference.thresholdChoice({ logits: comparable, lengths }, { threshold });
  const kept = expected.chosen.length;
  assertEquals([...count!], [kept]);
  assertEquals([...chosenValues!.subarray(0, kept)], [...expected.chosen]);
  assertEquals(
    [...records!.subarray(0, kept * 4)],
    [...expected.chosen].flatMap((slot, row) => {
      const { position } = slots[slot]!;
      return [stateRows[slot]!, position, expected.spans[row * 2]!, expected.spans[row * 2 + 1]!];
    }),
  );
  // A kernel that is dispatched for the kept rows sees just those.
  assertEquals([...gateValues!.subarray(0, kept)], [...expected.chosen].map((slot) => logits[slot]!));
  assertEquals(gateValues!.subarray(kept).every(Number.isNaN), true);
}

for (const [name, settings] of Object.entries(cases)) {
  const title = `thresholdSelect keeps the tokens above the threshold ${name}`;
  gpuTest(title, (device) => checkCase(device, settings));
  gpuTest(`${title}, hardware launch shapes`, (device) => checkCase(asHardware(device), settings));
}

gpuTest("thresholdSelect refuses a packing of a fixed number of rows", (device) => {
  const candidates = uploadPacking(device, { positions: [[0]], tokens: 1 });
  const tensors = {
    logits: blank(device, [1]),
    candidates,
    prefix: blankIndices(device, [2]),
    chosen: blankIndices(device, [1]),
    packing: fixedPacking(device, { count: 1 }),
  };
  const commands = new Commands(device, "test");
  assertThrows(() => thresholdSelect(commands, tensors, { threshold: 0 }), TypeError, "fixed number of rows");
  return Promise.resolve();
});
