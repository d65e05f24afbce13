/** Measuring which variants are the fastest on the adapter, and right. */
import { Commands, submit } from "../commands.ts";
import { type GpuDevice, openDevice } from "../device.ts";
import { GpuError } from "../errors.ts";
import { BufferScope } from "../memory.ts";
import { readTensors } from "../readback.ts";
import { createTensor, type Tensor, type TensorData } from "../tensor.ts";
import { timeWork } from "../timing.ts";
import { attentionCases } from "./attention_cases.ts";
import type { TuningCase } from "./cases.ts";
import { productCases, vectorRowsCase } from "./product_cases.ts";
import { fastestOf, type Trial, tryCandidates } from "./trials.ts";
import { type Tuning, VECTOR_ROWS } from "./tuning.ts";

/** A value of a choice. */
export type Candidate = Tuning[keyof Tuning];

/** What was measured for a choice. */
export interface CaseReport {
  readonly choice: keyof Tuning;
  readonly work: string;
  /** Of the work, once. */
  readonly flops: number;
  readonly trials: readonly Trial<Candidate>[];
  readonly chosen: Candidate;
}

/** The fastest choices, and what was measured to find them. */
export interface TuningReport {
  readonly tuning: Tuning;
  readonly cases: readonly CaseReport[];
  /** From beginning to end. */
  readonly milliseconds: number;
}

/** Most memory that measuring takes. */
const MEMORY_BYTES = 192 * 2 ** 20;

/**
 * Part of a result's usual size (root mean square) by which a right one may be off: f32 sums of any order stay a hundred
 * times below, ten bits of a number's fraction would already be too few.
 */
const TOLERANCE = 1e-4;

/** Milliseconds of a run that a clock can tell from another, and how often at most the work is repeated for them. */
const RUN_MILLISECONDS = 0.5;
const MOST_COPIES = 32;

/** What is measured by itself, in this order; how many rows are very few is found out after it. */
export function tuningCases(device: GpuDevice): TuningCase[] {
  return [...productCases(device), ...attentionCases(device)];
}

/**
 * Measures every choice that the adapter leaves, in about a second; takes 192 MiB meanwhile.
 *
 * @param open Opens devices to measure on: an error ends a device for good, so it must not be the one in use.
 * @throws GpuUnavailableError when there is no device; any error but those of a candidate.
 */
export async function measureTuning(open: () => Promise<GpuDevice> = openDevice): Promise<TuningReport> {
  const start = performance.now();
  const cases: CaseReport[] = [];
  using bench = await Workbench.open(open);
  let { tuning } = bench.device;
  const measure = async (tuningCase: TuningCase): Promise<Candidate> => {
    const report = await measureCase(bench, { tuningCase, tuning });
    cases.push(report);
    return report.chosen;
  };
  for (const tuningCase of tuningCases(bench.device)) {
    if (tuningCase.candidates.length < 2) continue;
    tuning = { ...tuning, [tuningCase.choice]: await measure(tuningCase) };
  }
  let vectorRows: Tuning["vectorRows"] = VECTOR_ROWS[0];
  for (const rows of VECTOR_ROWS.slice(1)) {
    const chosen = await measure(vectorRowsCase(bench.device, { rows, below: vectorRows }));
    if (chosen !== rows) break;
    vectorRows = rows;
  }
  return { tuning: { ...tuning, vectorRows }, cases, milliseconds: performance.now() - start };
}

/** The device to measure on, and another one when a candidate has ended it. */
export class Workbench {
  readonly #open: () => Promise<GpuDevice>;
  #device: GpuDevice;

  private constructor(open: () => Promise<GpuDevice>, device: GpuDevice) {
    this.#open = open;
    this.#device = device;
    device.memory.budget = MEMORY_BYTES;
  }

  static async open(open: () => Promise<GpuDevice>): Promise<Workbench> {
    return new Workbench(open, await open());
  }

  get device(): GpuDevice {
    return this.#device;
  }

  async replaceDevice(): Promise<void> {
    this.#device.close();
    this.#device = await this.#open();
    this.#device.memory.budget = MEMORY_BYTES;
  }

  [Symbol.dispose](): void {
    this.#device.close();
  }
}

/** An error of the device while it ran a candidate. */
class CandidateError extends Error {
  override readonly name = "CandidateError";
  readonly candidate: Candidate;

  constructor(candidate: Candidate, cause: GpuError) {
    super(cause.message, { cause });
    this.candidate = candidate;
  }
}

/**
 * Measures one choice, the others being as in `tuning`. Candidates that fail or have another result than the default are
 * left out; where the default itself fails, nothing could be compared, and it stays.
 */
