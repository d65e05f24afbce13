import { assertEquals, assertThrows } from "@std/assert";
import { Commands } from "../../gpu/commands.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import type { GateFunction } from "../../gpu/kernels/gate.ts";
import { SLOT_FIELD_COUNT } from "../../gpu/kernels/slot_fields.ts";
import { enterAll, enterByDepth, recurByDepth, routeByScore } from "../../gpu/kernels/slot_route.ts";
import { fixedPacking, type Packing } from "../../gpu/packing.ts";
import { type Tensor, writeTensor } from "../../gpu/tensor.ts";
import * as reference from "../reference/gate.ts";
import type { SlotText } from "../reference/slot_select.ts";
import { assertClose } from "../support/close.ts";
import { blank, gpuTest, run, upload, uploadIndices } from "../support/device.ts";
import { asHardware } from "../support/hardware.ts";
import { createRandom, type Random } from "../support/random.ts";
import { assertSame, randomText, SLOT_PHASES, slotData } from "../support/slot_batch.ts";
import { shuffled } from "../support/text_pages.ts";

/** The score above which a step runs for all tokens, as the batch's router writes it. */
const ALWAYS = Math.fround(-3.4e38);

interface Case {
  readonly slots: number;
  readonly count: number;
  readonly maximum: number;
  readonly steps: number;
}

const cases: Record<string, Case> = {
  "tidy sizes": { slots: 128, count: 64, maximum: 64, steps: 4 },
  "odd sizes": { slots: 192, count: 117, maximum: 117, steps: 3 },
  "all slots": { slots: 640, count: 640, maximum: 640, steps: 3 },
  "one row": { slots: 64, count: 1, maximum: 1, steps: 2 },
  "one recursion step": { slots: 64, count: 40, maximum: 40, steps: 1 },
  "sixteen recursion steps": { slots: 192, count: 150, maximum: 150, steps: 16 },
  "fewer rows than there is room for": { slots: 64, count: 13, maximum: 64, steps: 3 },
  "no rows": { slots: 64, count: 0, maximum: 20, steps: 3 },
  "70,000 rows": { slots: 70_016, count: 70_000, maximum: 70_000, steps: 3 },
};

/** Texts in slots, some of which are rows. */
interface Routed {
  readonly random: Random;
  readonly texts: SlotText[];
  /** Slots of the rows. */
  readonly rows: readonly number[];
  readonly packing: Packing;
  readonly slots: Tensor;
  /** (S) */
  readonly gates: Float32Array<ArrayBuffer>;
}

function randomRouted(device: GpuDevice, { slots: size, count, maximum, steps }: Case): Routed {
  const random = createRandom(14);
  const texts = Array.from({ length: size }, () => {
    return randomText(random, { phase: SLOT_PHASES[random.integer(3)]!, capacity: 64, steps });
  });
  const all = shuffled(random, size).slice(0, maximum);
  const packing = fixedPacking(device, { count: maximum });
  writeTensor(device, packing.records, Uint32Array.from(all.flatMap((slot) => [slot, 1, 2, 3])));
  writeTensor(device, packing.rows.count, Uint32Array.of(count));
  const rows = all.slice(0, count);
  for (const slot of rows) texts[slot]!.step = random.integer(steps);
  return {
    random,
    texts,
    rows,
    packing,
    slots: uploadIndices(device, slotData(texts), [SLOT_FIELD_COUNT, size]),
    gates: Float32Array.from(random.normals(size)),
  };
}

/** Registers a test of every case, on the device as it is and as a hardware GPU. */
function routeTest(name: string, check: (device: GpuDevice, settings: Case) => Promise<void>): void {
  for (const [title, settings] of Object.entries(cases)) {
    gpuTest(`${name}: ${title}`, async (device) => {
      await check(device, settings);
      await check(asHardware(device), settings);
    });
  }
}

routeTest("enterAll sends rows into the recursion for all its steps", async (device, settings) => {
  const { steps } = settings;
  const { texts, rows, packing, slots } = randomRouted(device, settings);
  const [met] = await run(device, (commands) => enterAll(commands, { slots, packing }, { steps }), [slots]);
  for (const slot of rows) Object.assign(texts[slot]!, { phase: "recurring", step: 0, depth: steps });
  assertSame(met!, slotData(texts), "slots");
});

routeTest("enterByDepth sends rows into the recursion for their depths", async (device, settings) => {
  const { random, texts, rows, packing, slots, gates: before } = randomRouted(device, settings);
  const { maximum, steps } = settings;
  const depths = Array.from({ length: maximum }, () => 1 + random.integer(steps));
  const rowGates = Float32Array.from(random.normals(maximum));
  const gates = upload(device, before);
  const tensors = { depths: upload(device, depths), rowGates: upload(device, rowGates), gates };
  const [met, metGates] = await run(
    device,
    (commands) => enterByDepth(commands, { slots, packing, ...tensors }),
    [slots, gates],
  );
  rows.forEach((slot, row) => {
    Object.assign(texts[slot]!, { phase: "recurring", step: 0, depth: depths[row]! });
    before[slot] = rowGates[row]!;
  });
  assertSame(met!, slotData(texts), "slots");
  assertSame(metGates!, before, "gates");
});

routeTest("recurByDepth counts a step and lets rows leave after their last", async (device, settings) => {
  const { random, texts, rows, packing, slots } = randomRouted(device, settings);
  for (const slot of rows) {
    const text = texts[slot]!;
    Object.assign(text, { phase: "recurring", depth: text.step + 1 + random.integer(2) });
  }
  writeTensor(device, slots, slotData(texts));
  for (let i = 0; i < 3; i++) {
    const [met] = await run(device, (commands) => recurByDepth(commands, { slots, packing }), [slots]);
    for (const slot of rows) {
      const text = texts[slot]!;
      text.step++;
      text.phase = text.step < text.depth ? "recurring" : "leaving";
    }
    assertSame(met!, slotData(texts), `slots after call ${i + 1}`);
  }
});

