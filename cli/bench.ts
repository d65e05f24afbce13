import { Command, ValidationError } from "@cliffy/command";
import type { GpuDevice } from "../gpu/device.ts";
import {
  compareThroughput,
  comparisonSteps,
  type ThroughputSystem,
} from "../model/batching/throughput_comparison.ts";
import { longestText } from "../model/batching/throughput.ts";
import { ConfigError, type ModelConfig } from "../model/config.ts";
import { openCheckpoint } from "../model/files/checkpoint_source.ts";
import type { MatrixChoice } from "../model/load_weights.ts";
import type { ModelWeights } from "../model/model_weights.ts";
import { ParameterLayout } from "../model/parameter_layout.ts";
import { initializeWeights } from "../model/weights.ts";
import { compareCommand } from "./bench_compare.ts";
import { DTYPE_HELP, KV_DTYPE_HELP, kvDtypeFlag, matrixChoice } from "./dtype_flags.ts";
import { BATCH_SIZE } from "./generate_prompts.ts";
import { openProgress } from "./progress.ts";
import { configOf, loadWeights, openNamedDevice } from "./session.ts";
import { openTerminal, type Terminal } from "./terminal.ts";
import { throughputJson, throughputText } from "./throughput_report.ts";
import { hasRandomWeights } from "./work_flags.ts";

/** Vanilla and recursive models of 14 unrolled layers, and MoR with three and four recursions. */
const MODELS = ["small-vanilla", "small-rec3", "small-mor3", "small-mor4"];

const MEBIBYTE = 2 ** 20;

interface ThroughputFlags {
  readonly batchSize: number;
  readonly meanLength: number;
  readonly kvMemory?: number | undefined;
  readonly windows: number;
  readonly seconds: number;
  readonly randomRouting?: boolean | undefined;
  readonly dtype?: string | undefined;
  readonly kvDtype: string;
  readonly seed: number;
  readonly json?: boolean | undefined;
  readonly quiet?: boolean | undefined;
}

/** `mor bench`: comparisons of speed. */
// deno-lint-ignore no-explicit-any -- see root.ts
export function benchCommand(): Command<any> {
  const command = new Command()
    .description("Compare speeds, side by side in one run.")
    .example("What many texts at once bring", "mor bench throughput")
    .example(
      "What a format brings",
      'mor bench compare my-model --base "--dtype f32" --change "--dtype q8_0"',
    )
    .action(() => command.showHelp());
  return command
    .command("throughput", throughputCommand())
    .command("compare", compareCommand())
    .reset();
}

// deno-lint-ignore no-explicit-any -- see root.ts
function throughputCommand(): Command<any> {
  return new Command()
    .description(
      "Tokens a second of many texts at a time, with the same memory for keys and values: models against the first of " +
        "them, each routed one also without depth-wise batching. Texts of random lengths come and go without end; " +
        "everything that happens in a window of time counts. Presets get random weights, and depths by chance with " +
        "the paper's capacities.",
    )
    .arguments("[models...:string]")
    .option("--batch-size <n:integer>", "Tokens that run the block together.", { default: BATCH_SIZE })
    .option("--mean-length <n:integer>", "Mean tokens of a text.", { default: 256 })
    .option(
      "--kv-memory <mib:integer>",
      "MiB for keys and values of each model; for two texts of the first for each row unless given.",
    )
    .option("--windows <n:integer>", "Times to measure each; the median is shown.", { default: 5 })
    .option("--seconds <n:number>", "Seconds of a window, at least.", { default: 5 })
    .option("--random-routing", "Give checkpoints depths by chance too.")
    .option("--dtype <format:string>", `Checkpoints only. ${DTYPE_HELP}`)
    .option("--kv-dtype <format:string>", KV_DTYPE_HELP, { default: "f32" })
    .option("--seed <n:integer>", "Seed of texts and of presets' weights.", { default: 1 })
    .option("--json", "Print one JSON object.")
    .example("Models of 14 unrolled layers", "mor bench throughput")
    .example("A model of one's own", "mor bench throughput 135m-vanilla my-mor3 --seconds 20")
    .action((flags: ThroughputFlags, ...models: string[]) => run(flags, models.length > 0 ? models : MODELS));
}

