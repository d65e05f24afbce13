/** The times of dispatches, added up by kernel, by part of the model and by depth. */
import type { DispatchTime } from "../gpu/timing.ts";
import { mean, median } from "./statistics.ts";

/** Some dispatches together; all numbers are of one piece of work. */
export interface GroupTime {
  readonly calls: number;
  /** On the GPU; the median of the repeats. */
  readonly milliseconds: number;
  /** What they had to do at the least (gpu/cost.ts), on average; null where a kernel does not say. */
  readonly flops: number | null;
  readonly bytes: number | null;
}

/** A kernel's part of a piece of work. */
export interface KernelTime extends GroupTime {
  /** `file entry_point`. */
  readonly label: string;
}

/** A part of the model in a piece of work. */
export interface PartTime extends GroupTime {
  readonly part: string;
  /** Rows that its attention ran, on average: the tokens of a recursion step; null without attention. */
  readonly rows: number | null;
}

/** Decoding steps whose tokens ran equally deep. */
export interface DepthTime {
  readonly depth: number;
  readonly steps: number;
  /** A step's time in kernels, on average. */
  readonly milliseconds: number;
}

/** Sum of the times of dispatches or kernels. */
export function totalMilliseconds(times: readonly { readonly milliseconds: number }[]): number {
  return times.reduce((sum, { milliseconds }) => sum + milliseconds, 0);
}

/** Dispatches of some repeats of the same work, `pieces` equal pieces of it, one of which is told of. */
interface Repeats {
  readonly repeats: readonly (readonly DispatchTime[])[];
  readonly pieces: number;
}

/** By kernel, the longest first. */
export function kernelTimes(measured: Repeats): KernelTime[] {
  return groupTimes(measured, ({ label }) => label)
    .map(({ name, group }) => ({ label: name, ...group }))
    .toSorted((a, b) => b.milliseconds - a.milliseconds);
}

/** By part of the model, in the order in which they run. */
export function partTimes(measured: Repeats): PartTime[] {
  return groupTimes(measured, ({ part }) => part).map(({ name, group, dispatches }) => {
    const attention = dispatches.filter(({ label, rows }) => label.startsWith("attention") && rows !== null);
    const rows = attention.length > 0 ? mean(attention.map(({ rows }) => rows!)) : null;
    return { part: name, ...group, rows };
  });
}

/** Decoding steps by depth: `depths` has that of each step's token, and all steps have as many dispatches. */
export function depthTimes(
  { repeats, depths }: { repeats: readonly (readonly DispatchTime[])[]; depths: readonly number[] },
): DepthTime[] {
  const steps = repeats.flatMap((dispatches) => {
    const each = dispatches.length / depths.length;
    return depths.map((depth, i) => ({
      depth,
      milliseconds: totalMilliseconds(dispatches.slice(i * each, (i + 1) * each)),
    }));
  });
  return Array.from(Map.groupBy(steps, ({ depth }) => depth), ([depth, steps]) => ({
    depth,
    steps: steps.length / repeats.length,
    milliseconds: mean(steps.map(({ milliseconds }) => milliseconds)),
  })).toSorted((a, b) => a.depth - b.depth);
}

interface Group {
  readonly name: string;
  readonly group: GroupTime;
  /** Of all repeats. */
  readonly dispatches: readonly DispatchTime[];
}

function groupTimes({ repeats, pieces }: Repeats, nameOf: (dispatch: DispatchTime) => string): Group[] {
  const grouped = repeats.map((dispatches) => Map.groupBy(dispatches, nameOf));
  return Array.from(grouped[0]!, ([name, first]) => {
    const dispatches = grouped.flatMap((group) => group.get(name)!);
    const sum = (field: "flops" | "bytes"): number | null =>
      dispatches.some(({ work }) => work === null)
        ? null
        : dispatches.reduce((sum, { work }) => sum + work![field], 0) / (pieces * repeats.length);
    const group = {
      calls: first.length / pieces,
      milliseconds: median(grouped.map((group) => totalMilliseconds(group.get(name)!))) / pieces,
      flops: sum("flops"),
      bytes: sum("bytes"),
    };
    return { name, group, dispatches };
  });
}
