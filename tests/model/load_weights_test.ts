import { assert, assertEquals, assertThrows } from "@std/assert";
import type { GpuDevice } from "../../gpu/device.ts";
import { planAllocator } from "../../gpu/memory.ts";
import { isPacked } from "../../gpu/packed_matrix.ts";
import type { ModelConfig } from "../../model/config.ts";
import { forwardCached, forwardCausal, type Model as GpuModel } from "../../model/forward.ts";
import { fillWeights, formatCounts, type MatrixChoice, planWeights } from "../../model/load_weights.ts";
import { decodeNumbers, type EncodedFormat, encodeNumbers } from "../../model/files/number_formats.ts";
import { ParameterLayout } from "../../model/parameter_layout.ts";
import { parameterTable, routerTable } from "../../model/parameters.ts";
import { CheckpointError } from "../../model/files/safetensors.ts";
import {
  randomIds,
  tinyConfig,
  tinyRecursiveConfig,
  tinyRouter,
  tinyTokenRouter,
} from "../reference/tiny_model.ts";
import { forward } from "../reference/transformer.ts";
import { assertClose } from "../support/close.ts";
import { gpuTest } from "../support/device.ts";
import { uploadModel } from "../support/gpu_model.ts";
import {
  type MemoryWeight,
  memoryWeightFile,
  seededNumbers,
  seededWeights,
} from "../support/memory_weights.ts";
import { createRandom } from "../support/random.ts";

/** Rows of whole blocks: C 32, F 96, four heads of 8 on two groups. */
const sizes = {
  vocabSize: 41,
  hiddenSize: 32,
  intermediateSize: 96,
  numAttentionHeads: 4,
  numKeyValueHeads: 2,
  headDim: 8,
} as const;
const middleCycle = { sharing: "middle_cycle", numRecursions: 3, blockLayers: 1 } as const;

const models: Readonly<Record<string, ModelConfig>> = {
  "vanilla": tinyConfig({ ...sizes, tieWordEmbeddings: false }),
  "expert choice": tinyRecursiveConfig(middleCycle, {
    ...sizes,
    router: tinyRouter({ alpha: 1, auxiliary: "router", architecture: "mlp" }),
  }),
  "token choice": tinyRecursiveConfig(middleCycle, {
    ...sizes,
    router: tinyTokenRouter({ balancing: "loss_free" }),
    kvCache: "shared",
  }),
};

/** The model as it is loaded from memory. */
async function load(
  device: GpuDevice,
  { config, weights, choice }: {
    config: ModelConfig;
    weights: ReadonlyMap<string, MemoryWeight>;
    choice: MatrixChoice;
  },
): Promise<GpuModel & { formats: ReturnType<typeof formatCounts> }> {
  using file = memoryWeightFile(weights);
  const planned = planWeights(device, { config, file, choice });
  await fillWeights(device, planned, { file });
  return {
    config,
    layout: new ParameterLayout(config),
    weights: planned.weights,
    formats: formatCounts(planned),
  };
}

/** What a weight's numbers are in a format: norms and routers keep theirs. */
function roundedNumbers(config: ModelConfig, format: EncodedFormat): Map<string, Float64Array> {
  const routers = new Set(routerTable(config).map(({ name }) => name));
  return new Map(
    parameterTable(config).map((spec) => {
      const numbers = seededNumbers(spec, 3);
      const isRouter = [...routers].some((name) => spec.name.startsWith(`${name}.`));
      const rounded = spec.kind !== "matrix" || isRouter
        ? numbers
        : decodeNumbers(format, encodeNumbers(format, numbers));
      return [spec.name, Float64Array.from(rounded)];
    }),
  );
}

for (const [name, config] of Object.entries(models)) {
  for (const choice of ["f32", "f16", "q8_0", "q4_0"] as const) {
    gpuTest(`a ${name} model loaded as ${choice} computes with the rounded weights`, async (device) => {
      const model = await load(device, { config, weights: seededWeights(config, { seed: 3 }), choice });
      const ids = randomIds(config, { random: createRandom(5), count: 19 });
      const input = { ids: [[...ids]], targets: null };
      const { logits, depths } = await forwardCausal(device, { model, input });
      const weights = roundedNumbers(config, choice);
      const wanted = forward({ config, weights }, {
        ids,
        sequences: 1,
        selection: { kind: "threshold", threshold: 0 },
      });
      assertClose(logits[0]!.flat(), wanted.logits, { relative: 2e-4, label: "logits" });
      const cached = await forwardCached(device, { model, input, split: 7 });
      assertEquals(cached.depths, depths);
      assertClose(cached.logits[0]!.flat(), logits[0]!.flat(), { relative: 2e-4, label: "cached logits" });
    });
  }
}

