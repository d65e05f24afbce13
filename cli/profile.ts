import { Command, ValidationError } from "@cliffy/command";
import { dirname } from "@std/path";
import { measureCeilings } from "../gpu/ceilings.ts";
import { readbackMode } from "../gpu/readback.ts";
import { makeFolder, writeText } from "../model/files/whole_file.ts";
import { profileInference, type ProfileOptions, profileTraining } from "../model/profile.ts";
import { allocateTraining } from "../model/training.ts";
import { type ProfileReport, reportJson } from "./profile_report.ts";
import { reportCsv, reportMarkdown, reportText } from "./profile_tables.ts";
import { reportTrace } from "./profile_trace.ts";
import { openProgress } from "./progress.ts";
import { configOf, openNamedDevice } from "./session.ts";
import { openTerminal, type Terminal } from "./terminal.ts";
import { timedWeights } from "./timed_weights.ts";
import {
  addWorkFlags,
  checkCounts,
  checkWork,
  hasRandomWeights,
  type WorkFlags,
  workSettings,
} from "./work_flags.ts";

interface ProfileFlags extends WorkFlags {
  readonly repeats: number;
  readonly json?: boolean | undefined;
  readonly csv?: boolean | undefined;
  readonly markdown?: boolean | undefined;
  readonly trace?: string | undefined;
  readonly html?: string | undefined;
  readonly quiet?: boolean | undefined;
}

/** `mor profile`: where the time of a model goes. */
// deno-lint-ignore no-explicit-any -- see root.ts
export function profileCommand(): Command<any> {
  const command = new Command()
    .description(
      "Time a prompt, a decoding step and a training step: whole by the clock, and each kernel on the GPU. " +
        "Takes a checkpoint, or a preset or a config.json, which get random weights.",
    )
    .arguments("<model:string>");
  return addWorkFlags(command)
    .option("--repeats <n:integer>", "Times to measure each; the median is shown.", { default: 5 })
    .group("Output")
    .option("--json", "Print one JSON object.")
    .option("--csv", "Print comma-separated values, a line for each kernel and part.")
    .option("--markdown", "Print tables in Markdown.")
    .option(
      "--trace <file:file>",
      "Write a timeline that Perfetto (ui.perfetto.dev) and chrome://tracing open.",
    )
    .option("--html <file:file>", "Write a page with rooflines, timelines and all tables.")
    .example("A preset's inference", "mor profile 135m-mor3 -p 128 -n 16")
    .example("A shape of one's own", "mor profile config.json --html page.html")
    .example("With training", "mor profile my-model --train --batch-size 8")
    .action((flags: ProfileFlags, model: string) => run(flags, model));
}

async function run(flags: ProfileFlags, model: string): Promise<void> {
  checkCounts({ "--repeats": flags.repeats });
  const form = reportForm(flags);
  const choice = checkWork(flags, model);
  for (const path of [flags.trace, flags.html]) {
    if (path !== undefined) await makeFolder(dirname(path));
  }
  const terminal = openTerminal(flags);
  const config = await configOf(model);
  const settings = workSettings(flags, { config, terminal });
  const { promptTokens: context, steps, shape, recompute, activationDtype, seed } = settings;
  using device = await openNamedDevice(terminal);
  terminal.note(`seed: ${flags.seed}`);
  const { repeats } = flags;
  const options = { config, recompute, activationDtype, evaluationSequences: 0 };
  const training = shape && allocateTraining(device, { ...options, shape });
  const weights = await timedWeights(device, { model, config, training, choice, seed, terminal });
  const ceilings = device.features.has("timestamp-query") ? await measureCeilings(device) : null;
  const inference = await measure(flags, {
    terminal,
    what: "prompt and decoding steps",
    profile: (options) =>
      profileInference(device, { config, weights }, { ...options, promptTokens: context, steps }),
  });
  const profile = training && await measure(flags, {
    terminal,
    what: "training steps",
    profile: (options) =>
      profileTraining(device, { config, buffers: training }, { ...options, shape: shape! }),
  });
  const report: ProfileReport = {
    adapter: device.info,
    readback: readbackMode(device)!,
    ceilings,
    model,
    hasRandomWeights: hasRandomWeights(model),
    seed,
    repeats,
    context,
    steps,
    inference,
    training: profile && { ...shape!, recompute, activationDtype, profile },
  };
  // First what the user is there to see; a file that cannot be written is an error after it.
  terminal.out(FORMS[form](report));
  await writeFiles(flags, { report, terminal });
}

const FORMS = {
  text: reportText,
  json: (report: ProfileReport) => JSON.stringify(reportJson(report)) + "\n",
  csv: reportCsv,
  markdown: reportMarkdown,
} as const;

function reportForm({ json, csv, markdown }: ProfileFlags): keyof typeof FORMS {
  const wanted = Object.entries({ json, csv, markdown }).filter(([, isWanted]) => isWanted);
  if (wanted.length > 1) {
    throw new ValidationError(
      `${wanted.map(([name]) => `--${name}`).join(" and ")} exclude each other; give one`,
    );
  }
  return (wanted[0]?.[0] ?? "text") as keyof typeof FORMS;
}

async function writeFiles(
  { trace, html }: ProfileFlags,
  { report, terminal }: { report: ProfileReport; terminal: Terminal },
): Promise<void> {
  if (trace !== undefined) {
    await writeText(trace, JSON.stringify(reportTrace(report)) + "\n");
    terminal.note(`timeline: ${trace}`);
  }
  if (html !== undefined) {
    // The plotting library is large: other commands start without it.
    const { reportHtml } = await import("./profile_html.ts");
    await writeText(html, reportHtml(report));
    terminal.note(`page: ${html}`);
  }
}

/** Measures with progress shown. */
async function measure<T>(
  { repeats, seed }: ProfileFlags,
  { terminal, what, profile }: {
    terminal: Terminal;
    what: string;
    profile: (options: ProfileOptions) => Promise<T>;
  },
): Promise<T> {
  const progress = openProgress(terminal, { max: repeats, value: 0 });
  try {
    return await profile({ repeats, seed, onRepeat: (done) => progress.update(done, what) });
  } finally {
    await progress.stop();
  }
}