export async function measureCase(
  bench: Workbench,
  { tuningCase, tuning }: { tuningCase: TuningCase; tuning: Tuning },
): Promise<CaseReport> {
  const { choice, work, candidates } = tuningCase;
  const failures = new Map<Candidate, Trial<Candidate>>();
  for (;;) {
    const running = candidates.filter((candidate) => !failures.has(candidate));
    try {
      const { trials, flops } = await tryOn(bench.device, { tuningCase, tuning, running });
      const all = candidates.map((candidate) =>
        failures.get(candidate) ?? trials.find((trial) => trial.candidate === candidate)!
      );
      return { choice, work, flops, trials: all, chosen: fastestOf(all) };
    } catch (error) {
      if (!(error instanceof CandidateError)) throw error;
      const note = `it fails: ${error.message.split("\n")[0]}`;
      failures.set(error.candidate, { candidate: error.candidate, milliseconds: null, note });
      await bench.replaceDevice();
      if (error.candidate !== candidates[0]) continue;
      const untried = "not tried: the default fails";
      const trials = candidates.map((candidate) =>
        failures.get(candidate) ?? { candidate, milliseconds: null, note: untried }
      );
      return { choice, work, flops: 0, trials, chosen: error.candidate };
    }
  }
}

/** @throws CandidateError */
async function tryOn(
  device: GpuDevice,
  { tuningCase: { choice, prepare }, tuning, running }: {
    tuningCase: TuningCase;
    tuning: Tuning;
    running: readonly Candidate[];
  },
): Promise<{ trials: Trial<Candidate>[]; flops: number }> {
  const scope = new BufferScope(device);
  const programs = new Map<Candidate, Commands>();
  const { record, outputs, flops } = prepare(scope);
  const probe = createTensor(scope, { shape: [1], label: "probe" });
  let wanted: readonly TensorData[] | null = null;
  let copies = 0;

  function recorded(candidate: Candidate, times: number): Commands {
    device.tuning = { ...tuning, [choice]: candidate };
    const commands = new Commands(device, `tuning of ${choice}`);
    for (let i = 0; i < times; i++) record(commands);
    return commands;
  }

  async function check(candidate: Candidate): Promise<string | null> {
    // What is not written shows: a result of nothing but zeros is none.
    const clearing = new Commands(device, "results to zero");
    for (const output of outputs) clearing.clear(output);
    const commands = recorded(candidate, 1);
    const got = await readTensors(device, outputs, { after: [clearing, commands] });
    commands.destroy();
    wanted ??= got;
    return differenceOf(got, wanted);
  }

  async function time(candidate: Candidate): Promise<number> {
    if (copies === 0) {
      const once = recorded(candidate, 1);
      copies = Math.min(MOST_COPIES, Math.ceil(RUN_MILLISECONDS / await millisecondsOf(device, once, probe)));
      once.destroy();
    }
    const commands = programs.get(candidate) ?? recorded(candidate, copies);
    programs.set(candidate, commands);
    return await millisecondsOf(device, commands, probe) / copies;
  }

  try {
    const trials = await tryCandidates(running, {
      check: (candidate) => blaming(candidate, check),
      time: (candidate) => blaming(candidate, time),
    });
    return { trials, flops };
  } finally {
    for (const commands of programs.values()) commands.destroy();
    scope.destroy();
  }
}

/** @throws CandidateError for an error of the device. */
async function blaming<T>(candidate: Candidate, run: (candidate: Candidate) => Promise<T>): Promise<T> {
  try {
    return await run(candidate);
  } catch (error) {
    throw error instanceof GpuError ? new CandidateError(candidate, error) : error;
  }
}

/** The time that a program takes: of its dispatches where the adapter tells, else until a number has been read after it. */
async function millisecondsOf(device: GpuDevice, commands: Commands, probe: Tensor): Promise<number> {
  if (device.features.has("timestamp-query")) {
    const { times } = await timeWork(device, () => Promise.resolve(submit(device, [commands])));
    return times.reduce((sum, { milliseconds }) => sum + milliseconds, 0);
  }
  const start = performance.now();
  await readTensors(device, [probe], { after: [commands] });
  return performance.now() - start;
}

/** What is wrong with results; null if they are the wanted ones but for rounding. */
function differenceOf(got: readonly TensorData[], wanted: readonly TensorData[]): string | null {
  for (const [i, values] of wanted.entries()) {
    const other = got[i]!;
    let [largest, squares] = [0, 0];
    values.forEach((value, j) => {
      largest = Math.max(largest, Math.abs(other[j]! - value)); // NaN stays
      squares += value * value;
    });
    const part = largest / Math.sqrt(squares / values.length);
    if (!(part <= TOLERANCE)) return `wrong: its result is off by ${part.toPrecision(2)} of its usual size`;
  }
  return null;
}
