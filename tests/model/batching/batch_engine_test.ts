/** Depth-wise batching: every scheme's texts are those that each has alone; what is refused, cancelled and freed. */
import { assert, assertEquals, assertGreater, assertRejects, assertThrows } from "@std/assert";
import type { GpuDevice } from "../../../gpu/device.ts";
import { MemoryError } from "../../../gpu/errors.ts";
import { writeTensor } from "../../../gpu/tensor.ts";
import { BatchEngine } from "../../../model/batching/batch_engine.ts";
import type { BatchEvent } from "../../../model/batching/batch_events.ts";
import type { BatchRequest } from "../../../model/batching/batch_request.ts";
import type { BatchShape } from "../../../model/batching/batch_device.ts";
import { ConfigError, type ModelConfig } from "../../../model/config.ts";
import { GREEDY } from "../../../model/sampling.ts";
import { tinyConfig, tinyRecursiveConfig, tinyTokenRouter } from "../../reference/tiny_model.ts";
import {
  type BatchModel,
  type BatchText,
  decodeAlone,
  leastBytes,
  runWorkload,
} from "../../support/batch_workload.ts";
import { causalSchemes } from "../../support/causal_schemes.ts";
import { gpuTest } from "../../support/device.ts";
import { roundedModel, uploadModel } from "../../support/gpu_model.ts";
import { asHardware } from "../../support/hardware.ts";
import { asNarrow } from "../../support/narrow_device.ts";
import { createRandom } from "../../support/random.ts";

const capacity = 40;
const greedy = { ...GREEDY, seed: 0 };
const sampled = { ...GREEDY, temperature: 1, repeatPenalty: 1.2 };
const plenty = 4_000_000;

type Changes = Partial<Omit<BatchShape, "config" | "weights">>;

function shapeOf(changes: Changes = {}): Omit<BatchShape, "config" | "weights"> {
  return {
    rows: 4,
    slots: 6,
    ticks: 3,
    capacity,
    kvDtype: "f32",
    kvBytes: plenty,
    endTokens: [],
    ...changes,
  };
}

/** Requests of all lengths; one token at least, none longer than the capacity. */
function requestsOf(
  config: ModelConfig,
  { count, isSampled = false }: { count: number; isSampled?: boolean },
): BatchRequest[] {
  const random = createRandom(7);
  return Array.from({ length: count }, (_, i): BatchRequest => ({
    prompt: Array.from({ length: 1 + (i * 5) % 19 }, () => random.integer(config.vocabSize)),
    count: 1 + (i * 7) % 20,
    sampling: isSampled ? { ...sampled, seed: i } : greedy,
  }));
}

function parts({ tokens, reason }: BatchText): string {
  return `${tokens.map(({ id, depth }) => `${id}:${depth}`).join(" ")} ${reason}`;
}

/** Checks that requests that come together have the texts that they have alone. */
async function checkTogether(
  device: GpuDevice,
  model: BatchModel,
  { requests, changes = {} }: { requests: readonly BatchRequest[]; changes?: Changes },
): Promise<BatchEngine["statistics"]> {
  const shape = shapeOf(changes);
  const arrivals = requests.map((request) => ({ request, addAfter: 0, cancelAfter: null }));
  const { texts, statistics } = await runWorkload(device, model, { ...shape, arrivals, depth: 0 });
  const alone = await decodeAlone(device, model, { ...shape, requests });
  assertEquals(texts.map(parts), alone.map(parts));
  assertEquals([statistics.pages, statistics.live, statistics.waiting], [0, 0, 0]);
  return statistics;
}

function modelOf(device: GpuDevice, config: ModelConfig): BatchModel {
  return uploadModel(device, roundedModel(config, { seed: 26 }));
}

for (const [name, config] of Object.entries(causalSchemes)) {
  gpuTest(`texts together are those that each is alone: ${name}`, async (device) => {
    const model = modelOf(device, config);
    await checkTogether(device, model, { requests: requestsOf(config, { count: 11 }) });
  });

  gpuTest(`sampled texts, more rows than a vector product takes, f16 cache: ${name}`, async (device) => {
    const model = modelOf(device, config);
    const requests = requestsOf(config, { count: 30, isSampled: true });
    await checkTogether(device, model, { requests, changes: { rows: 20, slots: 70, kvDtype: "f16" } });
  });
}