/** Sends rows where their scores say and returns how many go on. */
function routeRows(
  { texts, rows, gates }: Pick<Routed, "texts" | "rows" | "gates">,
  { logits, deciding, thresholds }: Record<"logits" | "deciding" | "thresholds", ArrayLike<number>>,
  { isEntry, ...settings }: { isEntry: boolean } & reference.GateSettings,
): number {
  const steps = thresholds.length;
  let goOn = 0;
  rows.forEach((slot, row) => {
    const text = texts[slot]!;
    text.step = isEntry ? 0 : text.step + 1;
    const place = row * steps + text.step;
    const passes = text.step < steps && deciding[place]! > thresholds[text.step]!;
    text.phase = passes ? "recurring" : "leaving";
    if (!passes) return;
    goOn++;
    const logit = Float64Array.of(logits[place]!);
    gates[slot] = reference.gate({ logits: logit, chosen: [0] }, settings)[0]!;
  });
  return goOn;
}

const functions: Record<GateFunction, number> = { sigmoid: 0.1, tanh: 2, none: 1 };

for (const [name, alpha] of Object.entries(functions) as [GateFunction, number][]) {
  for (const isEntry of [true, false]) {
    const title = `routeByScore ${name} routes rows that ${isEntry ? "enter" : "have run a step"}`;
    routeTest(title, async (device, settings) => {
      const { maximum, steps } = settings;
      for (const hasAuxiliary of [false, true]) {
        const routed = randomRouted(device, settings);
        const { random, texts, rows, packing, slots, gates: expected } = routed;
        const before = Float32Array.from(expected);
        // Few values, so that many scores equal their threshold and must not pass.
        const draw = (): number[] =>
          Array.from({ length: maximum * steps }, () => (random.integer(7) - 3) / 2);
        const logits = draw();
        const deciding = hasAuxiliary ? draw() : logits;
        const thresholds = Array.from(
          { length: steps },
          (_, step) => step === 0 ? ALWAYS : (step % 3 - 1) / 2,
        );
        const shape = [maximum, steps];
        const scores = upload(device, logits, shape);
        const tensors = {
          logits: scores,
          deciding: hasAuxiliary ? upload(device, deciding, shape) : scores,
          thresholds: upload(device, thresholds),
          gates: upload(device, before),
        };
        const gating = { isEntry, alpha, function: name };
        const [met, metGates] = await run(
          device,
          (commands) => routeByScore(commands, { slots, packing, ...tensors }, gating),
          [slots, tensors.gates],
        );
        const goOn = routeRows({ texts, rows, gates: expected }, { logits, deciding, thresholds }, gating);
        if (isEntry) assertEquals(goOn, rows.length);
        assertSame(met!, slotData(texts), "slots");
        assertClose(metGates!, expected, { relative: 2e-6, label: "gates" });
        const others = new Set(rows.filter((slot) => texts[slot]!.phase === "recurring"));
        const kept = [...before.keys()].filter((slot) => !others.has(slot));
        assertSame(kept.map((s) => metGates![s]!), kept.map((s) => before[s]!), "gates of slots that leave");
      }
    });
  }
}

gpuTest(
  "routeByScore lets a score pass that is above its threshold by the least, and no other",
  async (device) => {
    const near = [1 - 2 ** -24, 1, 1 + 2 ** -23, 0, -0, 2 ** -126, -1, -Infinity, Infinity, ALWAYS];
    for (const threshold of [1, 0, ALWAYS]) {
      const { texts, rows, packing, slots, gates: before } = randomRouted(device, {
        ...{ slots: 64, count: near.length, maximum: near.length, steps: 1 },
      });
      const [logits, thresholds] = [upload(device, near, [near.length, 1]), upload(device, [threshold])];
      const gates = upload(device, before);
      const tensors = { logits, deciding: logits, thresholds, gates };
      const settings = { isEntry: true, alpha: 1, function: "none" as const };
      const [met] = await run(
        device,
        (commands) => routeByScore(commands, { slots, packing, ...tensors }, settings),
        [slots],
      );
      rows.forEach((slot, row) => {
        const phase = near[row]! > threshold ? "recurring" : "leaving";
        Object.assign(texts[slot]!, { step: 0, phase });
      });
      assertSame(met!, slotData(texts), `threshold ${threshold}`);
    }
  },
);

gpuTest("slots are routed only with tensors that fit", (device) => {
  const packing = fixedPacking(device, { count: 8 });
  const short = { ...packing, records: uploadIndices(device, new Uint32Array(28), [7, 4]) };
  const slots = uploadIndices(device, new Uint32Array(SLOT_FIELD_COUNT * 64), [SLOT_FIELD_COUNT, 64]);
  const commands = new Commands(device, "test");
  const of = (shape: readonly number[]): Tensor => blank(device, shape);
  const few = { depths: of([7]), rowGates: of([8]), gates: of([64]) };
  const scores = { logits: of([8, 3]), deciding: of([8, 2]), thresholds: of([3]), gates: of([64]) };
  const settings = { isEntry: true, alpha: 1, function: "none" as const };
  assertThrows(
    () => enterAll(commands, { slots, packing: short }, { steps: 2 }),
    TypeError,
    "packing has shape (7,4)",
  );
  assertThrows(() => enterByDepth(commands, { slots, packing, ...few }), TypeError, "depths has shape (7)");
  assertThrows(
    () => routeByScore(commands, { slots, packing, ...scores }, settings),
    TypeError,
    "deciding has shape (8,2), expected (8,3)",
  );
  return Promise.resolve();
});
