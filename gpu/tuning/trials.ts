/** From measurements to choices: which candidates are tried how often, and which one is taken. */

/** What came of a candidate. */
export interface Trial<Candidate> {
  readonly candidate: Candidate;
  /** Of a run, the median of all; null for one that was not timed. */
  readonly milliseconds: number | null;
  /** Why it is out of the running, else null. */
  readonly note: string | null;
}

/** How candidates are tried. */
export interface TrialRun<Candidate> {
  /** Runs one for the first time, which compiles it; says what is wrong with its result, or null. */
  readonly check: (candidate: Candidate) => Promise<string | null>;
  /** Milliseconds of one run. */
  readonly time: (candidate: Candidate) => Promise<number>;
}

/** Timed runs of a candidate that stays in the running; an odd number has a median. */
const RUNS = 5;

/** Milliseconds of a run that is long enough to be believed at once: a slow adapter need not be kept busy. */
const LONG_MILLISECONDS = 100;

/**
 * A candidate that takes so many times as long as the fastest in the first run, and once more, is not run again. The
 * default is: whatever disturbs a run must not be a reason to leave it.
 */
const HOPELESS = 3;

/** Parts of the default's time that a candidate has to save: less is noise, and no reason to leave what is best tested. */
const MARGIN = 0.05;

/** Tries each candidate once, then those that may win in turn: a clock that rises or falls meanwhile favours none. */
export async function tryCandidates<Candidate>(
  candidates: readonly Candidate[],
  { check, time }: TrialRun<Candidate>,
): Promise<Trial<Candidate>[]> {
  const notes = new Map<Candidate, string>();
  const times = new Map<Candidate, number[]>();
  for (const candidate of candidates) {
    const problem = await check(candidate);
    if (problem !== null) notes.set(candidate, problem);
  }
  const running = (): Candidate[] => candidates.filter((candidate) => !notes.has(candidate));
  for (const candidate of running()) times.set(candidate, [await time(candidate)]);
  const best = Math.min(...Array.from(times.values(), ([first]) => first!));
  for (const candidate of running()) {
    if (candidate === candidates[0]) continue;
    const [first] = times.get(candidate)!;
    if (first! <= HOPELESS * best) continue;
    const faster = Math.min(first!, await time(candidate));
    times.set(candidate, [faster]);
    if (faster > HOPELESS * best) notes.set(candidate, `over ${HOPELESS} times slower`);
  }
  // With no other to compare with there is nothing to find out.
  const rounds = running().length > 1 && best < LONG_MILLISECONDS ? RUNS : 1;
  for (let round = 1; round < rounds; round++) {
    for (const candidate of running()) times.get(candidate)!.push(await time(candidate));
  }
  return candidates.map((candidate) => {
    const measured = times.get(candidate);
    return {
      candidate,
      milliseconds: measured ? median(measured) : null,
      note: notes.get(candidate) ?? null,
    };
  });
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1]!;
}

/** The fastest of the trials: the first, which is the default, unless another saves enough. */
export function fastestOf<Candidate>(trials: readonly Trial<Candidate>[]): Candidate {
  const [usual] = trials;
  let chosen = usual!;
  for (const trial of trials) {
    if (trial.note !== null || trial.milliseconds === null) continue;
    // A default that failed leaves nothing right to compare with.
    const limit = chosen === usual ? (usual!.milliseconds ?? 0) * (1 - MARGIN) : chosen.milliseconds!;
    if (trial.milliseconds < limit) chosen = trial;
  }
  return chosen.candidate;
}
