import { Command, ValidationError } from "@cliffy/command";
import { PACKED_FORMATS } from "../gpu/packed_matrix.ts";
import { type CheckpointSource, openCheckpoint } from "../model/files/checkpoint_source.ts";
import { type ComparedWindow, compareText } from "../model/compare_text.ts";
import { type ComparisonReport, comparisonReport } from "../model/comparison_report.ts";
import {
  type QuantizationFormats,
  quantizationPlan,
  type QuantizationReport,
  quantizeCheckpoint,
} from "../model/files/quantize.ts";
import { tokenizerIfAny } from "./conversion.ts";
import { formatFlag } from "./dtype_flags.ts";
import { readHeldOut, SEQUENCE_LENGTH, windowLength } from "./held_out.ts";
import { openProgress } from "./progress.ts";
import { quantizeJson, quantizeText } from "./quantize_report.ts";
import { loadWeights, openNamedDevice, tokenizerOf } from "./session.ts";
import { openTerminal, type Terminal } from "./terminal.ts";

interface QuantizeFlags {
  readonly format: string;
  readonly embeddingFormat?: string | undefined;
  readonly out?: string | undefined;
  readonly dryRun?: boolean | undefined;
  readonly eval?: string[] | undefined;
  readonly textField: string;
  readonly sequenceLength?: number | undefined;
  readonly maxTokens?: number | undefined;
  readonly json?: boolean | undefined;
  readonly quiet?: boolean | undefined;
}

/** `mor quantize`: a checkpoint in fewer bits, and what that costs. */
// deno-lint-ignore no-explicit-any -- see root.ts
export function quantizeCommand(): Command<any> {
  return new Command()
    .description(
      "Write a checkpoint in fewer bits. Matrices of layers, embedding and head become f16, or blocks of 32 numbers " +
        "with a scale, rounded as llama.cpp does; norms, routers and matrices whose rows are not multiples of 32 stay f32.",
    )
    .arguments("<checkpoint:string>")
    .option("--format <name:string>", `${PACKED_FORMATS.join(", ")}.`, { required: true })
    .option(
      "--embedding-format <name:string>",
      "Of embedding and head, whose errors cost a small model most; as --format unless given.",
    )
    .option("--out <folder:file>", "Folder of the new checkpoint.")
    .option("--dry-run", "Report sizes and errors; write nothing.")
    .option(
      "--eval <path:file>",
      "Text to compare both on: perplexity, KL divergence, agreement of the likeliest token; repeatable.",
      { collect: true },
    )
    .option("--text-field <name:string>", "Field of a JSONL line that holds the text.", { default: "text" })
    .option(
      "--sequence-length <n:integer>",
      `With --eval, tokens of a window; as in training, or ${SEQUENCE_LENGTH} if the checkpoint does not tell.`,
    )
    .option("--max-tokens <n:integer>", "With --eval, predict at most the first n tokens of the text.")
    .option("--json", "Print one JSON object.")
    .example("Eight bits", "mor quantize my-model --format q8_0 --out my-model-q8")
    .example("What four bits would cost", "mor quantize my-model --format q4_0 --dry-run --eval held-out.txt")
    .action((flags: QuantizeFlags, checkpoint: string) => run(flags, checkpoint));
}

async function run(flags: QuantizeFlags, checkpoint: string): Promise<void> {
  const formats = checkFlags(flags);
  const terminal = openTerminal(flags);
  const source = await openCheckpoint(checkpoint);
  const out = flags.dryRun ? null : flags.out!;
  const text = flags.eval ? await readText(source, { flags, terminal }) : null;
  const weights = await quantize(source, { formats, out, terminal });
  let comparison: ComparisonReport | null = null;
  try {
    comparison = text && await compare(source, { formats, out, text, terminal });
  } finally {
    const result = { ...formats, out, weights, comparison };
    terminal.out(flags.json ? JSON.stringify(quantizeJson(result)) + "\n" : quantizeText(result));
  }
}

