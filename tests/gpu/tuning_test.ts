/** Kernels by the device's choices, and what is measured to make them. */
import { assert, assertEquals, assertNotEquals, assertStringIncludes } from "@std/assert";
import { Commands, type RecordedDispatch } from "../../gpu/commands.ts";
import { GpuDevice, openDevice } from "../../gpu/device.ts";
import { defineKernel, type Kernel } from "../../gpu/kernel.ts";
import { attention } from "../../gpu/kernels/attention.ts";
import { attentionCached } from "../../gpu/kernels/attention_cached.ts";
import { fusedLayout } from "../../gpu/kernels/attention_heads.ts";
import { linear, linearBackwardInput, linearBackwardWeight } from "../../gpu/kernels/linear.ts";
import { createPackedMatrix } from "../../gpu/packed_matrix.ts";
import { staticRows } from "../../gpu/rows.ts";
import { createTensor, tensorFrom } from "../../gpu/tensor.ts";
import type { TuningCase } from "../../gpu/tuning/cases.ts";
import { tuningKey } from "../../gpu/tuning/key.ts";
import { type CaseReport, measureCase, tuningCases, Workbench } from "../../gpu/tuning/measure.ts";
import { defaultTuning, type Tuning } from "../../gpu/tuning/tuning.ts";
import { blank, blankIndices, gpuTest } from "../support/device.ts";
import { asHardware, tuned } from "../support/hardware.ts";
import { uploadPacking } from "../support/packing.ts";

Deno.test("defaultTuning knows lavapipe with eight lanes, other processors and hardware", () => {
  const info = { description: "", vendor: "", isSoftware: true, subgroupSize: 8 };
  const features = new Set(["subgroups"] as const);
  const choices = (device: Parameters<typeof defaultTuning>[0]): (string | number)[] =>
    Object.values(defaultTuning(device));
  const [s, t] = ["subgroup", "tile_64x64"];
  assertEquals(choices({ info, features }), [s, s, s, s, s, 16, s, s]);
  const others = [t, t, t, "lanes_32", "slices_4", 16];
  const processor = [...others, "lanes_8", "lanes_8"];
  assertEquals(choices({ info, features: new Set() }), processor);
  assertEquals(choices({ info: { ...info, subgroupSize: 4 }, features }), processor);
  const hardware = { info: { ...info, isSoftware: false }, features };
  assertEquals(choices(hardware), [...others, "lanes_32", "lanes_64"]);
});

/** The only dispatch that a call records on a device with these choices: its label and workgroups. */
function dispatchOf(
  device: GpuDevice,
  { choices, record }: { choices: Partial<Tuning>; record: (commands: Commands) => void },
): [label: string, grid: RecordedDispatch["grid"]] {
  const commands = new Commands(tuned(device, choices), "test");
  record(commands);
  const [dispatch, ...more] = commands.steps.filter(({ kind }) => kind === "dispatch") as RecordedDispatch[];
  assertEquals(more, []);
  return [dispatch!.label, dispatch!.grid];
}

gpuTest("products use the variants that the device is tuned to, by kind and rows", (device) => {
  const [inputs, outputs] = [64, 256];
  const weight = blank(device, [outputs, inputs]);
  const product = (count: number, partOf?: number) => (commands: Commands): void => {
    const [x, out] = [blank(device, [count, inputs]), blank(device, [count, outputs])];
    const rows = staticRows(device, count);
    linear(commands, { x, weight, out }, { rows, ...(partOf !== undefined && { partOf }) });
  };
  const choices = { matmul: "tile_128x128", matmulFewRows: "tile_32x32", vectorRows: 8 } as const;
  const recorded = (count: number, partOf?: number): unknown =>
    dispatchOf(device, { choices, record: product(count, partOf) });
  assertEquals(recorded(256), ["matmul_tiled matmul", [2, 1, 2]]);
  assertEquals(recorded(128), ["matmul_tiled matmul", [4, 1, 8]]);
  assertEquals(recorded(9), ["matmul_tiled matmul", [1, 1, 8]]);
  // Some rows of many come out as all at once.
  assertEquals(recorded(64, 256), ["matmul_tiled matmul", [1, 1, 2]]);
  const few = { ...choices, matmulVector: "lanes_64" } as const;
  assertEquals(dispatchOf(device, { choices: few, record: product(8) }), ["matmul_vector product", [
    2,
    1,
    32,
  ]]);
  const more = { ...few, vectorRows: 32 } as const;
  assertEquals(dispatchOf(device, { choices: more, record: product(32) })[0], "matmul_vector product");

  const gradOut = blank(device, [160, outputs]);
  const rows = staticRows(device, 160);
  const gradients = { ...choices, matmulGradient: "tile_64x64" } as const;
  const gradX = blank(device, [160, inputs]);
  const backward = (commands: Commands): void =>
    linearBackwardInput(commands, { gradOut, weight, gradX }, { rows });
  assertEquals(dispatchOf(device, { choices: gradients, record: backward })[1], [2, 1, 1]);
  const gradWeight = (commands: Commands): void =>
    linearBackwardWeight(commands, { gradOut, x: gradX, gradWeight: weight }, { rows });
  assertEquals(dispatchOf(device, { choices: gradients, record: gradWeight })[1], [4, 1, 1]);
  return Promise.resolve();
});