const middleCycle = { sharing: "middle_cycle", numRecursions: 3, blockLayers: 2 } as const;
const tokenChoice = tinyRecursiveConfig(middleCycle, { router: tinyTokenRouter() });
const vanilla = tinyConfig();

gpuTest("the launch shapes of hardware change no text", async (device) => {
  const model = modelOf(device, tokenChoice);
  await checkTogether(asHardware(device), model, { requests: requestsOf(tokenChoice, { count: 9 }) });
});

gpuTest("keys and values in several banks change no text", async (device) => {
  const narrow = asNarrow(device, 100_000);
  for (const config of [vanilla, tokenChoice]) {
    const model = modelOf(narrow, config);
    const kvBytes = 250_000;
    using engine = new BatchEngine(narrow, { ...model, ...shapeOf({ kvBytes }) });
    const { bankPages, pageBytes } = engine.device.batch.store;
    assertGreater(bankPages.length, 1);
    assert(bankPages.every((pages) => pages * pageBytes <= 100_000));
    await checkTogether(narrow, model, { requests: requestsOf(config, { count: 9 }), changes: { kvBytes } });
  }
});

gpuTest(
  "prompts of some chunks, and of a chunk and a token more or less, begin as they do alone",
  async (device) => {
    const lengths = [1, 255, 256, 257, 512, 600];
    for (const scheme of [causalSchemes["expert choice"]!, tokenChoice]) {
      const config = { ...scheme, maxPositionEmbeddings: 640 };
      const random = createRandom(11);
      const requests = lengths.map((length) => ({
        prompt: Array.from({ length }, () => random.integer(config.vocabSize)),
        count: 6,
        sampling: greedy,
      }));
      const changes = { capacity: 640, kvBytes: 2 * leastBytes(config, { capacity: 640, kvDtype: "f32" }) };
      await checkTogether(device, modelOf(device, config), { requests, changes });
    }
  },
);

gpuTest("texts that outgrow the memory begin anew and are the same", async (device) => {
  const model = modelOf(device, tokenChoice);
  const least = leastBytes(tokenChoice, { capacity, kvDtype: "f32" });
  const requests = Array.from(
    { length: 7 },
    (_, i) => ({ prompt: [i, 3], count: capacity - 1, sampling: greedy }),
  );
  // The memory is shared out by the depths configured, 2 of 3 on average: deeper texts outgrow it.
  const deep = async (bytes: number): Promise<{ texts: string[]; engine: BatchEngine["statistics"] }> => {
    using engine = new BatchEngine(device, { ...model, ...shapeOf({ kvBytes: bytes }) });
    engine.forceDepth(3);
    for (const request of requests) engine.add(request);
    engine.close();
    const texts: string[] = requests.map(() => "");
    for await (const event of engine.events()) {
      if (event.kind === "token") texts[event.request] += ` ${event.token.id}`;
    }
    return { texts, engine: engine.statistics };
  };
  const roomy = await deep(plenty);
  assertEquals(roomy.engine.restarts, 0);
  const scarce = await deep(2.4 * least);
  assertGreater(scarce.engine.restarts, 0);
  assertEquals(scarce.engine.pages, 0);
  assertEquals(scarce.texts, roomy.texts);
});

gpuTest("a text's seed alone decides it, to the bit, whatever else runs", async (device) => {
  const model = modelOf(device, tokenChoice);
  const request = { prompt: [3, 1, 4], count: 20, sampling: { ...sampled, seed: 5 } };
  const others = requestsOf(tokenChoice, { count: 13, isSampled: true });
  const run = async (before: readonly BatchRequest[]): Promise<unknown[]> => {
    using engine = new BatchEngine(device, { ...model, ...shapeOf({ rows: 5, slots: 7 }) });
    for (const other of before) engine.add(other);
    const id = engine.add(request);
    for (const other of others) engine.add(other);
    engine.close();
    const tokens: unknown[] = [];
    for await (const event of engine.events()) {
      if (event.kind === "token" && event.request === id) tokens.push(event.token);
    }
    return tokens;
  };
  using alone = new BatchEngine(device, { ...model, ...shapeOf({ rows: 5, slots: 7 }) });
  alone.add(request);
  alone.close();
  const wanted: unknown[] = [];
  for await (const event of alone.events()) if (event.kind === "token") wanted.push(event.token);
  assertEquals(wanted.length, 20);
  assertEquals(await run([]), wanted);
  assertEquals(await run(others), wanted);
});

