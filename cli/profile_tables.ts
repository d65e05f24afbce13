/** What `mor profile` found as tables: for a terminal, for a document, for a spreadsheet. */
import { totalMilliseconds } from "../model/profile_times.ts";
import { mean, standardDeviation } from "../model/statistics.ts";
import {
  type ProfileReport,
  type ReportRow,
  reportRow,
  type ReportSection,
  reportSections,
  tokensPerSecond,
} from "./profile_report.ts";
import { table } from "./table.ts";

/** A table whose first row names the columns. */
export type Rows = readonly (readonly string[])[];

/** The tables of a kind of work; none without timestamps. */
export interface SectionTables {
  readonly section: ReportSection;
  readonly tables: readonly Rows[];
}

const RATES = ["GFLOP/s", "GB/s", "of ceiling"] as const;

/** What was measured, with what, in lines of a name and a text. */
export function reportHead(report: ProfileReport): [name: string, text: string][] {
  const { adapter, ceilings, inference, training } = report;
  const record = inference.recordMilliseconds + (training?.profile.recordMilliseconds ?? 0);
  const first = reportSections(report).map(({ test, profile }) =>
    `${test} ${Math.max(0, profile.firstRunMilliseconds).toFixed(0)} ms`
  );
  return [
    [
      "adapter",
      `${adapter.description}${adapter.isSoftware ? " (software)" : ""}; readback ${report.readback}`,
    ],
    ceilings
      ? [
        "ceilings",
        `${rate(ceilings.flopsPerSecond)} GFLOP/s in a matrix product, ${
          rate(ceilings.bytesPerSecond)
        } GB/s in a copy`,
      ]
      : ["kernels", "not timed: the adapter grants no timestamps"],
    ["model", `${report.model}${report.hasRandomWeights ? ", random weights" : ""}; seed ${report.seed}`],
    [
      "times",
      `medians of ${report.repeats}${ceilings ? "; kernels one by one, wall time without timestamps" : ""}`,
    ],
    ["compile", `recording ${record.toFixed(0)} ms; first runs took longer by: ${first.join(", ")}`],
  ];
}

/** A line for each kind of work: mean and standard deviation of the repeats. */
export function summaryRows(report: ProfileReport): Rows {
  return [
    ["test", "ms", "tokens/s"],
    ...reportSections(report).map(({ test, profile }) => [
      test,
      spread(profile.samples, 3),
      spread(tokensPerSecond(profile), 1),
    ]),
  ];
}

/** By kernel, by part of the model, and by depth. */
export function sectionTables(report: ProfileReport): SectionTables[] {
  return reportSections(report).map((section) => {
    const { profile: { gpu, wallMilliseconds }, depths } = section;
    if (!gpu) return { section, tables: [] };
    const { ceilings } = report;
    const cells = (row: ReportRow): string[] => [...timeCells(row), ...rateCells(row)];
    const tables: Rows[] = [
      [
        ["kernel", "calls", "ms", "share", ...RATES],
        ...gpu.kernels.map((
          kernel,
        ) => [kernel.label, ...cells(reportRow(kernel, { wallMilliseconds, ceilings }))]),
        ...remainder(section),
      ],
      [
        ["part", "calls", "ms", "share", ...RATES, "rows"],
        ...gpu.parts.map((part) => [
          part.part,
          ...cells(reportRow(part, { wallMilliseconds, ceilings })),
          part.rows === null ? "" : part.rows.toFixed(part.rows < 10 ? 2 : 0),
        ]),
      ],
    ];
    if (depths) {
      tables.push([
        ["depth", "steps", "ms in kernels"],
        ...depths.map(({ depth, steps, milliseconds }) => [
          String(depth),
          String(steps),
          milliseconds.toFixed(3),
        ]),
      ]);
    }
    return { section, tables };
  });
}

