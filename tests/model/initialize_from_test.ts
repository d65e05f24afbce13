import { assert, assertEquals, assertRejects } from "@std/assert";
import { join } from "@std/path";
import type { GpuDevice } from "../../gpu/device.ts";
import { readTensor } from "../../gpu/readback.ts";
import type { CheckpointSource } from "../../model/files/checkpoint_source.ts";
import { ConfigError, type ModelConfig, type RecursionConfig } from "../../model/config.ts";
import { initializeFrom, type InitMethod, sourceLayers } from "../../model/initialize_from.ts";
import { ParameterLayout, type ParameterViews } from "../../model/parameter_layout.ts";
import { type ParameterSpec, parameterTable } from "../../model/parameters.ts";
import { presetConfig } from "../../model/presets.ts";
import { CheckpointError } from "../../model/files/safetensors.ts";
import { openShards } from "../../model/files/safetensors_shards.ts";
import { writeSafetensors } from "../../model/files/safetensors_writer.ts";
import { initializeWeights, parameterTensor } from "../../model/weights.ts";
import { gpuTest } from "../support/device.ts";
import { createRandom } from "../support/random.ts";

const mor = presetConfig("tiny");
const vanilla = presetConfig("tiny-vanilla");

type Tensors = ReadonlyMap<string, Float32Array<ArrayBuffer>>;

/** Writes a checkpoint's weights, every number random, the table's shapes unless told; returns what it wrote. */
async function writeSource(
  folder: string,
  { config, table = parameterTable(config) }: { config: ModelConfig; table?: readonly ParameterSpec[] },
): Promise<Tensors> {
  const random = createRandom(3);
  const tensors = table.map(({ name, shape }) => {
    const size = shape.reduce((product, n) => product * n, 1);
    return { name, shape, data: Float32Array.from(random.normals(size)) };
  });
  await writeSafetensors(join(folder, "model.safetensors"), {
    tensors: tensors.map((tensor) => ({ ...tensor, data: () => tensor.data })),
    metadata: { format: "pt" },
  });
  return new Map(tensors.map(({ name, data }) => [name, data]));
}

interface Start {
  readonly layout: ParameterLayout;
  readonly weights: ParameterViews;
}

/** A folder's weights under a configuration. */
function sourceOf(path: string, config: ModelConfig): CheckpointSource {
  return {
    path,
    config,
    openWeights: () => openShards(path),
    readTokenizer: () => Promise.resolve("byte"),
  };
}

/** Weights of a model, initialised from a folder with seed 5. */
async function start(
  device: GpuDevice,
  { source, sourceConfig, config, method }: {
    source: string;
    sourceConfig: ModelConfig;
    config: ModelConfig;
    method: InitMethod;
  },
): Promise<Start> {
  const layout = new ParameterLayout(config);
  const weights = layout.allocate(device, "weights");
  await initializeFrom(device, { layout, weights, source: sourceOf(source, sourceConfig), method, seed: 5 });
  return { layout, weights };
}

async function valuesOf(device: GpuDevice, { layout, weights }: Start, name: string): Promise<Float32Array> {
  return await readTensor(device, parameterTensor(layout, weights, name)) as Float32Array;
}

/** A weight as a fresh model with the seed of `start` has it. */
async function freshValues(device: GpuDevice, config: ModelConfig, name: string): Promise<Float32Array> {
  const layout = new ParameterLayout(config);
  const weights = layout.allocate(device, "weights");
  initializeWeights(device, { layout, weights, seed: 5 });
  return await valuesOf(device, { layout, weights }, name);
}

function sourceTest(name: string, body: (device: GpuDevice, source: string) => Promise<void>): void {
  gpuTest(name, async (device) => {
    const source = await Deno.makeTempDir();
    try {
      await body(device, source);
    } finally {
      await Deno.remove(source, { recursive: true });
    }
  });
}

for (const method of ["stepwise", "average", "lower", "upper", "random"] as const) {
  for (const tieWordEmbeddings of [true, false]) {
    const title = `${method}, ${tieWordEmbeddings ? "tied" : "untied"}`;
    sourceTest(
      `initializeFrom maps layers, copies the rest and draws routers: ${title}`,
      async (device, source) => {
        const sourceConfig = { ...vanilla, numHiddenLayers: 8, tieWordEmbeddings };
        const recursion = { sharing: "middle_cycle", numRecursions: 3, blockLayers: 2 } as const;
        const config = { ...mor, numHiddenLayers: 8, recursion, tieWordEmbeddings };
        const tensors = await writeSource(source, { config: sourceConfig });
        const started = await start(device, { source, sourceConfig, config, method });
        const layers = sourceLayers(config, { sourceLayerCount: 8, method, seed: 5 });
        for (const { name } of parameterTable(config)) {
          const values = await valuesOf(device, started, name);
          const [, u, rest] = /^model\.layers\.(\d)\.(.*)$/.exec(name) ?? [];
          if (name.includes("routers")) {
            assertEquals(values, await freshValues(device, config, name), name);
          } else if (u === undefined) {
            assertEquals(values, tensors.get(name), name);
          } else {
            const members = layers[Number(u)]!.map((layer) => tensors.get(`model.layers.${layer}.${rest}`)!);
            const mean = members[0]!.map((_, i) =>
              members.reduce((sum, data) => sum + data[i]!, 0) / members.length
            );
            assertEquals(values, mean, name);
          }
        }
      },
    );
  }
}

