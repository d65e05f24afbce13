import { Command } from "@cliffy/command";
import { formatBytes } from "../gpu/memory.ts";
import { ELEMENT_BYTES } from "../gpu/tensor.ts";
import type { ModelConfig } from "../model/config.ts";
import { sharedKeysProblem } from "../model/config_checks.ts";
import { modelConfigToJson } from "../model/config_file.ts";
import { flopsPerToken } from "../model/flops.ts";
import { cacheBytesPerToken } from "../model/kv_cache.ts";
import { parameterCount, parameterTable, unrolledParameterCount } from "../model/parameters.ts";
import { configOf } from "./session.ts";
import { openTerminal } from "./terminal.ts";

interface InspectOptions {
  readonly json?: boolean | undefined;
}

/** `mor inspect`: sizes and costs of a model, without a GPU. */
// deno-lint-ignore no-explicit-any -- see root.ts
export function inspectCommand(): Command<any> {
  return new Command()
    .description(
      "Show a model's parameters, FLOPs per token, cache bytes and tensors. Takes a checkpoint or a preset.",
    )
    .arguments("<model:string>")
    .option("--json", "Print one JSON object.")
    .example("A preset", "mor inspect 360m-mor3")
    .action(({ json }: InspectOptions, model: string) => inspect(model, { json }));
}

async function inspect(model: string, { json }: InspectOptions): Promise<void> {
  const terminal = openTerminal();
  const config = await configOf(model);
  const tokens = config.maxPositionEmbeddings;
  const tensors = parameterTable(config);
  const report = {
    parameters: parameterCount(config),
    parameters_unrolled: unrolledParameterCount(config),
    parameters_without_embeddings: parameterCount(config) - tensors[0]!.shape[0]! * tensors[0]!.shape[1]!,
    bytes_f32: parameterCount(config) * ELEMENT_BYTES,
    context: tokens,
    flops_per_token_paper: flopsPerToken(config, { tokens }).paper,
    flops_per_token_full: flopsPerToken(config, { tokens }).full,
    kv_bytes_per_token: kvBytesPerToken(config),
  };
  if (json) {
    const table = tensors.map(({ name, shape }) => ({ name, shape }));
    terminal.out(JSON.stringify({ ...report, config: modelConfigToJson(config), tensors: table }) + "\n");
    return;
  }
  const rows = [
    ["parameters", `${report.parameters.toLocaleString("en")} (${formatBytes(report.bytes_f32)} as f32)`],
    ["without embeddings", report.parameters_without_embeddings.toLocaleString("en")],
    ["if unrolled", `${report.parameters_unrolled.toLocaleString("en")}, ${config.numHiddenLayers} layers`],
    ["FLOPs per token", `${millions(report.flops_per_token_paper)} (paper's formula, context ${tokens})`],
    ["", `${millions(report.flops_per_token_full)} (with head, routers and grouped heads)`],
    ...cacheRows(config, report.kv_bytes_per_token),
    ...ropeRows(config),
    ...tensors.map(({ name, shape }, i) => [i === 0 ? "tensors" : "", `${name} (${shape.join(", ")})`]),
  ];
  terminal.out(rows.map(([name, value]) => `${name!.padEnd(20)}${value}\n`).join(""));
}

/** Mean bytes of a token's f32 keys and values, at the capacities' mean depth. */
interface KvBytesPerToken {
  readonly recursion_wise: number;
  /** Null where the model cannot share keys and values. */
  readonly shared: number | null;
  /** As many layers without recursion. */
  readonly vanilla: number;
}

function kvBytesPerToken(config: ModelConfig): KvBytesPerToken {
  const bytes = (changes: Partial<ModelConfig>): number =>
    Math.round(cacheBytesPerToken({ ...config, ...changes }));
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
  if (!recursion) return [[name, `${bytes(vanilla)} (f32)`]];
  const sharing = shared === null ? "shared keys and values not possible" : `${bytes(shared)} shared`;
  return [
    [name, `${bytes(own)} recursion-wise, ${sharing} (f32, mean depth)`],
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
