/** Loss of the schemes after the same training, by causal and by top-k routing: `deno task bench routers`. */
import { join } from "@std/path";
import type { GpuDevice } from "../../gpu/device.ts";
import { BufferScope } from "../../gpu/memory.ts";
import { hasWeights, loadWeights, readTrainingState } from "../../model/files/checkpoint.ts";
import type { ModelConfig } from "../../model/config.ts";
import { type Dataset, readTokens, splitTokens } from "../../model/text/dataset.ts";
import { evaluateText, routingsDiffer } from "../../model/evaluate_text.ts";
import {
  type Estimate,
  type EvaluationReport,
  evaluationReport,
  lossGap,
} from "../../model/evaluation_report.ts";
import { ParameterLayout } from "../../model/parameter_layout.ts";
import { parameterCount } from "../../model/parameters.ts";
import { presetConfig } from "../../model/presets.ts";
import { byteTokenizer } from "../../model/text/tokenizer.ts";
import { train, type TrainOptions } from "../../model/train.ts";
import { cadenceOf, mergeFlags, settingsOf } from "../../cli/train_flags.ts";
import { print } from "./report.ts";

/** Where the demo's book lies, and where the trained models go: a second run takes them from there. */
const BOOK = ".mor/moby_dick.txt";
const FOLDER = ".mor/routers";

/** The demo's training, as it stands in cli/demo.ts: 800 steps of 4 sequences of 128 bytes. */
const STEPS = 800;
const SEQUENCE_LENGTH = 128;

/** The demo's shape with each kind of routing; five layers deep each. */
const MODELS: Readonly<Record<string, string>> = {
  "vanilla": "demo-vanilla",
  "recursive baseline": "demo-rec3",
  "MoR-3, expert choice": "demo-mor3",
  "MoR-3, token choice": "demo-tok3",
};

async function trainOnce(
  device: GpuDevice,
  { preset, config, dataset }: { preset: string; config: ModelConfig; dataset: Dataset },
): Promise<string> {
  const folder = join(FOLDER, preset);
  if (await hasWeights(folder) && (await readTrainingState(folder)).step === STEPS) return folder;
  const flags = mergeFlags({
    steps: STEPS,
    batch_size: 4,
    sequence_length: SEQUENCE_LENGTH,
    learning_rate: 1.5e-3,
    eval_every: 0,
    save_every: STEPS,
  });
  const options: TrainOptions = {
    config,
    settings: settingsOf(flags),
    cadence: cadenceOf(flags),
    dataset,
    folder,
    resume: false,
    init: null,
    recompute: false,
    tokenizer: "byte",
    flags: JSON.stringify(flags),
    signal: new AbortController().signal,
  };
  for await (const report of train(device, options)) {
    if (report.kind !== "step" || report.step % 200 !== 0) continue;
    print(`  training ${preset}: step ${report.step}, loss ${report.losses.ce.toFixed(3)}`);
  }
  return folder;
}

async function lossBy(
  device: GpuDevice,
  { folder, config, dataset, routing }: {
    folder: string;
    config: ModelConfig;
    dataset: Dataset;
    routing: "causal" | "top-k";
  },
): Promise<EvaluationReport> {
  const scope = new BufferScope(device);
  const layout = new ParameterLayout(config);
  const weights = layout.allocate(scope, "weights");
  await loadWeights(device, { folder, layout, weights });
  const tokens = Uint32Array.from(dataset.validation);
  const shape = { batchSize: 8, sequenceLength: SEQUENCE_LENGTH };
  const batches = evaluateText(device, { model: { config, weights }, tokens, routing, shape });
  const report = evaluationReport(await Array.fromAsync(batches));
  scope.destroy();
  return report;
}

function percent(fraction: number): string {
  return `${(100 * fraction).toFixed(0)} %`;
}

/** One row of the table. */
function rowOf(
  { name, config, causal, topK }: {
    name: string;
    config: ModelConfig;
    causal: EvaluationReport;
    topK: EvaluationReport;
  },
): string {
  const shown = ({ mean, standardError }: Estimate): string =>
    `${mean.toFixed(4)} ± ${(standardError ?? 0).toFixed(4)}`;
  const depths = causal.depths?.fractions.slice(1).map(percent).join(" / ");
  const cells = [
    name,
    parameterCount(config).toLocaleString("en"),
    shown(causal.loss),
    routingsDiffer(config) ? shown(topK.loss) : "the same rule",
    routingsDiffer(config) ? shown(lossGap(topK, { than: causal })) : "",
    (causal.loss.mean / Math.LN2).toFixed(3),
    topK.agreement ? `${(100 * topK.agreement.overall).toFixed(1)} %` : "",
    depths ?? "",
  ];
  return `| ${cells.join(" | ")} |`;
}

/** Trains each model on the demo's book and prints the table of README.md. */
export async function compareRouters(device: GpuDevice): Promise<void> {
  const tokens = await readTokens([BOOK], { tokenizer: byteTokenizer, textField: "text" });
  const dataset = await splitTokens(tokens, {
    validationFraction: 0.05,
    sequenceLength: SEQUENCE_LENGTH,
    vocabSize: byteTokenizer.vocabSize,
  });
  const rows: string[] = [];
  for (const [name, preset] of Object.entries(MODELS)) {
    const config = presetConfig(preset);
    const folder = await trainOnce(device, { preset, config, dataset });
    const measured = { folder, config, dataset };
    const causal = await lossBy(device, { ...measured, routing: "causal" });
    const topK = routingsDiffer(config) ? await lossBy(device, { ...measured, routing: "top-k" }) : causal;
    rows.push(rowOf({ name, config, causal, topK }));
  }
  const { training, validation } = dataset;
  print(
    `\n${STEPS} steps of 4 x ${SEQUENCE_LENGTH} bytes of ${training.length}, ` +
      `loss in nats per byte on the ${validation.length} held out:\n`,
  );
  print("| model | parameters | causal | top-k | gap | bits/byte, causal | agreement | depth 1 / 2 / 3 |");
  print("| --- | --- | --- | --- | --- | --- | --- | --- |");
  for (const row of rows) print(row);
}