sourceTest(
  "initializeFrom a source of the same recursion copies layers and routers",
  async (device, source) => {
    const tensors = await writeSource(source, { config: mor });
    // The source's own layers, whatever the method.
    const started = await start(device, { source, sourceConfig: mor, config: mor, method: "average" });
    for (const [name, data] of tensors) assertEquals(await valuesOf(device, started, name), data, name);
  },
);

sourceTest(
  "initializeFrom draws routers that the source lacks or has in another shape",
  async (device, source) => {
    const baseline = { ...mor, router: null };
    const table = parameterTable(mor).filter(({ name }) => name !== "model.routers.0.weight");
    const tensors = await writeSource(source, {
      config: baseline,
      table: table.map((spec) => spec.name === "model.routers.1.weight" ? { ...spec, shape: [2, 64] } : spec),
    });
    const started = await start(device, { source, sourceConfig: baseline, config: mor, method: "lower" });
    for (const name of ["model.routers.0.weight", "model.routers.1.weight"]) {
      assertEquals(await valuesOf(device, started, name), await freshValues(device, mor, name), name);
    }
    for (const name of ["model.routers.2.weight", "model.layers.1.mlp.up_proj.weight"]) {
      assertEquals(await valuesOf(device, started, name), tensors.get(name), name);
    }
  },
);

sourceTest(
  "initializeFrom a source as deep as a vanilla model copies it, by any method",
  async (device, source) => {
    const tensors = await writeSource(source, { config: vanilla });
    for (const method of ["stepwise", "average", "lower", "upper", "random"] as const) {
      const started = await start(device, { source, sourceConfig: vanilla, config: vanilla, method });
      for (const [name, data] of tensors) assertEquals(await valuesOf(device, started, name), data, name);
    }
  },
);

sourceTest(
  "initializeFrom names the first field that differs and leaves the weights alone",
  async (device, source) => {
    await writeSource(source, { config: vanilla });
    const layout = new ParameterLayout(mor);
    const weights = layout.allocate(device, "weights");
    async function refusal(sourceConfig: ModelConfig, method: InitMethod = "stepwise"): Promise<string> {
      const settings = { layout, weights, source: sourceOf(source, sourceConfig), method, seed: 5 };
      return (await assertRejects(() => initializeFrom(device, settings), ConfigError)).message;
    }
    const other: Partial<ModelConfig>[] = [
      { vocabSize: 300 },
      { hiddenSize: 96, intermediateSize: 64 },
      { intermediateSize: 64 },
      { numAttentionHeads: 4 },
      { numKeyValueHeads: 2 },
      { headDim: 16 },
      { tieWordEmbeddings: false },
      { rmsNormEps: 1e-6 },
      { ropeTheta: 100000 },
    ];
    const met = [];
    for (const fields of other) met.push(await refusal({ ...vanilla, ...fields }));
    const beginning = `Cannot initialise from ${source}: its `;
    assertEquals(met.map((text) => text.slice(beginning.length).split(";")[0]), [
      "vocab_size is 300, the model's 257",
      "hidden_size is 96, the model's 64",
      "intermediate_size is 64, the model's 176",
      "num_attention_heads is 4, the model's 2",
      "num_key_value_heads is 2, the model's 1",
      "head_dim is 16, the model's 32",
      "tie_word_embeddings is false, the model's true",
      "rms_norm_eps is 0.000001, the model's 0.00001",
      "rope_theta is 100000, the model's 10000",
    ]);
    const recursion: RecursionConfig = { sharing: "cycle", numRecursions: 5, blockLayers: 1 };
    assertEquals(
      await refusal({ ...vanilla, recursion }),
      `${beginning}recursion is cycle with 5 recursions of 1 layers, the model's middle_cycle with 3 recursions of ` +
        "1 layers; choose a vanilla source or one of the same recursion",
    );
    await refusal({ ...vanilla, numHiddenLayers: 2 });
    await refusal({ ...vanilla, numHiddenLayers: 6 }, "average");
    assert((await readTensor(device, weights.flat)).every((value) => value === 0));
  },
);

sourceTest("initializeFrom reports a source that lacks weights", async (device, source) => {
  const settings = { source, sourceConfig: vanilla, config: mor, method: "upper" } as const;
  await assertRejects(() => start(device, settings), CheckpointError, "no such file");
  await writeSource(source, { config: { ...vanilla, numHiddenLayers: 4 } });
  await assertRejects(() => start(device, settings), CheckpointError, '"model.layers.4.');
});
