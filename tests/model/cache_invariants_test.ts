/** Properties of caches, by name: cached decoding is the full pass, entries are those of the tokens that were active. */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import type { GpuDevice } from "../../gpu/device.ts";
import { attention } from "../../gpu/kernels/attention.ts";
import { fusedLayout } from "../../gpu/kernels/attention_heads.ts";
import { gatherRows } from "../../gpu/kernels/gather_rows.ts";
import { rope, ropeTable } from "../../gpu/kernels/rope.ts";
import { readTensor } from "../../gpu/readback.ts";
import { elementCount, type Tensor, writeTensor } from "../../gpu/tensor.ts";
import { CachedPass } from "../../model/cached_pass.ts";
import { keptTokens, type ModelConfig } from "../../model/config.ts";
import { forwardCached, forwardCausal } from "../../model/forward.ts";
import { PAGE_ROWS } from "../../gpu/kernels/cache_pages.ts";
import { allocateCache, cacheBytes, type KvCache } from "../../model/kv_cache.ts";
import { maskedAttention } from "../reference/masked_block.ts";
import { rope as referenceRope } from "../reference/rope.ts";
import {
  randomIds,
  tinyConfig,
  tinyRecursiveConfig,
  tinyRouter,
  tinyTokenRouter,
} from "../reference/tiny_model.ts";
import type { Model } from "../reference/weights.ts";
import { causalSchemes, cycle } from "../support/causal_schemes.ts";
import { assertClose } from "../support/close.ts";
import { blank, gpuTest, run, upload } from "../support/device.ts";
import { roundedModel, uploadModel } from "../support/gpu_model.ts";
import { kvDtypes } from "../support/kv.ts";
import { uploadPacking } from "../support/packing.ts";
import { createRandom } from "../support/random.ts";

const tokens = 17;
const ids = Array.from(randomIds(tinyConfig(), { random: createRandom(61), count: tokens }));

const token = { router: tinyTokenRouter() };
const shared = { kvCache: "shared" } as const;

function modelOf(config: ModelConfig): Model {
  return roundedModel(config, { seed: 62 });
}

for (const [name, config] of Object.entries(causalSchemes)) {
  gpuTest(`cached decode = full forward at any split: ${name}`, async (device) => {
    const model = uploadModel(device, modelOf(config));
    const input = { ids: [ids], targets: null };
    const whole = await forwardCausal(device, { model, input });
    for (let split = 0; split <= tokens; split++) {
      const cached = await forwardCached(device, { model, input, split });
      assertEquals(cached.depths, whole.depths, `depths at split ${split}`);
      assertEquals(cached.selected, whole.selected, `tokens of each step at split ${split}`);
      assertClose(cached.logits.flat(2), whole.logits.flat(2), { relative: 2e-5, label: `logits, ${split}` });
    }
  });
}

/** Cache rows of a slot's region that a pass has written, layer by layer: those that no longer hold the mark. */
async function writtenRows(
  device: GpuDevice,
  { cache, layer, slot }: { cache: KvCache; layer: Tensor; slot: number },
): Promise<number> {
  const data = await readTensor(device, layer);
  const width = layer.shape[1]!;
  let count = 0;
  const slotRows = cache.tableLength * PAGE_ROWS;
  for (let row = slot * slotRows; row < (slot + 1) * slotRows; row++) {
    if (data[row * width] !== MARK[cache.kvDtype]) count++;
  }
  return count;
}

/** No key of these models is this number, no two of them are this word. */
const MARK = { f32: 12345, f16: 0xffffffff } as const;

const accounts = Object.entries(causalSchemes).flatMap(([name, config]) =>
  kvDtypes.map((kvDtype) => ({ name: `${name}, ${kvDtype}`, config, kvDtype }))
);