gpuTest("weights that are stored as f32 come to the device bit for bit", async (device) => {
  for (const config of [...Object.values(models), tinyConfig()]) {
    const weights = seededWeights(config, { seed: 3 });
    const model = await load(device, { config, weights, choice: "auto" });
    const reference = new Map(
      parameterTable(config).map((spec) => [spec.name, Float64Array.from(seededNumbers(spec, 3))]),
    );
    const uploaded = uploadModel(device, { config, weights: reference });
    const input = { ids: [[3, 1, 4, 1, 5, 9, 2, 6]], targets: null };
    assertEquals(
      await forwardCausal(device, { model, input }),
      await forwardCausal(device, { model: uploaded, input }),
    );
  }
});

gpuTest("matrices keep the format of the file where products can read it", async (device) => {
  const config = models["vanilla"]!;
  const weights = seededWeights(config, { seed: 3, format: "f16" });
  function store(name: string, format: "f32" | "q8_0" | "q4_0"): void {
    const { bytes, shape } = weights.get(name)!;
    const numbers = decodeNumbers("f16", bytes);
    weights.set(name, { shape, format, bytes: encodeNumbers(format, numbers) });
  }
  store("model.layers.0.self_attn.v_proj.weight", "q8_0"); // beside q and k in f16: one matrix must be f32
  store("model.layers.1.mlp.gate_proj.weight", "q4_0");
  store("model.layers.1.mlp.up_proj.weight", "q4_0");
  const bf16 = weights.get("lm_head.weight")!;
  weights.set("lm_head.weight", { ...bf16, format: "bf16" });
  const { weights: { layers, head, embedding }, formats } = await load(device, {
    config,
    weights,
    choice: "auto",
  });
  const format = (matrix: typeof head): string => isPacked(matrix) ? matrix.format : "f32";
  assertEquals(layers.map(({ qkv }) => format(qkv)), ["f32", "f16", "f16"]);
  assertEquals(layers.map(({ gateUp }) => format(gateUp)), ["f16", "q4_0", "f16"]);
  assertEquals([format(embedding), format(head)], ["f16", "f32"]);
  assertEquals(formats.map(([name]) => name), ["f16", "q4_0", "f32"]);
  const numbers = parameterTable(config).filter(({ kind }) => kind === "matrix");
  const total = numbers.reduce((sum, { shape }) => sum + shape[0]! * shape[1]!, 0);
  assertEquals(formats.reduce((sum, [, count]) => sum + count, 0), total);
});

gpuTest("matrices whose rows are not whole blocks stay f32", async (device) => {
  const config = tinyConfig({ ...sizes, intermediateSize: 44 });
  const { weights, formats } = await load(device, {
    config,
    weights: seededWeights(config, { seed: 3 }),
    choice: "q4_0",
  });
  assert(weights.layers.every(({ down, gateUp }) => !isPacked(down) && isPacked(gateUp)));
  assertEquals(formats, [["q4_0", 41 * 32 + 3 * (64 + 32 + 88) * 32], ["f32", 3 * 32 * 44]]);
});

gpuTest("a plan counts the bytes that loading takes", async (device) => {
  const config = models["token choice"]!;
  const weights = seededWeights(config, { seed: 3 });
  for (const choice of ["f32", "q8_0"] as const) {
    const plan = planAllocator();
    planWeights(plan, { config, file: memoryWeightFile(weights), choice });
    const before = device.memory.live;
    await load(device, { config, weights, choice });
    assertEquals(device.memory.live - before, plan.memory.live);
  }
});

Deno.test("planWeights refuses files that do not hold the model's weights and nothing else", () => {
  const config = models["vanilla"]!;
  const bias = { shape: [32], format: "f32", bytes: new Uint8Array(128) } as const;
  function plan(changes: Record<string, MemoryWeight | null>, tied = false): void {
    const weights = seededWeights({ ...config, tieWordEmbeddings: false }, { seed: 3 });
    for (const [name, weight] of Object.entries(changes)) {
      if (weight) weights.set(name, weight);
      else weights.delete(name);
    }
    const model = { ...config, tieWordEmbeddings: tied };
    planWeights(planAllocator(), {
      config: model,
      file: memoryWeightFile(weights, "x.safetensors"),
      choice: "auto",
    });
  }
  plan({});
  plan({}, true); // a tied head may be in the file too
  plan({ "model.layers.0.self_attn.rotary_emb.inv_freq": bias });
  const refusals: [Record<string, MemoryWeight | null>, string][] = [
    [
      { "model.layers.0.self_attn.q_proj.bias": bias },
      'tensor "model.layers.0.self_attn.q_proj.bias" has no place',
    ],
    [
      { "model.layers.3.input_layernorm.weight": bias },
      'tensor "model.layers.3.input_layernorm.weight" has no place',
    ],
    [{ "model.norm.weight": null }, 'tensor "model.norm.weight" is missing'],
    [{ "model.layers.2.mlp.up_proj.weight": null }, 'tensor "model.layers.2.mlp.up_proj.weight" is missing'],
    [{ "model.layers.2.mlp.up_proj.weight": bias }, "has shape (32), expected (96, 32)"],
  ];
  for (const [changes, message] of refusals) {
    assertThrows(() => plan(changes), CheckpointError, `Cannot load x.safetensors: tensor`);
    assertThrows(() => plan(changes), CheckpointError, message);
  }
});
