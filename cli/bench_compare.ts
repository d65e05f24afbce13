import { Command } from "@cliffy/command";
import type { GpuDevice } from "../gpu/device.ts";
import type { ModelConfig } from "../model/config.ts";
import { compareSpeeds, type Side, SIDES } from "../model/speed_comparison.ts";
import { TimedModel, type WorkSettings } from "../model/timed_model.ts";
import { allocateTraining } from "../model/training.ts";
import { type Commits, commitsOf, withProcesses } from "./compare_processes.ts";
import { compareJson, type CompareReport, compareText, type ReportedSide } from "./compare_report.ts";
import { type ComparedSide, readSides } from "./compare_sides.ts";
import { openProgress } from "./progress.ts";
import { adapterLine, configOf, openNamedDevice } from "./session.ts";
import { openTerminal, type Terminal } from "./terminal.ts";
import { timedWeights } from "./timed_weights.ts";
import {
  addWorkFlags,
  checkCounts,
  checkWorkCounts,
  hasRandomWeights,
  type WorkFlags,
  workSettings,
} from "./work_flags.ts";

interface CompareFlags extends WorkFlags {
  readonly base?: string | undefined;
  readonly change?: string | undefined;
  readonly pairs: number;
  readonly json?: boolean | undefined;
  readonly quiet?: boolean | undefined;
}

/** `mor bench compare`: whether a change makes a model's work faster. */
// deno-lint-ignore no-explicit-any -- see root.ts
export function compareCommand(): Command<any> {
  const command = new Command()
    .description(
      "Time a prompt, a decoding step and a training step in two ways, with other settings or by another revision of " +
        "this program, pair by pair in alternating order: the ratio of each pair, and whether their spread leaves a " +
        "difference. --base and --change hold flags of one side, those from -p to --dtype, split at blanks (quotes mean " +
        "nothing there); outside they are for both. `--revision REV` in a side runs the program of a commit, branch or " +
        "tag, which takes a checkout with git; then each measurement is a process.",
    )
    .arguments("<model:string>")
    .group("Comparison")
    .option("--base <flags:string>", "Flags of the base; without any it is the program as it runs now.")
    .option("--change <flags:string>", "Flags of the change, as for --base.")
    .option("--pairs <n:integer>", "Times to measure both; more make the interval narrower.", { default: 7 });
  return addWorkFlags(command)
    .group("Output")
    .option("--json", "Print one JSON object, with all pairs.")
    .example("Formats", 'mor bench compare my-model --base "--dtype f32" --change "--dtype q8_0"')
    .example(
      "A change that is not committed yet",
      'mor bench compare tiny-mor3 --train --base "--revision HEAD"',
    )
    .example("The noise of a machine", "mor bench compare tiny-mor3 -p 128 -n 16")
    .action((flags: CompareFlags, model: string) => run(flags, model));
}

async function run(flags: CompareFlags, model: string): Promise<void> {
  checkCounts({ "--pairs": flags.pairs });
  checkWorkCounts(flags);
  const { base = "", change = "", pairs, json, quiet, ...common } = flags;
  const sides = await readSides({ base, change }, { common, model });
  const byProcess = SIDES.some((side) => sides[side].flags.revision !== undefined);
  const commits = byProcess ? await commitsOf(sides) : { base: null, change: null };
  const terminal = openTerminal({ quiet });
  const config = await configOf(model);
  const comparison: Comparison = {
    model,
    config,
    sides,
    settings: {
      base: workSettings(sides.base.flags, { config, terminal: sideTerminal(terminal, "base") }),
      change: workSettings(sides.change.flags, { config, terminal: sideTerminal(terminal, "change") }),
    },
    pairs,
    terminal,
  };
  const measured = byProcess ? await compareProcesses(comparison, commits) : await compareModels(comparison);
  const report: CompareReport = {
    ...measured,
    model,
    hasRandomWeights: hasRandomWeights(model),
    pairs,
    byProcess,
    sides: {
      base: reportedSide("base", { comparison, commits }),
      change: reportedSide("change", { comparison, commits }),
    },
  };
  terminal.out(json ? JSON.stringify(compareJson(report)) + "\n" : compareText(report));
}

