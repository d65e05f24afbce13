import { assertEquals } from "@std/assert";
import { planAllocator } from "../../gpu/memory.ts";
import { elementCount, type Tensor } from "../../gpu/tensor.ts";
import type { ModelConfig, RouterConfig } from "../../model/config.ts";
import type { RouterWeights } from "../../model/model_weights.ts";
import { ParameterLayout, type ParameterViews } from "../../model/parameter_layout.ts";
import { layerPlan, paddedVocabSize, parameterCount, parameterTable } from "../../model/parameters.ts";
import { presetConfig } from "../../model/presets.ts";
import { parameterTensor } from "../../model/weights.ts";
import { tinyRouter, tinyTokenRouter } from "../reference/tiny_model.ts";
import { goldenNames, readGolden } from "../support/golden.ts";

const tiny = presetConfig("tiny");
const untied: ModelConfig = { ...tiny, tieWordEmbeddings: false };
const cycle = {
  ...tiny,
  recursion: { sharing: "cycle", numRecursions: 2, blockLayers: 3 },
  numHiddenLayers: 6,
} as const;

/** Routers of a model 64 wide with three recursions, and their tensors. */
const routers: Record<string, { router: RouterConfig; tensors: Record<string, number[]> }> = {
  "expert choice": {
    router: tinyRouter(),
    tensors: {
      "model.routers.0.weight": [1, 64],
      "model.routers.1.weight": [1, 64],
      "model.routers.2.weight": [1, 64],
    },
  },
  "expert choice with mlp routers": {
    router: tinyRouter({ architecture: "mlp" }),
    tensors: {
      "model.routers.0.hidden.weight": [128, 64],
      "model.routers.0.output.weight": [1, 128],
      "model.routers.1.hidden.weight": [128, 64],
      "model.routers.1.output.weight": [1, 128],
      "model.routers.2.hidden.weight": [128, 64],
      "model.routers.2.output.weight": [1, 128],
    },
  },
  "expert choice with auxiliary routers": {
    router: tinyRouter({ auxiliary: "router" }),
    tensors: {
      "model.routers.0.weight": [1, 64],
      "model.routers.1.weight": [1, 64],
      "model.routers.2.weight": [1, 64],
      "model.aux_routers.0.weight": [1, 64],
      "model.aux_routers.1.weight": [1, 64],
      "model.aux_routers.2.weight": [1, 64],
    },
  },
  "expert choice with auxiliary mlp routers": {
    router: tinyRouter({ architecture: "mlp", auxiliary: "router" }),
    tensors: Object.fromEntries(
      ["routers", "aux_routers"].flatMap((kind) =>
        [0, 1, 2].flatMap((r) => [
          [`model.${kind}.${r}.hidden.weight`, [128, 64]],
          [`model.${kind}.${r}.output.weight`, [1, 128]],
        ])
      ),
    ),
  },
  "token choice": { router: tinyTokenRouter(), tensors: { "model.router.weight": [3, 64] } },
  "token choice without a loss": {
    router: tinyTokenRouter({ balancing: "loss_free" }),
    tensors: { "model.router.weight": [3, 64], "model.router.bias": [3] },
  },
  "token choice with an mlp router": {
    router: tinyTokenRouter({ architecture: "mlp", balancing: "loss_free" }),
    tensors: {
      "model.router.hidden.weight": [128, 64],
      "model.router.output.weight": [3, 128],
      "model.router.bias": [3],
    },
  },
};

for (const [name, { router, tensors }] of Object.entries(routers)) {
  Deno.test(`parameterTable adds the routers' tensors after the rest: ${name}`, () => {
    const table = parameterTable({ ...tiny, router });
    const rest = parameterTable({ ...tiny, router: null });
    assertEquals(table.slice(0, rest.length), rest);
    const added = table.slice(rest.length);
    assertEquals(added.map(({ name, shape }) => [name, shape]), Object.entries(tensors));
    assertEquals(
      added.map(({ kind }) => kind),
      added.map(({ name }) => name.endsWith(".bias") ? "bias" : "matrix"),
    );
  });
}

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

const laidOut: Record<string, ModelConfig> = {
  "middle_cycle": tiny,
  "with a head of its own": untied,
  "cycle": cycle,
  "vanilla": presetConfig("tiny-vanilla"),
  "24 wide": readGolden("vanilla").config,
  ...Object.fromEntries(
    Object.entries(routers).map(([name, { router }]) => [name, { ...tiny, router }]),
  ),
};

function routerTensors({ hidden, output }: RouterWeights): Tensor[] {
  return hidden ? [hidden, output] : [output];
}

/** Views that operations bind. */
function boundViews({ embedding, head, norm, layers, ...views }: ParameterViews): Tensor[] {
  const routers = [...views.routers, ...views.auxiliaryRouters].flatMap(routerTensors);
  const bias = views.routerBias ? [views.routerBias] : [];
  return [embedding, head, norm, ...layers.flatMap((layer) => Object.values(layer)), ...routers, ...bias];
}

for (const [name, config] of Object.entries(laidOut)) {
  Deno.test(`ParameterLayout keeps weights apart, aligned and matrices before norms: ${name}`, () => {
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
    for (const { offset, label } of boundViews(views)) assertEquals(offset % 256, 0, label);
    assertEquals(layout.decayed % 64, 0);
  });
}

for (const [name, { router, tensors }] of Object.entries(routers)) {
  Deno.test(`ParameterLayout hands out the routers' tensors by their roles: ${name}`, () => {
    const layout = new ParameterLayout({ ...tiny, router });
    const views = layout.allocate(planAllocator(), "weights");
    const { routers, auxiliaryRouters, routerBias } = views;
    const isAuxiliary = router.kind === "expert_choice" && router.auxiliary === "router";
    const count = router.kind === "expert_choice" ? 3 : 1;
    assertEquals([routers.length, auxiliaryRouters.length], [count, isAuxiliary ? 3 : 0]);
    const viewed = [...routers, ...auxiliaryRouters].flatMap(routerTensors);
    if (routerBias) viewed.push(routerBias);
    const stored = Object.keys(tensors).map((name) => parameterTensor(layout, views, name));
    assertEquals(
      viewed.map((view) => [extent(view), view.shape]),
      stored.map((tensor) => [extent(tensor), tensor.shape]),
    );
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
  assertEquals([extent(views.layers[1]!.q), views.layers[1]!.q.shape], [q, [64, 64]]);
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