gpuTest("a full line keeps the block's rows in use", async (device) => {
  const model = modelOf(device, tokenChoice);
  const requests = Array.from({ length: 80 }, (_, i) => ({ prompt: [i % 11], count: 12, sampling: greedy }));
  using engine = new BatchEngine(device, { ...model, ...shapeOf({ rows: 8, slots: 24, ticks: 2 }) });
  for (const request of requests) engine.add(request);
  engine.close();
  let [runs, rows] = [0, 0];
  for await (const event of engine.events()) {
    assert(event.kind !== "error");
    const { waiting, blockRuns, blockRows } = engine.statistics;
    if (waiting > 0) [runs, rows] = [blockRuns, blockRows];
  }
  assertGreater(rows / (runs * 8), 0.95);
});

/** The events of an engine from now on, as words. */
async function words(engine: BatchEngine): Promise<string[]> {
  const met: string[] = [];
  for await (const event of engine.events()) met.push(word(event));
  return met;
}

function word(event: BatchEvent): string {
  if (event.kind === "token") return `${event.request} token`;
  return event.kind === "finished"
    ? `${event.request} ${event.reason}`
    : `${event.request} ${event.error.message}`;
}

gpuTest("cancelled texts end, in line, in a slot or while it runs, and free their pages", async (device) => {
  const model = modelOf(device, vanilla);
  const request = { prompt: [1, 2], count: 30, sampling: greedy };
  using engine = new BatchEngine(device, { ...model, ...shapeOf({ slots: 2, ticks: 1 }) });
  const [first, second, inLine] = [engine.add(request), engine.add(request), engine.add(request)];
  const events = engine.events();
  await events.next();
  engine.cancel(first);
  engine.cancel(inLine!);
  engine.cancel(99);
  const pending = events.next();
  engine.cancel(second);
  engine.cancel(second);
  engine.close();
  const met = [word((await pending).value!)];
  for await (const event of events) met.push(word(event));
  assertEquals(met.filter((text) => text.endsWith("cancelled")).toSorted(), [
    "0 cancelled",
    "1 cancelled",
    "2 cancelled",
  ]);
  const { pages, live, waiting } = engine.statistics;
  assertEquals([pages, live, waiting], [0, 0, 0]);
});

gpuTest("texts that wait for pages can all be cancelled, and others begin", async (device) => {
  const model = modelOf(device, tokenChoice);
  const least = leastBytes(tokenChoice, { capacity, kvDtype: "f32" });
  using engine = new BatchEngine(device, { ...model, ...shapeOf({ kvBytes: 2.4 * least, ticks: 1 }) });
  engine.forceDepth(3);
  const request = { prompt: [1, 3], count: capacity - 1, sampling: greedy };
  const ids = Array.from({ length: 3 }, () => engine.add(request));
  let looks = 0;
  while (engine.statistics.stalled === 0 && looks++ < 1000) await engine.advance();
  assertGreater(engine.statistics.stalled, 0);
  for (const id of ids) engine.cancel(id);
  engine.add({ prompt: [5], count: 2, sampling: greedy });
  engine.close();
  const met = await words(engine);
  assertEquals(met.slice(-3), ["3 token", "3 token", "3 length"]);
  assertEquals(engine.statistics.pages, 0);
});

gpuTest("events wait for requests until the engine is closed", async (device) => {
  const model = modelOf(device, vanilla);
  using engine = new BatchEngine(device, { ...model, ...shapeOf() });
  const met = words(engine);
  const later = Promise.withResolvers<void>();
  setTimeout(() => {
    engine.add({ prompt: [1], count: 1, sampling: greedy });
    later.resolve();
  }, 20);
  await later.promise;
  engine.close();
  assertEquals(await met, ["0 token", "0 length"]);
});

gpuTest("an end token ends a text and is not part of it", async (device) => {
  const model = modelOf(device, vanilla);
  const request = { prompt: [4, 2], count: 20, sampling: { ...sampled, seed: 3 } };
  const [{ tokens }] = await decodeAlone(device, model, { ...shapeOf(), requests: [request] }) as [BatchText];
  const end = tokens[7]!.id;
  const before = tokens.findIndex(({ id }) => id === end);
  using engine = new BatchEngine(device, { ...model, ...shapeOf({ endTokens: [end, 99] }) });
  engine.add(request);
  engine.close();
  assertEquals(await words(engine), [...Array.from({ length: before }, () => "0 token"), "0 end"]);
});