/** What is compared, and how often. */
interface Comparison {
  readonly model: string;
  readonly config: ModelConfig;
  readonly sides: Readonly<Record<Side, ComparedSide>>;
  readonly settings: Readonly<Record<Side, WorkSettings>>;
  readonly pairs: number;
  readonly terminal: Terminal;
}

/** What was found, and on what. */
type Measured = Pick<CompareReport, "adapter" | "works">;

/** Notes that belong to one side. */
function sideTerminal(terminal: Terminal, side: Side): Terminal {
  return { ...terminal, note: (text) => terminal.note(`${side}: ${text}`) };
}

function noteSeeds({ settings: { base, change }, terminal }: Comparison): void {
  const isOne = base.seed === change.seed;
  terminal.note(`seed: ${isOne ? base.seed : `${base.seed} for the base, ${change.seed} for the change`}`);
}

/** Both sides on one device of this process, each loaded and its kernels compiled before anything is measured. */
async function compareModels(comparison: Comparison): Promise<Measured> {
  const { pairs, terminal } = comparison;
  using device = await openNamedDevice(terminal);
  noteSeeds(comparison);
  using base = await loadSide(device, { side: "base", comparison });
  using change = await loadSide(device, { side: "change", comparison });
  const warmUps = 2;
  const progress = openProgress(terminal, { max: warmUps + 2 * pairs, value: 0 });
  try {
    for (const [i, model] of [base, change].entries()) {
      await model.measure();
      progress.update(i + 1, `${SIDES[i]}, kernels compiled`);
    }
    const contenders = { base: () => base.measure(), change: () => change.measure() };
    const works = await compareSpeeds(contenders, {
      pairs,
      onMeasured: (done, side, pair) => progress.update(warmUps + done, `${side} of pair ${pair}`),
    });
    return { adapter: device.info, works };
  } finally {
    await progress.stop();
  }
}

async function loadSide(
  device: GpuDevice,
  { side, comparison: { model, config, sides, settings, terminal } }: { side: Side; comparison: Comparison },
): Promise<TimedModel> {
  const { shape, recompute, activationDtype, seed } = settings[side];
  const options = { config, recompute, activationDtype, evaluationSequences: 0 };
  const training = shape && allocateTraining(device, { ...options, shape });
  const weights = await timedWeights(device, {
    model,
    config,
    training,
    choice: sides[side].choice,
    seed,
    terminal: sideTerminal(terminal, side),
  });
  return new TimedModel(device, { config, weights, training }, settings[side]);
}

/** Each measurement a process, so that a revision and the program as it is now are treated alike. */
async function compareProcesses(comparison: Comparison, commits: Commits): Promise<Measured> {
  const { pairs, terminal } = comparison;
  noteSeeds(comparison);
  const progress = openProgress(terminal, { max: 2 * pairs, value: 0 });
  let adapter: Measured["adapter"] | null = null;
  const onAdapter = async (met: Measured["adapter"]): Promise<void> => {
    adapter = met;
    await progress.note(adapterLine(met));
  };
  try {
    const works = await withProcesses(
      { ...comparison, commits, onAdapter },
      (contenders) =>
        compareSpeeds(contenders, {
          pairs,
          onMeasured: (done, side, pair) => progress.update(done, `${side} of pair ${pair}`),
        }),
    );
    return { adapter: adapter!, works };
  } finally {
    await progress.stop();
  }
}

function reportedSide(
  side: Side,
  { comparison: { sides, settings }, commits }: { comparison: Comparison; commits: Commits },
): ReportedSide {
  const { text, flags: { revision, dtype } } = sides[side];
  return {
    text,
    revision: revision ?? null,
    commit: commits[side],
    dtype: dtype ?? null,
    settings: settings[side],
  };
}