/** The rows that make a table of kernels the whole step: what they leave of the wall time, and that. */
function remainder({ profile: { gpu, wallMilliseconds: wall } }: ReportSection): string[][] {
  const kernels = totalMilliseconds(gpu!.kernels);
  const calls = gpu!.kernels.reduce((sum, { calls }) => sum + calls, 0);
  const row = (name: string, calls: string, milliseconds: number): string[] => [
    name,
    calls,
    milliseconds.toFixed(3),
    percent(milliseconds / wall),
    ...RATES.map(() => ""),
  ];
  return [
    row("in kernels", String(calls), kernels),
    row("outside of kernels", "", wall - kernels),
    row("wall time", "", wall),
  ];
}

/** Tables for people. */
export function reportText(report: ProfileReport): string {
  const head = reportHead(report).map(([name, text]) => `${name.padEnd(10)}${text}\n`).join("");
  const sections = sectionTables(report).map(({ section: { key, what }, tables }) =>
    [`${key.padEnd(10)}${what}\n`, ...tables.map((rows) => table(rows, { indent: 2 }))].join("\n")
  );
  return [head, table(summaryRows(report)), ...sections].join("\n");
}

/** The same for a document. */
export function reportMarkdown(report: ProfileReport): string {
  const head = reportHead(report).map(([name, text]) => `- ${name}: ${text}\n`).join("");
  const sections = sectionTables(report).map(({ section: { test, what }, tables }) =>
    [`### ${test}: ${what}\n`, ...tables.map(markdownTable)].join("\n")
  );
  return [head, markdownTable(summaryRows(report)), ...sections].join("\n");
}

/** One line for each kernel and part, in plain numbers: milliseconds, FLOPs and bytes of one piece of work. */
export function reportCsv(report: ProfileReport): string {
  const lines: string[][] = [
    ["model", "test", "kind", "name", "calls", "milliseconds", "share", "flops", "bytes", "of_ceiling"],
  ];
  for (const { test, profile: { gpu, wallMilliseconds } } of reportSections(report)) {
    const add = (kind: string, name: string, { calls, milliseconds, share, reached }: ReportRow): void => {
      const work = reached ? [reached.flops, reached.bytes, reached.ofCeiling] : ["", "", ""];
      lines.push([report.model, test, kind, name, ...[calls, milliseconds, share, ...work].map(String)]);
    };
    const { ceilings } = report;
    add("wall", "", { calls: 1, milliseconds: wallMilliseconds, share: 1, reached: null });
    for (const kernel of gpu?.kernels ?? []) {
      add("kernel", kernel.label, reportRow(kernel, { wallMilliseconds, ceilings }));
    }
    for (const part of gpu?.parts ?? []) {
      add("part", part.part, reportRow(part, { wallMilliseconds, ceilings }));
    }
  }
  return lines.map((line) => `${line.map(csvField).join(",")}\n`).join("");
}

function markdownTable(rows: Rows): string {
  const [head, ...body] = rows;
  const rule = head!.map((_, column) => column === 0 ? "---" : "---:");
  return [head!, rule, ...body].map((row) => `| ${row.join(" | ")} |\n`).join("");
}

/** A field of RFC 4180. */
function csvField(text: string): string {
  return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
}

function timeCells({ calls, milliseconds, share }: ReportRow): string[] {
  return [String(calls), milliseconds.toFixed(3), percent(share)];
}

function rateCells({ reached }: ReportRow): string[] {
  if (!reached) return RATES.map(() => "");
  const { gflopsPerSecond, gigabytesPerSecond, ofCeiling } = reached;
  return [gflopsPerSecond.toFixed(1), gigabytesPerSecond.toFixed(1), percent(ofCeiling)];
}

function spread(samples: readonly number[], digits: number): string {
  return `${mean(samples).toFixed(digits)} ± ${standardDeviation(samples).toFixed(digits)}`;
}

function percent(part: number): string {
  return `${(100 * part).toFixed(1)} %`;
}

function rate(perSecond: number): string {
  return (perSecond / 1e9).toFixed(1);
}
