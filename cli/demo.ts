import { Command } from "@cliffy/command";
import { join } from "@std/path";
import { plot } from "asciichart";
import { frequencyBaseline } from "../model/text/byte_frequency.ts";
import { hasWeights } from "../model/files/checkpoint.ts";
import { ConfigError, type ModelConfig } from "../model/config.ts";
import { type Dataset, readTokens, splitTokens } from "../model/text/dataset.ts";
import { generate } from "../model/generate.ts";
import { parameterCount, unrolledParameterCount } from "../model/parameters.ts";
import { presetConfig } from "../model/presets.ts";
import type { StepReport } from "../model/train.ts";
import { byteTokenizer } from "../model/text/tokenizer.ts";
import { loadModel, openNamedDevice } from "./session.ts";
import { openTerminal, type Terminal } from "./terminal.ts";
import { cadenceOf, flagsOf, mergeFlags, settingsOf } from "./train_flags.ts";
import { runTraining, TRAINING } from "./train_run.ts";
import { WorkLock } from "./work_lock.ts";
import { DEMO_FOLDER } from "./written_paths.ts";

interface DemoOptions {
  readonly data: string;
  readonly out: string;
  readonly steps: number;
  readonly quiet?: boolean | undefined;
}

const PRESET = "demo";

const PROMPTS = ["Call me ", "The whale ", "It was "];

/** Tokens of a training sequence; a passage stays within it, since the model knows no further positions. */
const SEQUENCE_LENGTH = 128;
const PASSAGE_TOKENS = 116;

/** `mor demo`: train, look at the loss, let it write. */
// deno-lint-ignore no-explicit-any -- see root.ts
export function demoCommand(): Command<any> {
  return new Command()
    .description(
      "Train a small Mixture-of-Recursions model on a text and let it write: about two minutes on two cores.",
    )
    .option("--data <file:file>", "The text; `deno task demo` brings Moby Dick.", { required: true })
    .option("--out <folder:file>", "Folder of the checkpoint; a demo in the default one is replaced.", {
      default: DEMO_FOLDER,
    })
    .option("--steps <n:integer>", "Optimizer steps.", { default: 800 })
    .example("On a text of your own", "mor demo --data book.txt --out my-demo")
    .action((options: DemoOptions) => demo(options));
}

async function demo({ data, out, steps, quiet }: DemoOptions): Promise<void> {
  const terminal = openTerminal({ quiet });
  using lock = new WorkLock(out, { words: TRAINING, terminal });
  await lock.takeFolder();
  if (out === DEMO_FOLDER) {
    // The folder itself stays: it is locked.
    for await (const { name } of Deno.readDir(out)) await Deno.remove(join(out, name), { recursive: true });
  }
  if (await hasWeights(out)) {
    throw new ConfigError(`Cannot run the demo in ${out}: it holds a checkpoint; give another --out`);
  }
  const config = presetConfig(PRESET);
  const flags = mergeFlags(flagsOf({ steps }), {
    model: PRESET,
    data: [data],
    out,
    batch_size: 4,
    sequence_length: SEQUENCE_LENGTH,
    learning_rate: 1.5e-3,
    eval_every: Math.max(1, Math.floor(steps / 4)),
    save_every: steps,
  });
  const tokens = await readTokens([data], { tokenizer: byteTokenizer, textField: flags.text_field });
  const dataset = await splitTokens(tokens, {
    validationFraction: flags.validation_fraction,
    sequenceLength: flags.sequence_length,
    vocabSize: config.vocabSize,
  });
  terminal.out(introduction(config, dataset));
  const reports = await runTraining({
    config,
    settings: settingsOf(flags),
    cadence: cadenceOf(flags),
    dataset,
    tokenizer: byteTokenizer,
    tokenizerSource: "byte",
    flags,
    folder: out,
  }, { terminal, resume: false, open: () => openNamedDevice(terminal) });
  terminal.out(lossCurve(reports, terminal) + results(reports, { config, dataset }));
  await passages(out, terminal);
  terminal.out(
    `\nThe checkpoint is in ${out}. Go on with\n  mor generate ${out} -p "Call me" --depths\n` +
      `  mor inspect ${out}\n`,
  );
}

