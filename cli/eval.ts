import { Command, ValidationError } from "@cliffy/command";
import type { GpuDevice } from "../gpu/device.ts";
import {
  type EvaluatedBatch,
  evaluateText,
  routingsDiffer,
  type TextEvaluation,
} from "../model/evaluate_text.ts";
import { bytesPerToken, evaluationReport, lossGap } from "../model/evaluation_report.ts";
import { openCheckpoint } from "../model/files/checkpoint_source.ts";
import { loadOf } from "../model/router_health.ts";
import type { Routing } from "../model/selection.ts";
import { DTYPE_HELP, matrixChoice } from "./dtype_flags.ts";
import { evalJson, evalTable, type RoutingResult } from "./eval_report.ts";
import { readHeldOut, SEQUENCE_LENGTH, windowLength } from "./held_out.ts";
import { openProgress, type Progress } from "./progress.ts";
import { loadWeights, openNamedDevice, tokenizerOf } from "./session.ts";
import { openTerminal, type Terminal } from "./terminal.ts";

interface EvalFlags {
  readonly data: string[];
  readonly textField: string;
  readonly routing: string;
  readonly sequenceLength?: number | undefined;
  readonly batchSize: number;
  readonly maxTokens?: number | undefined;
  readonly dtype?: string | undefined;
  readonly json?: boolean | undefined;
  readonly quiet?: boolean | undefined;
}

const ROUTINGS: Readonly<Record<string, readonly Routing[]>> = {
  "causal": ["causal"],
  "top-k": ["top-k"],
  "both": ["causal", "top-k"],
};

/** `mor eval`: what a model is worth on a text. */
// deno-lint-ignore no-explicit-any -- see root.ts
export function evalCommand(): Command<any> {
  return new Command()
    .description(
      "Measure a model on text: loss with its standard error, perplexity, bits per byte, recursion depths. " +
        "Routed causally, as in generation, and by top-k, as in training and in the paper's figures.",
    )
    .arguments("<checkpoint:string>")
    .option("--data <path:file>", "Text or JSONL file, or a folder of them; repeatable.", {
      collect: true,
      required: true,
    })
    .option("--text-field <name:string>", "Field of a JSONL line that holds the text.", { default: "text" })
    .option("--routing <how:string>", "causal, top-k or both.", { default: "both" })
    .option(
      "--sequence-length <n:integer>",
      `Tokens of a window; as in training, or ${SEQUENCE_LENGTH} if the checkpoint does not tell.`,
    )
    .option("--batch-size <n:integer>", "Windows run at once.", { default: 8 })
    .option("--max-tokens <n:integer>", "Predict at most the first n tokens of the text.")
    .option("--dtype <format:string>", DTYPE_HELP)
    .option("--json", "Print one JSON object.")
    .example("Both routings side by side", "mor eval my-model --data held-out.txt")
    .action((flags: EvalFlags, checkpoint: string) => run(flags, checkpoint));
}

async function run(flags: EvalFlags, checkpoint: string): Promise<void> {
  checkFlags(flags);
  const choice = matrixChoice(flags.dtype);
  const terminal = openTerminal(flags);
  const source = await openCheckpoint(checkpoint);
  const { config } = source;
  // All that can be wrong with the flags and the text shows before anything that takes time.
  const tokenizer = await tokenizerOf(source);
  const text = await readHeldOut(flags.data, { tokenizer, textField: flags.textField });
  const sequenceLength = await windowLength(source, { flag: flags.sequenceLength, terminal });
  using device = await openNamedDevice(terminal);
  const weights = await loadWeights(device, { source, choice, terminal });
  const tokens = text.subarray(0, (flags.maxTokens ?? Infinity) + 1);
  const shape = { batchSize: flags.batchSize, sequenceLength };
  const routings = await evaluateRoutings(device, {
    evaluation: { model: { config, weights }, tokens, shape },
    wanted: ROUTINGS[flags.routing]!,
    terminal,
  });
  const [causal, topK] = [routings.get("causal"), routings.get("top-k")];
  const differ = routingsDiffer(config);
  const result = {
    routings,
    routingsDiffer: differ,
    gap: differ && causal && topK ? lossGap(topK.report, { than: causal.report }) : null,
    sequenceLength,
    bytesPerToken: bytesPerToken(text, { tokenizer }),
  };
  terminal.out(flags.json ? JSON.stringify(evalJson(result)) + "\n" : evalTable(result));
}

function checkFlags({ routing, sequenceLength, batchSize, maxTokens }: EvalFlags): void {
  if (!Object.hasOwn(ROUTINGS, routing)) {
    throw new ValidationError(`--routing is "${routing}", wanted ${Object.keys(ROUTINGS).join(", ")}`);
  }
  const counts = {
    "--sequence-length": sequenceLength,
    "--batch-size": batchSize,
    "--max-tokens": maxTokens,
  };
  for (const [flag, value] of Object.entries(counts)) {
    if (value !== undefined && value < 1) throw new ValidationError(`${flag} is ${value}, wanted 1 or more`);
  }
}

/** Runs each routing that is wanted; one run serves both where they are one rule. */
async function evaluateRoutings(
  device: GpuDevice,
  { evaluation, wanted, terminal }: {
    evaluation: Omit<TextEvaluation, "routing">;
    wanted: readonly Routing[];
    terminal: Terminal;
  },
): Promise<Map<Routing, RoutingResult>> {
  const { model: { config }, tokens } = evaluation;
  const runs = routingsDiffer(config) ? wanted : wanted.slice(0, 1);
  const progress = openProgress(terminal, { max: (tokens.length - 1) * runs.length, value: 0 });
  const results: RoutingResult[] = [];
  try {
    for (const routing of runs) {
      const before = (tokens.length - 1) * results.length;
      results.push(
        await evaluateRouting(device, { evaluation: { ...evaluation, routing }, progress, before }),
      );
    }
  } finally {
    await progress.stop();
  }
  return new Map(wanted.map((routing, i) => [routing, results[i] ?? results[0]!]));
}

async function evaluateRouting(
  device: GpuDevice,
  { evaluation, progress, before }: { evaluation: TextEvaluation; progress: Progress; before: number },
): Promise<RoutingResult> {
  const { model: { config }, routing } = evaluation;
  const started = performance.now();
  const batches: EvaluatedBatch[] = [];
  let done = 0;
  const speed = (): number => done / ((performance.now() - started) / 1000);
  for await (const batch of evaluateText(device, evaluation)) {
    batches.push(batch);
    for (const { tokens } of batch.windows) done += tokens;
    progress.update(before + done, `${routing}  ${Math.round(speed())} tokens/s`);
  }
  const report = evaluationReport(batches);
  const isTokenChoice = config.router?.kind === "token_choice";
  return {
    report,
    balance: isTokenChoice ? loadOf(report.depths!.fractions.slice(1)) : null,
    tokensPerSecond: speed(),
  };
}
