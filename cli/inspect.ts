import { Command } from "@cliffy/command";
import { formatBytes } from "../gpu/memory.ts";
import type { KvDtype } from "../gpu/kernels/attention_heads.ts";
import { ELEMENT_BYTES, elementCount } from "../gpu/tensor.ts";
import { openCheckpoint } from "../model/files/checkpoint_source.ts";
import type { ModelConfig } from "../model/config.ts";
import { sharedKeysProblem } from "../model/config_checks.ts";
import { modelConfigToJson } from "../model/config_file.ts";
import { flopsPerToken } from "../model/flops.ts";
import { cacheBytesPerToken } from "../model/kv_cache.ts";
import { parameterCount, parameterTable, unrolledParameterCount } from "../model/parameters.ts";
import { holdsShards } from "../model/files/safetensors_shards.ts";
import { numbersByFormat, type StoredWeight, storedWeights } from "../model/files/stored_weights.ts";
import type { WantedWeight } from "../model/files/weight_file.ts";
import { configOf } from "./session.ts";
import { openTerminal } from "./terminal.ts";
import { hasRandomWeights } from "./work_flags.ts";

interface InspectOptions {
  readonly json?: boolean | undefined;
}

/** `mor inspect`: sizes and costs of a model, without a GPU. */
// deno-lint-ignore no-explicit-any -- see root.ts
export function inspectCommand(): Command<any> {
  return new Command()
    .description(
      "Show a model's parameters and how they are stored, FLOPs per token, cache bytes and tensors. " +
        "Takes a checkpoint, a preset or a config.json.",
    )
    .arguments("<model:string>")
    .option("--json", "Print one JSON object.")
    .example("A preset", "mor inspect 360m-mor3")
    .example("A file", "mor inspect SmolLM2.gguf --json")
    .action(({ json }: InspectOptions, model: string) => inspect(model, { json }));
}

async function inspect(model: string, { json }: InspectOptions): Promise<void> {
  const terminal = openTerminal();
  const config = await configOf(model);
  const weights = hasRandomWeights(model) ? null : await weightsOf(model);
  const tokens = config.maxPositionEmbeddings;
  const tensors: readonly (WantedWeight & Partial<StoredWeight>)[] = weights ?? parameterTable(config);
  const parameters = parameterCount(config);
  const report = {
    parameters,
    parameters_unrolled: unrolledParameterCount(config),
    parameters_without_embeddings: parameters - tensors[0]!.shape[0]! * tensors[0]!.shape[1]!,
    bytes_f32: parameters * ELEMENT_BYTES,
    ...(weights && storedJson(weights)),
    context: tokens,
    flops_per_token_paper: flopsPerToken(config, { tokens }).paper,
    flops_per_token_full: flopsPerToken(config, { tokens }).full,
    kv_bytes_per_token: kvBytesPerToken(config, "f32"),
    kv_bytes_per_token_f16: kvBytesPerToken(config, "f16"),
  };
  if (json) {
    const table = tensors.map(({ name, shape, format }) => ({ name, shape, ...(format && { format }) }));
    terminal.out(JSON.stringify({ ...report, config: modelConfigToJson(config), tensors: table }) + "\n");
    return;
  }
  const rows = [
    ["parameters", `${report.parameters.toLocaleString("en")} (${formatBytes(report.bytes_f32)} as f32)`],
    ...(weights ? storedRows(weights) : []),
    ["without embeddings", report.parameters_without_embeddings.toLocaleString("en")],
    ["if unrolled", `${report.parameters_unrolled.toLocaleString("en")}, ${config.numHiddenLayers} layers`],
    ["FLOPs per token", `${millions(report.flops_per_token_paper)} (paper's formula, context ${tokens})`],
    ["", `${millions(report.flops_per_token_full)} (with head, routers and grouped heads)`],
    ...cacheRows(config, report.kv_bytes_per_token),
    ...ropeRows(config),
    ...tensors.map(({ name, shape, format = "" }, i) => [
      i === 0 ? "tensors" : "",
      `${name} (${shape.join(", ")}) ${format}`.trimEnd(),
    ]),
  ];
  terminal.out(rows.map(([name, value]) => `${name!.padEnd(20)}${value}\n`).join(""));
}