gpuTest("packed products and attention use the variants that the device is tuned to", (device) => {
  const weight = createPackedMatrix(device, { format: "q8_0", shape: [64, 32], label: "packed" });
  const rows = staticRows(device, 1);
  const record = (commands: Commands): void => {
    linear(commands, { x: blank(device, [1, 32]), weight, out: blank(device, [1, 64]) }, { rows });
  };
  const packed = dispatchOf(device, { choices: { matmulPanel: "slices_2" }, record });
  assertEquals(packed, ["matmul_panel product", [1, 1, 2]]);

  const heads = { heads: 1, kvHeads: 1, headDim: 8 };
  const settings = { ...heads, layout: fusedLayout(heads) };
  const packing = uploadPacking(device, {
    positions: [Array.from({ length: 256 }, (_, i) => i)],
    tokens: 256,
  });
  const qkv = blank(device, [256, 24]);
  const [out, logSumExp] = [blank(device, [256, 8]), blank(device, [256, 1])];
  const groups = (name: Tuning["attention"]): unknown =>
    dispatchOf(device, {
      choices: { attention: name },
      record: (commands) => attention(commands, { q: qkv, kv: qkv, packing, out, logSumExp }, settings),
    })[1];
  assertEquals([groups("lanes_8"), groups("lanes_64")], [[8, 1, 1], [1, 1, 1]]);

  const cache = { pool: blank(device, [16, 16]), pages: blankIndices(device, [1, 1]) };
  const cachedPacking = { rows, records: blankIndices(device, [1, 4]) };
  const pipelines = (name: Tuning["attentionCached"]): string[] => {
    const chosen = tuned(device, { attentionCached: name });
    const q = blank(device, [1, 8]);
    const tensors = { q, cache, packing: cachedPacking, out: blank(device, [1, 8]) };
    attentionCached(new Commands(chosen, "test"), tensors, { ...heads, layout: { kOffset: 0, vOffset: 8 } });
    return [...chosen.pipelines.keys()];
  };
  for (const [name, lanes] of [["lanes_64", 64], ["lanes_256", 256]] as const) {
    const [key, ...more] = pipelines(name);
    assertEquals(more, []);
    assertStringIncludes(key!, `"LANES":${lanes}`);
  }
  return Promise.resolve();
});

gpuTest("tuningCases offer an adapter its default first and nothing that it cannot run", (device) => {
  for (const kind of [device, asHardware(device)]) {
    const usual = defaultTuning(kind);
    const cases = tuningCases(kind);
    assertEquals(new Set(cases.map(({ choice }) => choice)).size, 7);
    for (const { choice, candidates } of cases) {
      assertEquals(candidates[0], usual[choice], choice);
      assertEquals(new Set(candidates).size, candidates.length, choice);
    }
  }
  const offered = tuningCases(asHardware(device)).flatMap(({ candidates }) => candidates);
  assert(!offered.includes("subgroup"), "exchange in subgroups of eight is for adapters that have them");
  // An adapter of WebGPU's smallest limits has no room for the largest tile.
  const limits = { maxComputeInvocationsPerWorkgroup: 256, maxComputeWorkgroupStorageSize: 16384 };
  const small = new Proxy(asHardware(device), {
    get: (target, name) => name === "limits" ? limits : Reflect.get(target, name, target),
  });
  const [products] = tuningCases(small);
  assertEquals(products!.candidates, ["tile_64x64", "tile_32x32", "tile_128x64"]);
  return Promise.resolve();
});

/** A kernel of three numbers. */
function squares(file: string, expression: string): Kernel {
  return defineKernel(
    file,
    `@group(0) @binding(0) var<storage, read> x: array<f32>;
@group(0) @binding(1) var<storage, read_write> out: array<f32>;
@compute @workgroup_size(3)
fn square(@builtin(local_invocation_index) i: u32) { out[i] = ${expression}; }`,
  );
}

const RIGHT = squares("right.wgsl", "x[i] * x[i]");
const SAME = squares("same.wgsl", "x[i] * x[i] * 1.00001");
const WRONG = squares("wrong.wgsl", "select(x[i] * x[i], x[i], i == 2u)");
const NOTHING = squares("nothing.wgsl", "select(x[i] * x[i], (x[i] - x[i]) / (x[i] - x[i]), i == 0u)");
const LAZY = squares("lazy.wgsl", "out[i] * x[i]");
const BROKEN = squares("broken.wgsl", "x[i] * nothing");

