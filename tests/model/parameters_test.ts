import { assertEquals } from "@std/assert";
import { planAllocator } from "../../gpu/memory.ts";
import { elementCount, type Tensor } from "../../gpu/tensor.ts";
import type { ModelConfig } from "../../model/config.ts";
import { ParameterLayout } from "../../model/parameter_layout.ts";
import { layerPlan, paddedVocabSize, parameterCount, parameterTable } from "../../model/parameters.ts";
import { presetConfig } from "../../model/presets.ts";
import { parameterTensor } from "../../model/weights.ts";
import { goldenNames, readGolden } from "../support/golden.ts";

const tiny = presetConfig("tiny");
const untied: ModelConfig = { ...tiny, tieWordEmbeddings: false };
const cycle = {
  ...tiny,
  recursion: { sharing: "cycle", numRecursions: 2, blockLayers: 3 },
  numHiddenLayers: 6,
} as const;

for (const name of goldenNames) {
  Deno.test(`parameterTable names the tensors of golden case ${name} with their shapes`, () => {
    const { config, weights } = readGolden(name);
    const shapes = new Map(parameterTable(config).map((spec) => [spec.name, spec.shape]));
    assertEquals(shapes, new Map([...weights].map(([name, { shape }]) => [name, shape])));
  });
}

Deno.test("parameterCount is the sum of the table, an untied head counted apart", () => {
  for (const config of [tiny, untied, cycle, presetConfig("135m-mor3")]) {
    const sum = parameterTable(config).reduce((total, { shape }) => total + elementCount(shape), 0);
    assertEquals(parameterCount(config), sum);
  }
  assertEquals(parameterCount(untied) - parameterCount(tiny), 257 * 64);
  assertEquals(parameterCount(tiny) - parameterCount({ ...tiny, router: null }), 3 * 64);
});

Deno.test("layerPlan gives the unique layers in the order in which they run", () => {
  assertEquals(layerPlan(tiny), { first: [0], steps: [[1], [1], [1]], last: [2] });
  assertEquals(layerPlan(cycle), { first: [], steps: [[0, 1, 2], [0, 1, 2]], last: [] });
  assertEquals(layerPlan(presetConfig("tiny-vanilla")), { first: [0, 1, 2, 3, 4], steps: [], last: [] });
  const sequence = { ...cycle, recursion: { ...cycle.recursion, sharing: "sequence" } } as const;
  assertEquals(layerPlan(sequence), { first: [], steps: [[0, 0, 1], [1, 2, 2]], last: [] });
  const middle = { ...sequence, recursion: { ...cycle.recursion, sharing: "middle_sequence" } } as const;
  assertEquals(layerPlan(middle), { first: [0], steps: [[1, 1, 2], [2, 3, 3]], last: [4] });
});

/** [start, end) of a view in its flat array. */
function extent({ offset, shape }: Tensor): [number, number] {
  return [offset / 4, offset / 4 + elementCount(shape)];
}

for (const config of [tiny, untied, cycle, presetConfig("tiny-vanilla"), readGolden("vanilla").config]) {
  const { hiddenSize, numHiddenLayers, recursion, tieWordEmbeddings } = config;
  const title = `${hiddenSize} wide, ${numHiddenLayers} layers, ${
    recursion?.sharing ?? "vanilla"
  }, tied ${tieWordEmbeddings}`;
  Deno.test(`ParameterLayout keeps weights apart, aligned and matrices before norms: ${title}`, () => {
    const layout = new ParameterLayout(config);
    const views = layout.allocate(planAllocator(), "weights");
    const tensors = parameterTable(config).map((spec) => ({
      spec,
      tensor: parameterTensor(layout, views, spec.name),
    }));
    const extents = tensors.map(({ tensor }) => extent(tensor)).sort(([a], [b]) => a - b);
    extents.forEach(([, end], i) => assertEquals(end <= (extents[i + 1]?.[0] ?? layout.size), true));
    for (const { spec, tensor } of tensors) {
      const [start, end] = extent(tensor);
      const isMatrix = spec.kind === "matrix";
      assertEquals(isMatrix ? end <= layout.decayed : start >= layout.decayed, true, spec.name);
    }
    const bound = [
      views.embedding,
      views.head,
      views.norm,
      ...views.routers,
      ...views.layers.flatMap(Object.values),
    ];
    for (const { offset, label } of bound) assertEquals(offset % 256, 0, label);
    assertEquals(layout.decayed % 64, 0);
  });
}

Deno.test("projections of one input are one matrix", () => {
  const layout = new ParameterLayout(tiny);
  const views = layout.allocate(planAllocator(), "weights");
  const place = (name: string): [number, number] =>
    extent(parameterTensor(layout, views, `model.layers.1.${name}.weight`));
  const [q, k, v] = ["q_proj", "k_proj", "v_proj"].map((name) => place(`self_attn.${name}`));
  assertEquals([q![0], q![1], k![1], v![1]], [
    extent(views.layers[1]!.qkv)[0],
    k![0],
    v![0],
    extent(views.layers[1]!.qkv)[1],
  ]);
  const [gate, up] = ["gate_proj", "up_proj"].map((name) => place(`mlp.${name}`));
  assertEquals([gate![0], gate![1], up![1]], [
    extent(views.layers[1]!.gateUp)[0],
    up![0],
    extent(views.layers[1]!.gateUp)[1],
  ]);
});

Deno.test("a tied head is the embedding, an untied one has a place of its own; both have padding rows", () => {
  const tied = new ParameterLayout(tiny).allocate(planAllocator(), "weights");
  assertEquals(tied.head, tied.embedding);
  assertEquals([paddedVocabSize(tiny), tied.embedding.shape], [272, [272, 64]]);
  const apart = new ParameterLayout(untied).allocate(planAllocator(), "weights");
  assertEquals(apart.head.shape, [272, 64]);
  assertEquals(extent(apart.head)[0] >= extent(apart.embedding)[1], true);
});