function checkFlags(
  { format, embeddingFormat, out, dryRun, eval: texts, sequenceLength, maxTokens }: QuantizeFlags,
): QuantizationFormats {
  const formats = {
    format: formatFlag(format, { flag: "--format", known: PACKED_FORMATS }),
    ...(embeddingFormat !== undefined && {
      embeddingFormat: formatFlag(embeddingFormat, { flag: "--embedding-format", known: PACKED_FORMATS }),
    }),
  };
  if (dryRun !== true && out === undefined) throw new ValidationError("Give --out or --dry-run");
  if (dryRun === true && out !== undefined) {
    throw new ValidationError("--dry-run writes nothing: leave --out away");
  }
  const counts = { "--sequence-length": sequenceLength, "--max-tokens": maxTokens };
  for (const [flag, value] of Object.entries(counts)) {
    if (value !== undefined && value < 1) throw new ValidationError(`${flag} is ${value}, wanted 1 or more`);
    if (value !== undefined && !texts) throw new ValidationError(`${flag} needs --eval`);
  }
  return formats;
}

async function quantize(
  source: CheckpointSource,
  { formats, out, terminal }: { formats: QuantizationFormats; out: string | null; terminal: Terminal },
): Promise<QuantizationReport[]> {
  const reports: QuantizationReport[] = [];
  const tokenizer = out === null ? null : await tokenizerIfAny(source, { terminal });
  const max = quantizationPlan(source.config, formats).length;
  const progress = terminal.isInteractive ? openProgress(terminal, { max, value: 0 }) : null;
  try {
    await quantizeCheckpoint(source, {
      ...formats,
      out,
      tokenizer,
      onWeight: (report) => {
        reports.push(report);
        progress?.update(reports.length, `tensors ${report.name}`);
      },
    });
  } finally {
    await progress?.stop();
  }
  return reports;
}

/** Tokens to compare on, and how many are in a window. */
interface ComparedText {
  readonly tokens: Uint32Array<ArrayBuffer>;
  readonly sequenceLength: number;
}

/** Read before anything is written: what is wrong with it shall not cost the work. */
async function readText(
  source: CheckpointSource,
  { flags, terminal }: { flags: QuantizeFlags; terminal: Terminal },
): Promise<ComparedText> {
  const text = await readHeldOut(flags.eval!, {
    tokenizer: await tokenizerOf(source),
    textField: flags.textField,
  });
  return {
    tokens: text.subarray(0, (flags.maxTokens ?? Infinity) + 1),
    sequenceLength: await windowLength(source, { flag: flags.sequenceLength, terminal }),
  };
}

/** Runs a text through the checkpoint and its quantized form, as written if it was. */
async function compare(
  source: CheckpointSource,
  { formats, out, text: { tokens, sequenceLength }, terminal }: {
    formats: QuantizationFormats;
    out: string | null;
    text: ComparedText;
    terminal: Terminal;
  },
): Promise<ComparisonReport> {
  const { config } = source;
  using device = await openNamedDevice(terminal);
  const reference = { config, weights: await loadWeights(device, { source, choice: "auto", terminal }) };
  const written = out === null ? source : await openCheckpoint(out);
  const choices = out === null
    ? { choice: formats.format, embeddingChoice: formats.embeddingFormat }
    : { choice: "auto" as const };
  const model = { config, weights: await loadWeights(device, { source: written, ...choices, terminal }) };
  const progress = openProgress(terminal, { max: tokens.length - 1, value: 0 });
  const windows: ComparedWindow[] = [];
  let done = 0;
  try {
    const shape = { batchSize: 1, sequenceLength };
    for await (const window of compareText(device, { reference, model, tokens, shape })) {
      windows.push(window);
      progress.update(done += window.tokens, "tokens compared");
    }
  } finally {
    await progress.stop();
  }
  return comparisonReport(windows);
}
