/** A batch under a long, irregular load: texts come, end and are taken back at random, and nothing may be left behind. */
import { assertEquals } from "@std/assert";
import type { GpuDevice } from "../../gpu/device.ts";
import { BatchEngine } from "../../model/batching/batch_engine.ts";
import type { BatchRequest } from "../../model/batching/batch_request.ts";
import { GREEDY } from "../../model/sampling.ts";
import { tinyRecursiveConfig, tinyTokenRouter } from "../reference/tiny_model.ts";
import { type BatchModel, CAPACITY, leastBytes } from "./batch_workload.ts";
import { roundedModel, uploadModel } from "./gpu_model.ts";
import { createRandom } from "./random.ts";

/** How a soak went. */
export interface SoakReport {
  readonly waves: number;
  readonly texts: number;
  readonly cancelled: number;
  readonly tokens: number;
  readonly restarts: number;
  /** Texts that were asked for again, and were the same. */
  readonly repeated: number;
  /** Bytes in use after the first quarter of the time, and at the end. */
  readonly bytesBefore: number;
  readonly bytesAfter: number;
}

/** Requests that come again and again. */
const KINDS = 40;

/** Seconds of arrivals before the batch runs empty. */
const WAVE_SECONDS = 2;

/** Resident memory of the process, and of the JavaScript heap what is used: V8 grows and shrinks the rest at leisure. */
function bytesInUse(): number {
  const { rss, heapTotal, heapUsed } = Deno.memoryUsage();
  return rss - heapTotal + heapUsed;
}

/** A small model whose texts go to all depths. */
function soakModel(device: GpuDevice): BatchModel {
  const config = tinyRecursiveConfig({ sharing: "middle_cycle", numRecursions: 3, blockLayers: 2 }, {
    router: tinyTokenRouter(),
    maxPositionEmbeddings: 64,
  });
  return uploadModel(device, roundedModel(config, { seed: 26 }));
}

/**
 * Loads a batch for some seconds. After each wave every page must be free and the device hold the bytes that it held
 * before, and a text that was asked for before must be the same again.
 *
 * @throws AssertionError for anything left behind.
 */
export async function soak(
  device: GpuDevice,
  { seconds, seed }: { seconds: number; seed: number },
): Promise<SoakReport> {
  const model = soakModel(device);
  const random = createRandom(seed);
  const { config } = model;
  const kinds = Array.from({ length: KINDS }, (_, kind): BatchRequest => {
    const prompt = Array.from({ length: 1 + random.integer(20) }, () => random.integer(config.vocabSize));
    const count = 1 + random.integer(CAPACITY + 1 - prompt.length);
    return { prompt, count, sampling: { ...GREEDY, temperature: kind % 2, seed: kind } };
  });
  /** Texts by their waves' depth and their kind. */
  const known = new Map<string, string>();
  using engine = new BatchEngine(device, {
    ...model,
    ...{ rows: 6, slots: 20, ticks: 3, capacity: CAPACITY, kvDtype: "f32", endTokens: [1] },
    // Little enough that texts have to wait, and sometimes to begin anew.
    kvBytes: 5 * leastBytes(config, { capacity: CAPACITY, kvDtype: "f32" }),
  });
  const open = new Map<number, { kind: number; tokens: number[] }>();
  const totals = { waves: 0, texts: 0, cancelled: 0, repeated: 0 };
  /** Bytes on the device after the first wave, whose reads make what later ones use again. */
  let bytes = 0;
  const start = performance.now();
  const elapsed = (): number => (performance.now() - start) / 1000;
  let bytesBefore = 0;
  let depth = 0;

  async function advance(): Promise<void> {
    for (const event of await engine.advance()) {
      if (event.kind === "error") throw event.error;
      const text = open.get(event.request)!;
      if (event.kind === "token") {
        text.tokens.push(event.token.id);
        continue;
      }
      open.delete(event.request);
      totals.texts++;
      const words = text.tokens.join(" ");
      const name = `${text.kind} at depth ${depth}`;
      const whole = known.get(name);
      if (event.reason === "cancelled") {
        totals.cancelled++;
        if (whole !== undefined) {
          assertEquals(whole.slice(0, words.length), words, `the beginning of text ${name}`);
        }
      } else if (whole === undefined) known.set(name, words);
      else {
        assertEquals(words, whole, `text ${name} again`);
        totals.repeated++;
      }
    }
  }

  while (elapsed() < seconds) {
    const end = Math.min(seconds, elapsed() + WAVE_SECONDS);
    // The memory is shared out by the mean depth: with every token at full depth texts outgrow it.
    depth = totals.waves % 2 === 1 ? config.recursion!.numRecursions : 0;
    engine.forceDepth(depth);
    // Some waves are a few texts at a time, others more than there is room for.
    const rate = random.uniform() * 3;
    while (elapsed() < end) {
      for (let i = random.uniform() * 2 * rate; i > 1 && open.size < 60; i--) {
        const kind = random.integer(KINDS);
        open.set(engine.add(kinds[kind]!), { kind, tokens: [] });
      }
      for (const request of open.keys()) if (random.uniform() < 0.01) engine.cancel(request);
      await advance();
    }
    if (random.uniform() < 0.3) { for (const request of open.keys()) engine.cancel(request); }
    while (open.size > 0) await advance();
    await engine.advance();
    const { pages, live, waiting } = engine.statistics;
    assertEquals({ pages, live, waiting }, { pages: 0, live: 0, waiting: 0 }, `wave ${totals.waves + 1}`);
    bytes ||= device.memory.live;
    assertEquals(device.memory.live, bytes, `bytes on the device after wave ${totals.waves + 1}`);
    totals.waves++;
    if (bytesBefore === 0 && elapsed() > seconds / 4) bytesBefore = bytesInUse();
  }
  const { tokens, restarts } = engine.statistics;
  return { ...totals, tokens, restarts, bytesBefore, bytesAfter: bytesInUse() };
}