for (const { name, config, kvDtype } of accounts) {
  gpuTest(`cache accounting: bytes in the buffers equal the formula to the byte: ${name}`, async (device) => {
    const model = uploadModel(device, modelOf(config));
    const { weights } = model;
    const cache = allocateCache(device, { config, slots: 3, capacity: 24, kvDtype });
    const layers = new Set([...cache.first, ...cache.steps.flat(), ...cache.last].map(({ pool }) => pool));
    const Elements = kvDtype === "f16" ? Uint32Array : Float32Array;
    for (const layer of layers) {
      writeTensor(device, layer, new Elements(elementCount(layer.shape)).fill(MARK[kvDtype]));
    }
    const prompt = new CachedPass(device, { config, weights, cache, rows: 9, head: "one" });
    const step = new CachedPass(device, { config, weights, cache, rows: 1, head: "one" });
    const slot = 1;
    prompt.run({ slot, start: 0, ids: ids.slice(0, 9) });
    for (let start = 9; start < tokens; start++) step.run({ slot, start, ids: [ids[start]!] });

    const { depths } = await forwardCausal(device, { model, input: { ids: [ids], targets: null } });
    const depthsOfTokens = depths?.[0] ?? [];
    const active = cache.steps.map((_, r) => depthsOfTokens.filter((depth) => depth > r).length);
    let bytes = 0;
    for (const layer of layers) {
      const rows = await writtenRows(device, { cache, layer, slot });
      bytes += rows * layer.shape[1]! * 4;
      assertEquals(
        [
          await writtenRows(device, { cache, layer, slot: 0 }),
          await writtenRows(device, { cache, layer, slot: 2 }),
        ],
        [0, 0],
        "another slot was written",
      );
    }
    assertEquals(bytes, cacheBytes(config, { tokens, active, kvDtype }));
    for (const [r, counts] of cache.lengths.entries()) {
      if (counts) assertEquals(Array.from(await readTensor(device, counts)), [0, active[r]!, 0]);
    }
    const perEntry = 2 * config.numKeyValueHeads * config.headDim * { f32: 4, f16: 2 }[kvDtype];
    if (config.recursion?.sharing === "middle_cycle") {
      const sum = depthsOfTokens.reduce((total, depth) => total + depth, 0);
      const { blockLayers } = config.recursion;
      const entries = config.kvCache === "shared"
        ? (2 + blockLayers) * tokens
        : 2 * tokens + blockLayers * sum;
      assertEquals(bytes, entries * perEntry);
    }
  });
}

Deno.test("cache accounting: depths as the capacities give take (N + 1) / 2N of vanilla's block part", () => {
  for (const numRecursions of [2, 3, 4]) {
    const tokens = 24;
    const router = tinyRouter();
    const config = tinyRecursiveConfig({ ...cycle, numRecursions }, { router });
    const active = keptTokens(router, { numRecursions, tokens });
    const vanilla = tinyConfig({ numHiddenLayers: numRecursions * 2 });
    const ratio = cacheBytes(config, { tokens, active }) / cacheBytes(vanilla, { tokens, active: [] });
    assertEquals(ratio, (numRecursions + 1) / (2 * numRecursions));
    const sharing = { ...config, ...shared };
    assertEquals(
      cacheBytes(sharing, { tokens, active }) / cacheBytes(vanilla, { tokens, active: [] }),
      1 / numRecursions,
    );
  }
});

/** The logits of a text whose fourth token alone has another depth: it says 10, the others say 3 recursions. */
async function logitsByDepth(
  device: GpuDevice,
  { kvCache, depth }: { kvCache: ModelConfig["kvCache"]; depth: number },
): Promise<{ logits: number[][]; depths: number[] }> {
  const text = [0, 1, 2, 10, 4, 5, 6, 7];
  // In a cycle nothing but the recursion mixes tokens.
  const config = tinyRecursiveConfig(cycle, { ...token, kvCache });
  const model = modelOf(config);
  const { hiddenSize } = config;
  // The first entry of an embedding says that it is token 10, the second that it is not; the router reads just these.
  const embedding = model.weights.get("model.embed_tokens.weight")!;
  for (let id = 0; id < 11; id++) embedding.set(id === 10 ? [1, 0] : [0, 1], id * hiddenSize);
  const router = model.weights.get("model.router.weight")!.fill(0);
  router[(depth - 1) * hiddenSize] = 4;
  router[2 * hiddenSize + 1] = 4;
  const result = await forwardCausal(device, {
    model: uploadModel(device, model),
    input: { ids: [text], targets: null },
  });
  return { logits: result.logits[0]!, depths: result.depths![0]! };
}

