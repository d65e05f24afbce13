/** What `mor profile` found as a timeline that Perfetto and Chrome open (the Trace Event Format). */
import type { DispatchTime } from "../gpu/timing.ts";
import { type ProfileReport, reportSections } from "./profile_report.ts";

/** An event: complete (X), or a name for a process or a thread (M). Times in microseconds. */
interface TraceEvent {
  readonly ph: "X" | "M";
  readonly name: string;
  readonly pid: number;
  readonly tid: number;
  readonly ts?: number;
  readonly dur?: number;
  readonly args?: Readonly<Record<string, unknown>>;
}

const THREADS = { parts: 1, kernels: 2 } as const;

/**
 * One process for each kind of work, with a row for the parts of the model and one for the kernels. Each dispatch ran in
 * a compute pass of its own, so gaps between them are longer than without timestamps.
 */
export function reportTrace(report: ProfileReport): Record<string, unknown> {
  const events = reportSections(report).flatMap(({ test, profile: { gpu } }, i) =>
    gpu ? sectionEvents(gpu.timeline, { pid: i + 1, name: test }) : []
  );
  return {
    displayTimeUnit: "ms",
    otherData: { adapter: report.adapter.description, model: report.model, seed: report.seed },
    traceEvents: events,
  };
}

function sectionEvents(
  timeline: readonly DispatchTime[],
  { pid, name }: { pid: number; name: string },
): TraceEvent[] {
  const named = (tid: number, kind: string, name: string): TraceEvent => ({
    ph: "M",
    name: kind,
    pid,
    tid,
    args: { name },
  });
  return [
    named(0, "process_name", name),
    ...Object.entries(THREADS).map(([thread, tid]) => named(tid, "thread_name", thread)),
    ...partSpans(timeline).map(({ part, start, end }): TraceEvent => ({
      ph: "X",
      name: part,
      pid,
      tid: THREADS.parts,
      ts: start * 1000,
      dur: (end - start) * 1000,
    })),
    ...timeline.map(({ label, startMilliseconds, milliseconds, work, rows }): TraceEvent => ({
      ph: "X",
      name: label,
      pid,
      tid: THREADS.kernels,
      ts: startMilliseconds * 1000,
      dur: milliseconds * 1000,
      args: { ...(rows !== null && { rows }), ...work },
    })),
  ];
}

/** A run of dispatches of one part of the model; milliseconds. */
export interface PartSpan {
  readonly part: string;
  readonly start: number;
  readonly end: number;
}

/** Runs of dispatches of the same part. */
export function partSpans(timeline: readonly DispatchTime[]): PartSpan[] {
  const spans: { part: string; start: number; end: number }[] = [];
  for (const { part, startMilliseconds: start, milliseconds } of timeline) {
    const last = spans.at(-1);
    if (last?.part === part) last.end = start + milliseconds;
    else spans.push({ part, start, end: start + milliseconds });
  }
  return spans;
}
