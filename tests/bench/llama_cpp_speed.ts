/** Tokens per second beside llama.cpp's: the same files, in one run, in turn. */
import { basename, join } from "@std/path";
import { table } from "../../cli/table.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import type { GgufFormat } from "./llama_cpp_convert.ts";
import { OwnModel, timePrompt, timeTogether, timeTokens } from "./llama_cpp_own.ts";
import { convertModel, type LlamaProcess, startLlama } from "./llama_cpp_process.ts";
import type { LlamaInfo } from "./llama_cpp_worker.ts";
import { median, note, print } from "./report.ts";

export interface SpeedOptions {
  readonly model: string;
  /** A folder with node-llama-cpp. */
  readonly folder: string;
  readonly hasVulkan: boolean;
  /** Tokens of the prompt, and generated after a prompt of one. */
  readonly prompt: number;
  readonly tokens: number;
  /** Texts at once. */
  readonly sequences: number;
  readonly repeats: number;
  readonly formats: readonly GgufFormat[];
  readonly isJson: boolean;
}

/** Formats that are compared. */
export const FORMATS: readonly GgufFormat[] = ["f32", "f16", "q8_0", "q4_0"];

/** A running llama.cpp with its name in the table. */
interface Program {
  readonly name: string;
  readonly process: LlamaProcess;
}

/** Tokens per second of one program, repeat by repeat. */
interface Speeds {
  readonly program: string;
  readonly decode: readonly number[];
  readonly prefill: readonly number[];
  /** Of all texts at once. */
  readonly together: readonly number[];
}

interface FormatSpeeds {
  readonly format: GgufFormat;
  readonly bytes: number;
  /** Ours, then llama.cpp's. */
  readonly speeds: readonly Speeds[];
}

/** Prints a table of speeds by format. */
export async function compareSpeed(device: GpuDevice, options: SpeedOptions): Promise<void> {
  const { model, folder, hasVulkan } = options;
  const files = await Deno.makeTempDir({ prefix: "mor-llama-cpp-" });
  try {
    await using vulkan = hasVulkan ? await startLlama({ folder, backend: "vulkan" }) : null;
    await using cpu = await startLlama({ folder, backend: "cpu" });
    const programs = [
      ...(vulkan ? [{ name: "Vulkan", process: vulkan }] : []),
      { name: "CPU", process: cpu },
    ];
    const rows: FormatSpeeds[] = [];
    for (const format of options.formats) {
      const file = join(files, `${format}.gguf`);
      await convertModel(model, { to: file, format, folder });
      const speeds = await measureFile(device, { file, format, programs, options });
      rows.push({ format, bytes: (await Deno.stat(file)).size, speeds });
      await Deno.remove(file);
    }
    report(rows, { device, options, llama: await (vulkan ?? cpu).ask("describe") });
  } finally {
    await Deno.remove(files, { recursive: true });
  }
}

async function measureFile(device: GpuDevice, { file, format, programs, options }: {
  file: string;
  format: GgufFormat;
  programs: readonly Program[];
  options: SpeedOptions;
}): Promise<Speeds[]> {
  const { prompt, tokens, sequences, repeats } = options;
  const longest = Math.max(prompt, tokens + 1);
  using model = await OwnModel.open(device, file);
  using decoder = model.decoder(longest);
  using batch = await model.batch({ sequences, capacity: longest });
  const own = {
    name: "ours",
    timePrompt: () => timePrompt(decoder, { count: prompt }),
    timeTokens: () => timeTokens(decoder, { device, count: tokens }),
    timeTogether: () => timeTogether(batch, { count: tokens, sequences }),
  };
  const theirs = programs.map(({ name, process }) => ({
    name,
    timePrompt: () => process.ask("timePrompt", { count: prompt }),
    timeTokens: () => process.ask("timeTokens", { count: tokens }),
    timeTogether: () => process.ask("timeTogether", { count: tokens, sequences }),
  }));
  for (const { process } of programs) {
    await process.ask("open", { model: file, tokens: longest, sequences, isExact: false });
  }
  const rows = [own, ...theirs].map((timer) => ({
    ...timer,
    decode: [] as number[],
    prefill: [] as number[],
    together: [] as number[],
  }));
  // The first round compiles the kernels.
  for (let repeat = -1; repeat < repeats; repeat++) {
    for (const { name, timePrompt, timeTokens, timeTogether, decode, prefill, together } of rows) {
      note(`${format}, ${name}: ${repeat < 0 ? "warming up" : `repeat ${repeat + 1} of ${repeats}`}`);
      const prefillSpeed = prompt * 1000 / await timePrompt();
      const decodeSpeed = tokens * 1000 / await timeTokens();
      const togetherSpeed = sequences * tokens * 1000 / await timeTogether();
      if (repeat < 0) continue;
      prefill.push(prefillSpeed);
      decode.push(decodeSpeed);
      together.push(togetherSpeed);
    }
  }
  return rows.map(({ name: program, decode, prefill, together }) => ({ program, decode, prefill, together }));
}

function report(
  rows: readonly FormatSpeeds[],
  { device, options, llama }: { device: GpuDevice; options: SpeedOptions; llama: LlamaInfo },
): void {
  const { model, prompt, tokens, sequences, repeats, isJson } = options;
  const { description: adapter } = device.info;
  const { version, adapters, threads } = llama;
  if (isJson) {
    const facts = { model: basename(model), adapter, node_llama_cpp: version, adapters, threads };
    print(JSON.stringify({ ...facts, prompt, tokens, sequences, rows }));
    return;
  }
  print(`${basename(model)}; ours on ${adapter}`);
  const where = [`CPU with ${threads} threads`, ...adapters.map((name) => `Vulkan on ${name}`)];
  print(`node-llama-cpp ${version}: ${where.join(", ")}`);
  print(
    `tokens/s, medians of ${repeats} in turn: ${tokens} tokens one by one after a prompt of one (decode), ` +
      `a prompt of ${prompt} (prefill), ${sequences} texts at once (together, of all)\n`,
  );
  const names = rows[0]!.speeds.map(({ program }) => program);
  const kinds = ["decode", "prefill", "together"] as const;
  print(table([
    [
      "format",
      "MB",
      ...names.flatMap((name) => kinds.map((kind) => `${name} ${kind}`)),
    ],
    ...rows.map(({ format, bytes, speeds }) => [
      format,
      (bytes / 1e6).toFixed(0),
      ...speeds.flatMap((program) => kinds.map((kind) => figure(median(program[kind])))),
    ]),
  ]));
  const [own, ...peers] = names;
  print(table([
    [`${own} / theirs`, ...peers.flatMap((name) => kinds.map((kind) => `${name} ${kind}`))],
    ...rows.map(({ format, speeds: [ours, ...theirs] }) => [
      format,
      ...theirs.flatMap((program) =>
        kinds.map((kind) => `${figure(median(ours![kind]) / median(program[kind]))} x`)
      ),
    ]),
  ]));
  const spreads = rows.flatMap(({ speeds }) =>
    speeds.flatMap((program) => kinds.map((kind) => spread(program[kind])))
  );
  const widest = (Math.max(...spreads) * 100).toFixed(0);
  print(`slowest and fastest repeat of one figure: up to ${widest} % of it apart`);
}

/** From the slowest to the fastest, as a part of the median. */
function spread(values: readonly number[]): number {
  return (Math.max(...values) - Math.min(...values)) / median(values);
}

/** Three digits that mean something. */
function figure(value: number): string {
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3);
}