gpuTest(
  "KV-sharing locality: another token's depth changes nothing with shared keys, and may without",
  async (device) => {
    for (const kvCache of ["shared", "recursion_wise"] as const) {
      const one = await logitsByDepth(device, { kvCache, depth: 1 });
      const three = await logitsByDepth(device, { kvCache, depth: 3 });
      assertEquals(one.depths, [3, 3, 3, 1, 3, 3, 3, 3]);
      assertEquals(three.depths, [3, 3, 3, 3, 3, 3, 3, 3]);
      assertEquals(one.logits.slice(0, 3), three.logits.slice(0, 3));
      assertNotEquals(one.logits[3], three.logits[3]);
      const later = [one, three].map(({ logits }) => logits.slice(4).flat());
      if (kvCache === "shared") assertClose(later[0]!, later[1]!, { relative: 1e-6, label: "later logits" });
      else {assert(
          later[0]!.some((value, i) => Math.abs(value - later[1]![i]!) > 1e-3),
          "later logits are the same",
        );}
    }
  },
);

gpuTest(
  "compaction = masking: packed attention at original positions equals dense attention with a mask",
  async (device) => {
    const sizes = { heads: 4, kvHeads: 2, headDim: 8 };
    const [length, stride] = [9, 64];
    const positions = [[0, 2, 3, 7], [], [1, 5, 8]];
    const random = createRandom(63);
    const qkv = random.normals(3 * length * stride).map(Math.fround);
    const indices = positions.flatMap((kept, b) => kept.map((position) => b * length + position));
    async function packed(recorded: readonly (readonly number[])[]): Promise<Float32Array> {
      const packing = uploadPacking(device, { positions, tokens: length });
      const places = uploadPacking(device, { positions: recorded, tokens: length });
      const rows = indices.length;
      const gathered = blank(device, [rows, stride]);
      const out = blank(device, [rows, 32]);
      const table = ropeTable(device, { positions: length, headDim: 8, theta: 100 });
      const [result] = await run(device, (commands) => {
        gatherRows(commands, { x: upload(device, qkv, [3 * length, stride]), packing, out: gathered });
        rope(commands, { x: gathered, packing: places, table }, { heads: 6, headDim: 8, stride });
        const logSumExp = blank(device, [rows, 4]);
        attention(commands, { q: gathered, kv: gathered, packing, out, logSumExp }, {
          ...sizes,
          layout: fusedLayout(sizes),
        });
      }, [out]);
      return result as Float32Array;
    }
    const part = (start: number, width: number): Float64Array =>
      Float64Array.from(
        { length: 3 * length * width },
        (_, i) => qkv[Math.floor(i / width) * stride + start + i % width]!,
      );
    const where = {
      positions: Int32Array.from({ length: 3 * length }, (_, row) => row % length),
    };
    const angles = { headDim: 8, theta: 100 };
    const dense = maskedAttention({
      q: referenceRope({ x: part(0, 32), ...where }, { ...angles, heads: 4 }),
      k: referenceRope({ x: part(32, 16), ...where }, { ...angles, heads: 2 }),
      v: part(48, 16),
    }, { tokens: length, queries: indices, keys: indices, heads: 4, keyValueHeads: 2, headDim: 8 });
    const wanted = indices.flatMap((row) => Array.from(dense.subarray(row * 32, row * 32 + 32)));
    assertClose(await packed(positions), wanted, { relative: 3e-6, label: "attended" });
    const compact = await packed(positions.map((kept) => kept.map((_, i) => i)));
    assert(
      compact.some((value, i) => Math.abs(value - wanted[i]!) > 1e-3),
      "compact positions change nothing",
    );
  },
);