/** A model's weights as they are stored; null for a configuration without any. */
async function weightsOf(model: string): Promise<StoredWeight[] | null> {
  const { path, config, openWeights } = await openCheckpoint(model);
  if ((await Deno.stat(path)).isDirectory) {
    const names = await Array.fromAsync(Deno.readDir(path), ({ name }) => name);
    if (!holdsShards(names)) return null;
  }
  using file = await openWeights();
  return storedWeights(config, file);
}

function storedSize(weights: readonly StoredWeight[]): { bytes: number; bitsPerWeight: number } {
  const bytes = weights.reduce((sum, weight) => sum + weight.bytes, 0);
  const numbers = weights.reduce((sum, { shape }) => sum + elementCount(shape), 0);
  return { bytes, bitsPerWeight: (8 * bytes) / numbers };
}

function storedJson(weights: readonly StoredWeight[]): Record<string, unknown> {
  const { bytes, bitsPerWeight } = storedSize(weights);
  const formats = Object.fromEntries(numbersByFormat(weights));
  return { bytes_stored: bytes, bits_per_weight: bitsPerWeight, numbers_by_format: formats };
}

function storedRows(weights: readonly StoredWeight[]): [string, string][] {
  const { bytes, bitsPerWeight } = storedSize(weights);
  const formats = numbersByFormat(weights).map(([format, count]) =>
    `${count.toLocaleString("en")} as ${format}`
  );
  return [[
    "stored",
    `${formatBytes(bytes)}, ${bitsPerWeight.toFixed(2)} bits per weight: ${formats.join(", ")}`,
  ]];
}

/** Mean bytes of a token's keys and values, at the capacities' mean depth. */
interface KvBytesPerToken {
  readonly recursion_wise: number;
  /** Null where the model cannot share keys and values. */
  readonly shared: number | null;
  /** As many layers without recursion. */
  readonly vanilla: number;
}

function kvBytesPerToken(config: ModelConfig, kvDtype: KvDtype): KvBytesPerToken {
  const bytes = (changes: Partial<ModelConfig>): number =>
    Math.round(cacheBytesPerToken({ ...config, ...changes }, { kvDtype }));
  const canShare = config.recursion !== null && sharedKeysProblem(config) === null;
  return {
    recursion_wise: bytes({ kvCache: "recursion_wise" }),
    shared: canShare ? bytes({ kvCache: "shared" }) : null,
    vanilla: bytes({ recursion: null, router: null, kvCache: "recursion_wise" }),
  };
}

/** Lines of the report; a model without recursion has one kind of cache. */
function cacheRows(
  { recursion }: ModelConfig,
  { recursion_wise: own, shared, vanilla }: KvBytesPerToken,
): [string, string][] {
  const bytes = (count: number): string => `${count.toLocaleString("en")} bytes`;
  const name = "KV cache per token";
  if (!recursion) return [[name, `${bytes(vanilla)} (f32; f16 takes half)`]];
  const sharing = shared === null ? "shared keys and values not possible" : `${bytes(shared)} shared`;
  return [
    [name, `${bytes(own)} recursion-wise, ${sharing} (f32, mean depth; f16 takes half)`],
    ["", `${bytes(vanilla)} for as many layers without recursion`],
  ];
}

/** A line about positions that are scaled; nothing about those that are not. */
function ropeRows({ ropeScaling: scaling }: ModelConfig): [string, string][] {
  if (!scaling) return [];
  const factor = "factor" in scaling ? ` by ${scaling.factor}` : "";
  return [["RoPE scaling", scaling.kind + factor]];
}

function millions(flops: number): string {
  return `${(flops / 1e6).toLocaleString("en", { maximumFractionDigits: 2 })} M`;
}