/** Kernels under the names of variants, the first being the default. */
function injectedCase(kernels: Partial<Record<Tuning["matmul"], Kernel>>): TuningCase {
  return {
    choice: "matmul",
    work: "three squares",
    candidates: Object.keys(kernels) as Tuning["matmul"][],
    prepare: (scope) => {
      const x = tensorFrom(scope, { data: Float32Array.of(2, 3, 5), label: "x" });
      const out = createTensor(scope, { shape: [3], label: "out" });
      return {
        record: (commands) =>
          commands.dispatch(kernels[commands.device.tuning.matmul]!, {
            entryPoint: "square",
            tensors: { x, out },
            grid: [1, 1, 1],
          }),
        outputs: [out],
        flops: 3,
      };
    },
  };
}

async function measureInjected(
  kernels: Partial<Record<Tuning["matmul"], Kernel>>,
  open: () => Promise<GpuDevice> = openDevice,
): Promise<{ report: CaseReport; left: number }> {
  using bench = await Workbench.open(open);
  const { tuning } = bench.device;
  const report = await measureCase(bench, { tuningCase: injectedCase(kernels), tuning });
  await bench.device.settle();
  return { report, left: bench.device.memory.live };
}

gpuTest("measureCase leaves out candidates whose results are wrong or not there", async () => {
  const { report } = await measureInjected({
    tile_64x64: RIGHT,
    tile_32x32: WRONG,
    tile_128x128: NOTHING,
    subgroup: LAZY,
    tile_128x64: SAME,
  });
  const [right, wrong, nothing, lazy, same] = report.trials;
  for (const { milliseconds, note } of [wrong!, nothing!, lazy!]) {
    assertEquals(milliseconds, null);
    assert(/^wrong: its result is off by ([\d.]+|NaN) of its usual size$/.test(note!), note!);
  }
  // Rounding is no mistake.
  for (const { milliseconds, note } of [right!, same!]) {
    assert(milliseconds !== null && milliseconds >= 0, `${milliseconds} ms`);
    assert(note === null || /slower/.test(note), String(note));
  }
  assert(["tile_64x64", "tile_128x64"].includes(String(report.chosen)), String(report.chosen));
});

gpuTest("measureCase goes on with another device after a candidate that fails", async () => {
  let opened = 0;
  const open = (): Promise<GpuDevice> => {
    opened++;
    return openDevice();
  };
  const { report, left } = await measureInjected({
    tile_64x64: RIGHT,
    tile_32x32: BROKEN,
    tile_128x64: WRONG,
  }, open);
  assertEquals(opened, 2);
  assertEquals(report.chosen, "tile_64x64");
  const [right, broken, wrong] = report.trials;
  assert(right!.milliseconds !== null);
  assertEquals(broken!.milliseconds, null);
  assert(/^it fails: .*broken/.test(broken!.note!), broken!.note!);
  assertStringIncludes(wrong!.note!, "wrong");
  // Buffers for reading back stay with the device.
  assert(left < 2 ** 20, `${left} bytes are left`);
});

gpuTest("measureCase keeps a default that fails: there is nothing to compare with", async () => {
  const { report } = await measureInjected({ tile_64x64: BROKEN, tile_32x32: RIGHT });
  assertEquals(report.chosen, "tile_64x64");
  assertEquals(report.trials.map(({ milliseconds }) => milliseconds), [null, null]);
  assertStringIncludes(report.trials[0]!.note!, "it fails");
  assertEquals(report.trials[1]!.note, "not tried: the default fails");
});

gpuTest("measureCase times by the host's clock where the adapter grants no timestamps", async () => {
  const open = async (): Promise<GpuDevice> => {
    const { handle, info } = await openDevice();
    return new GpuDevice(handle, info, new Set());
  };
  const { report } = await measureInjected({ tile_64x64: RIGHT, tile_32x32: SAME }, open);
  assert(report.trials.every(({ milliseconds }) => milliseconds! > 0), JSON.stringify(report.trials));
});

gpuTest(
  "tuningKey changes with the kernels' sources and the adapter, and with nothing else",
  async (device) => {
    const key = await tuningKey(device);
    assert(/^[0-9a-f]{64}$/.test(key), key);
    assertEquals(await tuningKey(tuned(device, { vectorRows: 4 })), key);
    const { handle, info, features } = device;
    const others = [
      await tuningKey(device, "other sources"),
      await tuningKey(new GpuDevice(handle, { ...info, description: "another" }, features)),
      await tuningKey(new GpuDevice(handle, { ...info, vendor: "another" }, features)),
      await tuningKey(new GpuDevice(handle, info, new Set())),
    ];
    for (const other of others) assertNotEquals(other, key);
    assertEquals(new Set(others).size, others.length);
  },
);
