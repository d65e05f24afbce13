import { assert, assertAlmostEquals, assertEquals, assertRejects } from "@std/assert";
import { join } from "@std/path";
import { BLOCK_LENGTH } from "../../../gpu/packed_matrix.ts";
import { openCheckpoint } from "../../../model/files/checkpoint_source.ts";
import { ConfigError, type ModelConfig } from "../../../model/config.ts";
import { decodeNumbers, encodeNumbers } from "../../../model/files/number_formats.ts";
import { presetConfig } from "../../../model/presets.ts";
import {
  bitsPerWeight,
  quantizationPlan,
  type QuantizationReport,
  quantizeCheckpoint,
} from "../../../model/files/quantize.ts";
import { CheckpointError } from "../../../model/files/safetensors.ts";
import { readWeight } from "../../../model/files/weight_file.ts";
import { tinyRecursiveConfig, tinyRouter } from "../../reference/tiny_model.ts";
import { memoryWeightFile, seededNumbers, seededWeights } from "../../support/memory_weights.ts";
import { parameterTable } from "../../../model/parameters.ts";
import type { CheckpointSource } from "../../../model/files/checkpoint_source.ts";

/** Rows of whole blocks, but for the down projection's 44. */
const config = tinyRecursiveConfig({ sharing: "middle_cycle", numRecursions: 2, blockLayers: 1 }, {
  vocabSize: 257,
  hiddenSize: 32,
  intermediateSize: 44,
  headDim: 16,
  tokenizer: "byte",
  router: tinyRouter({ architecture: "mlp" }),
});

function sourceOf(model: ModelConfig): CheckpointSource {
  const weights = seededWeights(model, { seed: 6 });
  return {
    path: "memory",
    config: model,
    openWeights: () => Promise.resolve(memoryWeightFile(weights)),
    readTokenizer: () => Promise.resolve("byte"),
  };
}

