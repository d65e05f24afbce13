/** Texts put together from a batch's tokens: cut before stop strings, and failing one by one. */
import { assert, assertEquals, assertGreater, assertStringIncludes } from "@std/assert";
import type { GpuDevice } from "../../../gpu/device.ts";
import type { BatchShape } from "../../../model/batching/batch_device.ts";
import { batchSize } from "../../../model/batching/batch_size.ts";
import {
  type FailedText,
  type FinishedText,
  generateTexts,
  type TextRequest,
} from "../../../model/batching/batch_texts.ts";
import { bindableBytes, pageBytes } from "../../../model/batching/page_store.ts";
import { batchParts } from "../../../model/batching/batch_parts.ts";
import { GREEDY } from "../../../model/sampling.ts";
import { byteTokenizer } from "../../../model/text/tokenizer.ts";
import type { BatchModel } from "../../support/batch_workload.ts";
import { tinyConfig } from "../../reference/tiny_model.ts";
import { gpuTest } from "../../support/device.ts";
import { roundedModel, uploadModel } from "../../support/gpu_model.ts";
import { asNarrow } from "../../support/narrow_device.ts";

const { vocabSize } = byteTokenizer;
const config = tinyConfig({ vocabSize, tieWordEmbeddings: false, maxPositionEmbeddings: 64 });
const model = roundedModel(config, { seed: 26 });
const DAMAGED = 200;

/** A model that cannot go on after one token of its vocabulary. */
function damagedModel(device: GpuDevice): BatchModel {
  const embedding = Float64Array.from(model.weights.get("model.embed_tokens.weight")!);
  embedding.fill(NaN, DAMAGED * config.hiddenSize, (DAMAGED + 1) * config.hiddenSize);
  return uploadModel(device, {
    config,
    weights: new Map(model.weights).set("model.embed_tokens.weight", embedding),
  });
}

async function textsOf(
  device: GpuDevice,
  { config, weights }: BatchModel,
  requests: readonly TextRequest[],
): Promise<Map<number, FinishedText | FailedText>> {
  const size = batchSize(device, config, { requests, rows: 3, kvDtype: "f32", kvBytes: null });
  const shape: BatchShape = { config, weights, ...size, endTokens: [], ticks: 3 };
  const options = { requests, tokenizer: byteTokenizer, isContinuation: true };
  const texts = new Map<number, FinishedText | FailedText>();
  for await (const text of generateTexts(device, shape, options)) texts.set(text.index, text);
  return texts;
}

function requestOf(seed: number, stop: readonly string[] = []): TextRequest {
  return { prompt: [seed + 1], count: 30, sampling: { ...GREEDY, temperature: 1, seed }, stop };
}

gpuTest("texts end before their stop strings, and the others do not notice", async (device) => {
  const uploaded = uploadModel(device, model);
  const seeds = [...new Array(8).keys()];
  const whole = await textsOf(device, uploaded, seeds.map((seed) => requestOf(seed)));
  // Every other text gets two characters of its own middle for a stop string.
  const stops = seeds.map((seed) => {
    const { text } = whole.get(seed) as FinishedText;
    return seed % 2 === 0 ? [[...text].slice(9, 11).join("")] : [];
  });
  const stopped = await textsOf(device, uploaded, seeds.map((seed) => requestOf(seed, stops[seed])));
  for (const seed of seeds) {
    const { text, tokens } = whole.get(seed) as FinishedText;
    const met = stopped.get(seed) as FinishedText;
    const place = stops[seed]!.length > 0 ? text.indexOf(stops[seed]![0]!) : text.length;
    assertEquals(met.text, text.slice(0, place));
    assertEquals(met.reason, stops[seed]!.length > 0 ? "stop" : "length");
    assert(stops[seed]!.length > 0 ? met.tokens < tokens : met.tokens === tokens);
  }
});

gpuTest("a text that cannot be made fails alone", async (device) => {
  const uploaded = damagedModel(device);
  // Greedy texts of this model never draw the token.
  const greedy = { ...GREEDY, seed: 0 };
  const requests = [0, 1, 2, 3, 4].map((seed) => ({ ...requestOf(seed), sampling: greedy }));
  const before = await textsOf(device, uploaded, requests);
  assert([...before.values()].every((text) => "text" in text));
  const damaged = { ...requestOf(9), prompt: [5, DAMAGED, 6] };
  const texts = await textsOf(device, uploaded, [...requests.slice(0, 2), damaged, ...requests.slice(2)]);
  const failed = texts.get(2)!;
  assert("error" in failed);
  assertStringIncludes(failed.error.message, "the logits are not numbers");
  for (const [place, index] of [0, 1, 3, 4, 5].entries()) {
    const text = texts.get(index)!;
    assertEquals({ ...text, index: place }, before.get(place));
  }
});

gpuTest("a batch for more texts than can be bound takes what there is", (device) => {
  const long = { ...config, maxPositionEmbeddings: 4096 };
  const requests = Array.from({ length: 200 }, (_, i) => ({ ...requestOf(i), count: 4000 }));
  for (const opened of [asNarrow(device), asNarrow(device, 1_000_000)]) {
    const size = batchSize(opened, long, { requests, rows: 64, kvDtype: "f32", kvBytes: null });
    const shape = { config: long, parts: batchParts(long), capacity: size.capacity, kvDtype: "f32" } as const;
    assertGreater(size.kvBytes, 0);
    assertEquals(size.kvBytes, bindableBytes(opened, shape));
    assertEquals(size.kvBytes % pageBytes(long, "f32"), 0);
    assertEquals([size.rows, size.slots], [64, 160]);
  }
  return Promise.resolve();
});