gpuTest("damaged weights end a text with an error", async (device) => {
  const model = uploadModel(device, roundedModel(vanilla, { seed: 26 }));
  writeTensor(device, model.weights.norm, new Float32Array(vanilla.hiddenSize).fill(NaN));
  using engine = new BatchEngine(device, { ...model, ...shapeOf() });
  engine.add({ prompt: [4, 2], count: 20, sampling: greedy });
  engine.close();
  const [only, ...others] = await words(engine);
  assert(only!.includes("the logits are not numbers"));
  assertEquals(others, []);
});

gpuTest("what cannot run is refused", async (device) => {
  const model = modelOf(device, vanilla);
  using engine = new BatchEngine(device, { ...model, ...shapeOf() });
  const add = (prompt: number[], count: number): number => engine.add({ prompt, count, sampling: greedy });
  assertThrows(() => add([], 3), ConfigError, "empty prompt");
  assertThrows(() => add([1], 0), ConfigError, "Cannot generate 0 tokens");
  assertThrows(() => add([1], 1.5), ConfigError, "Cannot generate 1.5 tokens");
  assertThrows(() => add([vanilla.vocabSize], 1), ConfigError, `token ${vanilla.vocabSize}`);
  const cold = { ...greedy, temperature: NaN };
  assertThrows(() => engine.add({ prompt: [1], count: 1, sampling: cold }), RangeError, "Cannot sample");
  add([1], capacity);
  assertThrows(() => add([1, 2], capacity), ConfigError, `there is room for ${capacity} tokens`);
  engine.close();
  assertThrows(() => add([1], 1), TypeError, "the engine is closed");
  const least = leastBytes(vanilla, { capacity, kvDtype: "f32" });
  const open = (changes: Changes): void => {
    using _ = new BatchEngine(device, { ...model, ...shapeOf(changes) });
  };
  open({ kvBytes: least });
  const before = device.memory.live;
  assertThrows(() => open({ kvBytes: least - 1 }), MemoryError, `one text of ${capacity} tokens`);
  assertThrows(() => open({ capacity: 10_000 }), ConfigError, "the model has");
  assertEquals(device.memory.live, before);
  await assertRejects(
    async () => {
      for await (const event of engine.events()) if (event.kind === "token") throw new Error("enough");
    },
    Error,
    "enough",
  );
});

gpuTest("an engine that is freed while its events are read ends them", async (device) => {
  const model = modelOf(device, vanilla);
  const request = { prompt: [1, 2], count: 30, sampling: greedy };
  await device.settle();
  const before = device.memory.live;
  const idle = new BatchEngine(device, { ...model, ...shapeOf() });
  const none = words(idle);
  idle[Symbol.dispose]();
  assertEquals(await none, []);
  const busy = new BatchEngine(device, { ...model, ...shapeOf() });
  busy.add(request);
  const some = busy.advance();
  await assertRejects(() => busy.advance(), TypeError, "twice at a time");
  busy[Symbol.dispose]();
  assertGreater((await some).length, 0);
  assertEquals([await busy.advance(), device.memory.live], [[], before]);
  const read = new BatchEngine(device, { ...model, ...shapeOf() });
  read.add(request);
  const events = read.events();
  await events.next();
  read[Symbol.dispose]();
  for await (const event of events) assertEquals(event.kind, "token");
  assertThrows(() => busy.add(request), TypeError, "the engine is closed");
  using next = new BatchEngine(device, { ...model, ...shapeOf() });
  next.add({ ...request, count: 1 });
  next.close();
  assertEquals(await words(next), ["0 token", "0 length"]);
});

gpuTest("an engine frees what it took", async (device) => {
  const model = modelOf(device, tokenChoice);
  await device.settle();
  const before = device.memory.live;
  {
    using engine = new BatchEngine(device, { ...model, ...shapeOf() });
    engine.add({ prompt: [1, 2, 3], count: 4, sampling: greedy });
    for await (const event of engine.events()) if (event.kind === "token") break;
  }
  assertEquals(device.memory.live, before);
});