async function withFolder(body: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await body(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

Deno.test("quantizationPlan packs matrices of whole blocks; routers, norms and other rows stay f32", () => {
  const plan = quantizationPlan(config, { format: "q4_0" });
  const kept = plan.filter(({ format }) => format === "f32").map(({ name }) => name.replace(/\d/, "N"));
  assertEquals(
    [...new Set(kept)].sort(),
    [
      "model.layers.N.input_layernorm.weight",
      "model.layers.N.mlp.down_proj.weight",
      "model.layers.N.post_attention_layernorm.weight",
      "model.norm.weight",
      "model.routers.N.hidden.weight",
      "model.routers.N.output.weight",
    ],
  );
  assert(plan.every(({ format }) => format === "f32" || format === "q4_0"));
});

Deno.test("bits per weight are those of the formats where all is packed", () => {
  const paper = presetConfig("135m-vanilla");
  const bits = (["f16", "q8_0", "q4_0"] as const).map((format) =>
    bitsPerWeight(quantizationPlan(paper, { format }))
  );
  // 16, 8 + 16 / 32 and 4 + 16 / 32, and a little for the norms.
  for (const [i, wanted] of [16, 8.5, 4.5].entries()) {
    assert(bits[i]! > wanted && bits[i]! < wanted + 0.02, `${bits[i]} bits, expected ${wanted}`);
  }
});

for (const format of ["f16", "q8_0", "q4_0"] as const) {
  Deno.test(`quantizeCheckpoint writes ${format}, with what the rounding did`, async () => {
    await withFolder(async (folder) => {
      const out = join(folder, "new", "model");
      const reports: QuantizationReport[] = [];
      await quantizeCheckpoint(sourceOf(config), { format, out, onWeight: (report) => reports.push(report) });
      const written = await openCheckpoint(out);
      const { extra, ...rest } = written.config;
      assertEquals({ ...rest, extra: {} }, config);
      assertEquals(
        extra,
        format === "f16"
          ? { torch_dtype: "float16" }
          : { quantization_config: { quant_method: "mor", format, block_size: BLOCK_LENGTH } },
      );
      assertEquals(await written.readTokenizer(), "byte");
      using file = await written.openWeights();
      assertEquals(reports.map(({ name }) => name), parameterTable(config).map(({ name }) => name));
      for (const report of reports) {
        const numbers = seededNumbers(report, 6);
        const bytes = encodeNumbers(report.format, numbers);
        const read = await readWeight(file, report);
        assertEquals(read, decodeNumbers(report.format, bytes), report.name);
        assertEquals(file.entries.get(report.name)!.format, report.format);
        assertEquals(report.bytes, bytes.length);
        const errors = numbers.map((value, i) => Math.abs(value - read[i]!));
        assertEquals(report.largestError, Math.max(...errors));
        const norm = (values: Float32Array): number => Math.hypot(...values);
        assertAlmostEquals(report.relativeError, norm(errors) / norm(numbers), 1e-6);
      }
    });
  });
}

Deno.test("quantizeCheckpoint keeps blocks that are there already, and goes from one format to another", async () => {
  await withFolder(async (folder) => {
    const [once, again, other] = ["once", "again", "other"].map((name) => join(folder, name));
    const onWeight = (): void => {};
    await quantizeCheckpoint(sourceOf(config), { format: "q8_0", out: once!, onWeight });
    const reports: QuantizationReport[] = [];
    await quantizeCheckpoint(await openCheckpoint(once!), {
      format: "q8_0",
      out: again!,
      onWeight: (report) => reports.push(report),
    });
    const bytes = (path: string): Promise<Uint8Array> => Deno.readFile(join(path, "model.safetensors"));
    assertEquals(await bytes(again!), await bytes(once!));
    assert(reports.every(({ relativeError }) => relativeError === 0));
    await quantizeCheckpoint(await openCheckpoint(once!), { format: "q4_0", out: other!, onWeight });
    using file = await (await openCheckpoint(other!)).openWeights();
    assertEquals(file.entries.get("model.embed_tokens.weight")!.format, "q4_0");
  });
});

Deno.test("embedding and head may have a format of their own", async () => {
  await withFolder(async (folder) => {
    const out = join(folder, "mixed");
    const untied = { ...config, tieWordEmbeddings: false };
    await quantizeCheckpoint(sourceOf(untied), {
      format: "q4_0",
      embeddingFormat: "q8_0",
      out,
      onWeight: () => {},
    });
    using file = await (await openCheckpoint(out)).openWeights();
    const formatOf = (name: string): string => file.entries.get(name)!.format;
    assertEquals(["model.embed_tokens.weight", "lm_head.weight"].map(formatOf), ["q8_0", "q8_0"]);
    assertEquals(formatOf("model.layers.0.self_attn.q_proj.weight"), "q4_0");
    for (const spec of parameterTable(untied)) {
      const format = file.entries.get(spec.name)!.format as "f32" | "q8_0" | "q4_0";
      const wanted = decodeNumbers(format, encodeNumbers(format, seededNumbers(spec, 6)));
      assertEquals(await readWeight(file, spec), wanted, spec.name);
    }
  });
});

Deno.test("a dry run writes nothing, and a checkpoint is never overwritten", async () => {
  await withFolder(async (folder) => {
    const names: string[] = [];
    const onWeight = ({ name }: QuantizationReport): void => void names.push(name);
    await quantizeCheckpoint(sourceOf(config), { format: "q8_0", out: null, onWeight });
    assertEquals(names.length, parameterTable(config).length);
    await Deno.writeTextFile(join(folder, "model.safetensors"), "precious");
    await assertRejects(
      () => quantizeCheckpoint(sourceOf(config), { format: "q8_0", out: folder, onWeight }),
      ConfigError,
      `Cannot write to ${folder}: it is not empty; name another folder`,
    );
    assertEquals(await Deno.readTextFile(join(folder, "model.safetensors")), "precious");
  });
});

Deno.test("a weight that the model has no place for is refused, and nothing is written", async () => {
  await withFolder(async (folder) => {
    const weights = seededWeights(config, { seed: 6 });
    const name = "model.layers.0.self_attn.q_proj.bias";
    weights.set(name, { shape: [32], format: "f32", bytes: new Uint8Array(128) });
    const source = { ...sourceOf(config), openWeights: () => Promise.resolve(memoryWeightFile(weights)) };
    await assertRejects(
      () => quantizeCheckpoint(source, { format: "q8_0", out: join(folder, "out"), onWeight: () => {} }),
      CheckpointError,
      `tensor "${name}" has no place in the model`,
    );
    assertEquals([...Deno.readDirSync(folder)], []);
  });
});

Deno.test("numbers beyond the format's range are an error, and leave no checkpoint behind", async () => {
  await withFolder(async (folder) => {
    const weights = seededWeights(config, { seed: 6 });
    const name = "model.layers.1.mlp.up_proj.weight";
    const numbers = seededNumbers({ name, shape: [44, 32], kind: "matrix" }, 6);
    numbers[7] = 1e9;
    weights.set(name, { shape: [44, 32], format: "f32", bytes: encodeNumbers("f32", numbers) });
    const source = { ...sourceOf(config), openWeights: () => Promise.resolve(memoryWeightFile(weights)) };
    const out = join(folder, "out");
    await assertRejects(
      () => quantizeCheckpoint(source, { format: "q8_0", out, onWeight: () => {} }),
      CheckpointError,
      `Cannot convert tensor "${name}": Cannot store 1000000000 as q8_0`,
    );
    assertEquals([...Deno.readDirSync(folder)], []);
  });
});