function introduction(config: ModelConfig, { training, validation }: Dataset): string {
  const { numRecursions } = config.recursion!;
  const unique = parameterCount(config);
  const unrolled = unrolledParameterCount(config);
  return `Mixture-of-Recursions: one shared block, applied up to ${numRecursions} times; a router decides for each ` +
    `token how often.\n` +
    `parameters       ${
      unique.toLocaleString("en")
    }; unrolled as a vanilla model of ${config.numHiddenLayers} layers ` +
    `${unrolled.toLocaleString("en")} (${(unrolled / unique).toFixed(2)} times as many)\n` +
    `text             ${training.length.toLocaleString("en")} bytes to learn from, ` +
    `${validation.length.toLocaleString("en")} held out\n`;
}

/** The training loss, averaged to the width of the terminal. */
function lossCurve(reports: readonly StepReport[], { columns }: Terminal): string {
  const width = Math.min(Math.max(10, columns - 12), 70, reports.length);
  const bits = Array.from({ length: width }, (_, i) => {
    const start = Math.floor((i * reports.length) / width);
    const part = reports.slice(start, Math.floor(((i + 1) * reports.length) / width));
    return part.reduce((sum, { losses }) => sum + losses.ce, 0) / part.length / Math.LN2;
  });
  return `\nLoss in bits per byte over ${reports.length} steps\n${plot(bits, { height: 10 })}\n\n`;
}

function results(
  reports: readonly StepReport[],
  { config, dataset }: { config: ModelConfig; dataset: Dataset },
): string {
  const { evaluation } = reports.at(-1)!;
  const bits = evaluation!.loss / Math.LN2;
  const baseline = frequencyBaseline(dataset, { vocabSize: config.vocabSize });
  const gain = (100 * (1 - bits / baseline)).toFixed(0);
  const fractions = evaluation!.depthFractions!.slice(1);
  const depths = fractions.map((fraction, i) => `${i + 1}: ${(100 * fraction).toFixed(0)} %`).join("   ");
  return `held-out text    ${bits.toFixed(3)} bits per byte; byte frequencies alone ${baseline.toFixed(3)} ` +
    `(${gain} % below)\n` +
    `depth of tokens  ${depths}   (recursions run, routed causally)\n`;
}

/** Three continuations; each token in the colour of the recursions that produced it. */
async function passages(folder: string, terminal: Terminal): Promise<void> {
  const { device, config, weights } = await loadModel(folder, { terminal: { ...terminal, note: () => {} } });
  terminal.out(`\nIt writes (${terminal.hasColor ? "" : "on a terminal, in the colours of the depths: "}`);
  for (const depth of [1, 2, 3]) terminal.out(`${depth === 1 ? "" : ", "}depth ${depth}`, depth);
  terminal.out("):\n");
  for (const [seed, prompt] of PROMPTS.entries()) {
    const decoder = byteTokenizer.decoder();
    const depths: number[] = [];
    terminal.out(`\n${prompt}`);
    const sampling = { temperature: 0.5, topK: 40, topP: 0.95, minP: 0, repeatPenalty: 1 };
    const options = { prompt: byteTokenizer.encode(prompt), count: PASSAGE_TOKENS, sampling, seed };
    for await (
      const { id, depth } of generate(device, { config, weights }, {
        ...options,
        logProbabilities: 0,
        endTokens: byteTokenizer.endTokens,
      })
    ) {
      const text = decoder.push(id);
      depths.push(depth);
      terminal.out(text, depth);
    }
    const mean = depths.reduce((sum, depth) => sum + depth, 0) / depths.length;
    terminal.out(`${decoder.flush()}\n  (mean depth ${mean.toFixed(2)})\n`);
  }
  device.close();
}
