/** The same work done in two ways, pair by pair in alternating order, so that drift of the machine cancels. */
import { type RatioSummary, summarizeRatios } from "./paired_ratios.ts";

/** The two that are compared. */
export const SIDES = ["base", "change"] as const;
export type Side = typeof SIDES[number];

/** Kinds of work, in the order in which they are done. */
const WORK_NAMES = ["prefill", "decode", "train"] as const;
export type WorkName = typeof WORK_NAMES[number];

/** A piece of work, measured once. */
export interface WorkTime {
  /** By the clock. */
  readonly milliseconds: number;
  readonly tokens: number;
}

/** Times of all kinds of work that a side does. */
export type WorkTimes = { readonly [name in WorkName]?: WorkTime };

/** A side of a comparison: does all its work once and says how long each kind of it took. */
export type Contender = () => Promise<WorkTimes>;

/** Both sides measured one after the other. */
export interface SpeedPair {
  readonly first: Side;
  readonly base: WorkTime;
  readonly change: WorkTime;
  /** Time of a token of the base over that of the change's: above 1 the change is faster. */
  readonly ratio: number;
}

/** A kind of work in all pairs. */
export interface WorkComparison {
  readonly work: WorkName;
  readonly pairs: readonly SpeedPair[];
  readonly ratios: RatioSummary;
}

/** Told what is done: measurements, and the side and the pair, from 1, of the last one. */
export type OnMeasured = (done: number, side: Side, pair: number) => void;

/**
 * Measures `pairs` pairs: the base first in the first, the change first in the second, and so on. Both sides do the
 * same kinds of work.
 */
export async function compareSpeeds(
  contenders: Readonly<Record<Side, Contender>>,
  { pairs, onMeasured }: { pairs: number; onMeasured: OnMeasured },
): Promise<WorkComparison[]> {
  const measured: { first: Side; times: Record<Side, WorkTimes> }[] = [];
  for (let pair = 0; pair < pairs; pair++) {
    const order = pair % 2 === 0 ? SIDES : SIDES.toReversed();
    const times: Record<Side, WorkTimes> = { base: {}, change: {} };
    for (const [i, side] of order.entries()) {
      times[side] = await contenders[side]();
      onMeasured(2 * pair + i + 1, side, pair + 1);
    }
    measured.push({ first: order[0]!, times });
  }
  const done = WORK_NAMES.filter((name) => measured[0]?.times.base[name] !== undefined);
  return done.map((work) => {
    const workPairs = measured.map(({ first, times }) => {
      const [base, change] = [times.base[work]!, times.change[work]!];
      return { first, base, change, ratio: tokenTime(base) / tokenTime(change) };
    });
    return { work, pairs: workPairs, ratios: summarizeRatios(workPairs.map(({ ratio }) => ratio)) };
  });
}

function tokenTime({ milliseconds, tokens }: WorkTime): number {
  return milliseconds / tokens;
}