async function run(flags: ThroughputFlags, models: readonly string[]): Promise<void> {
  for (
    const [name, value] of Object.entries({
      "--batch-size": flags.batchSize,
      "--windows": flags.windows,
      "--kv-memory": flags.kvMemory ?? 1,
    })
  ) {
    if (!(value >= 1)) throw new ValidationError(`${name} is ${value}, wanted 1 or more`);
  }
  if (!(flags.seconds > 0)) throw new ValidationError(`--seconds is ${flags.seconds}, wanted above 0`);
  if (!(flags.meanLength >= 2)) {
    throw new ValidationError(`--mean-length is ${flags.meanLength}, wanted 2 or more`);
  }
  const [choice, kvDtype] = [matrixChoice(flags.dtype), kvDtypeFlag(flags.kvDtype)];
  const preset = models.find(hasRandomWeights);
  if (preset !== undefined && flags.dtype !== undefined) {
    throw new ValidationError(`--dtype does not go with presets such as ${preset}, which have f32 weights`);
  }
  const terminal = openTerminal(flags);
  using device = await openNamedDevice(terminal);
  const systems: ThroughputSystem[] = [];
  for (const model of models) systems.push(...await systemsOf(device, model, { flags, choice, terminal }));
  const { batchSize: rows, meanLength, windows, seconds, seed } = flags;
  const kvBytes = flags.kvMemory === undefined ? null : flags.kvMemory * MEBIBYTE;
  const progress = openProgress(terminal, { max: comparisonSteps(systems, { windows }), value: 0 });
  const options = { rows, meanLength, kvDtype, kvBytes, windows, seconds, seed };
  try {
    const onProgress = (done: number, what: string): void => progress.update(done, what);
    const comparison = await compareThroughput(device, systems, { ...options, onProgress });
    await progress.stop();
    const report = { adapter: device.info, comparison, ...options };
    terminal.out(flags.json ? JSON.stringify(throughputJson(report)) + "\n" : throughputText(report));
  } finally {
    await progress.stop();
  }
}

/** How models are opened. */
interface ModelOptions {
  readonly flags: ThroughputFlags;
  readonly choice: MatrixChoice;
  readonly terminal: Terminal;
}

/** A model, and if it has a router also without depth-wise batching. */
async function systemsOf(
  device: GpuDevice,
  model: string,
  options: ModelOptions,
): Promise<ThroughputSystem[]> {
  const { seed, meanLength } = options.flags;
  const { config, weights } = hasRandomWeights(model)
    ? randomModel(device, { config: withRandomRouting(await configOf(model)), seed })
    : await checkpointModel(device, model, options);
  const longest = longestText(meanLength);
  if (longest > config.maxPositionEmbeddings) {
    throw new ConfigError(
      `Cannot run ${model} on texts of up to ${longest} tokens: it has ${config.maxPositionEmbeddings} positions ` +
        "(max_position_embeddings); lower --mean-length",
    );
  }
  const system = { name: model, config, weights, isDepthWise: true };
  return config.router ? [system, { ...system, name: `${model}, in step`, isDepthWise: false }] : [system];
}

function withRandomRouting(config: ModelConfig): ModelConfig {
  return config.router ? { ...config, router: { ...config.router, random: true } } : config;
}

function randomModel(
  device: GpuDevice,
  { config, seed }: { config: ModelConfig; seed: number },
): { config: ModelConfig; weights: ModelWeights } {
  const layout = new ParameterLayout(config);
  const weights = layout.allocate(device, "weights");
  initializeWeights(device, { layout, weights, seed });
  return { config, weights };
}

async function checkpointModel(
  device: GpuDevice,
  path: string,
  { flags: { randomRouting }, choice, terminal }: ModelOptions,
): Promise<{ config: ModelConfig; weights: ModelWeights }> {
  const source = await openCheckpoint(path);
  const weights = await loadWeights(device, { source, choice, terminal });
  return { config: randomRouting ? withRandomRouting(source.config) : source.config, weights };
}
