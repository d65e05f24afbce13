/** What `mor profile` found as one HTML page with its pictures in it: a roofline and a timeline for each kind of work. */
/// <reference lib="dom" />
import * as Plot from "@observablehq/plot";
import { parseHTML } from "linkedom";
import type { Ceilings } from "../gpu/ceilings.ts";
import { type ProfileReport, reportRow, type ReportSection } from "./profile_report.ts";
import { reportHead, type Rows, sectionTables, summaryRows } from "./profile_tables.ts";
import { partSpans } from "./profile_trace.ts";

const WIDTH = 960;

/** Kernels that take less of the time have no name in a roofline. */
const NAMED_SHARE = 0.02;

/** Intensities that a roofline shows at least, FLOPs per byte. */
const INTENSITIES = [0.05, 500] as const;

const STYLE =
  `body { font: 15px/1.5 system-ui, sans-serif; max-width: ${WIDTH}px; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse; margin: 1em 0 }
th, td { padding: 0.1em 0.8em; text-align: right; border-bottom: 1px solid #ddd; font-variant-numeric: tabular-nums }
th:first-child, td:first-child { text-align: left }
figure { margin: 1em 0 }`;

/** The page; it loads nothing. */
export function reportHtml(report: ProfileReport): string {
  const { document } = parseHTML("<!doctype html><html><head></head><body></body></html>");
  const head = element(document, "head");
  head.append(
    // The text of these two goes into the page as it is.
    withText(document, "title", "mor profile"),
    withText(document, "style", STYLE),
  );
  document.documentElement.setAttribute("lang", "en");
  const meta = document.createElement("meta");
  meta.setAttribute("charset", "utf-8");
  head.prepend(meta);
  const body = element(document, "body");
  body.append(withText(document, "h1", `Profile of ${report.model}`));
  for (const [name, text] of reportHead(report)) body.append(withText(document, "div", `${name}: ${text}`));
  body.append(tableElement(document, summaryRows(report)));
  for (const { section, tables } of sectionTables(report)) {
    body.append(withText(document, "h2", `${section.test}: ${section.what}`));
    if (report.ceilings && section.profile.gpu) {
      body.append(
        figure(document, {
          caption:
            "Roofline: what each kernel reaches, by its arithmetic for each byte; larger dots take longer.",
          picture: roofline(document, { section, ceilings: report.ceilings }),
        }),
        figure(document, {
          caption:
            "Timeline of one repeat: each kernel in a compute pass of its own, in the colour of its part.",
          picture: timeline(document, section),
        }),
      );
    }
    for (const rows of tables) body.append(tableElement(document, rows));
  }
  return `<!doctype html>\n${document.documentElement.outerHTML}\n`;
}

function roofline(
  document: Document,
  { section: { profile: { gpu, wallMilliseconds } }, ceilings }: {
    section: ReportSection;
    ceilings: Ceilings;
  },
): Element {
  const dots = gpu!.kernels.flatMap((kernel) => {
    const { share, reached } = reportRow(kernel, { wallMilliseconds, ceilings });
    if (!reached || reached.flops === 0 || reached.bytes === 0) return [];
    const { flops, bytes, gflopsPerSecond } = reached;
    return [{ name: kernel.label, intensity: flops / bytes, gflops: gflopsPerSecond, share }];
  });
  const ends = dots.map(({ intensity }) => intensity);
  const roof = [
    Math.min(INTENSITIES[0], ...ends),
    ceilings.flopsPerSecond / ceilings.bytesPerSecond,
    Math.max(INTENSITIES[1], ...ends),
  ].map((intensity) => ({
    intensity,
    gflops: Math.min(ceilings.flopsPerSecond, intensity * ceilings.bytesPerSecond) / 1e9,
  }));
  return Plot.plot({
    document,
    width: WIDTH,
    height: 420,
    grid: true,
    marginRight: 150,
    x: { type: "log", label: "FLOPs per byte", tickFormat: "~g" },
    y: { type: "log", label: "GFLOP/s", tickFormat: "~g" },
    r: { range: [2, 16] },
    marks: [
      Plot.line(roof, { x: "intensity", y: "gflops", stroke: "#c33", strokeWidth: 2 }),
      Plot.dot(dots, {
        x: "intensity",
        y: "gflops",
        r: "share",
        fill: "#36c",
        fillOpacity: 0.6,
        title: "name",
      }),
      Plot.text(dots.filter(({ share }) => share >= NAMED_SHARE), {
        x: "intensity",
        y: "gflops",
        text: "name",
        dx: 12,
        textAnchor: "start",
      }),
    ],
  });
}

function timeline(document: Document, { profile: { gpu } }: ReportSection): Element {
  const kernels = gpu!.timeline.map(({ label, part, startMilliseconds, milliseconds }) => ({
    row: "kernels",
    name: label,
    part: part || "other",
    start: startMilliseconds,
    end: startMilliseconds + milliseconds,
  }));
  const parts = partSpans(gpu!.timeline).map(({ part, ...span }) => ({
    row: "parts",
    name: part,
    part: part || "other",
    ...span,
  }));
  return Plot.plot({
    document,
    width: WIDTH,
    height: 140,
    marginLeft: 60,
    x: { label: "ms" },
    y: { label: null, domain: ["parts", "kernels"] },
    color: { legend: true, domain: [...new Set(parts.map(({ part }) => part))] },
    marks: [
      Plot.barX([...parts, ...kernels], {
        x1: "start",
        x2: "end",
        y: "row",
        fill: "part",
        title: ({ name, start, end }) => `${name}: ${(end - start).toFixed(3)} ms`,
      }),
    ],
  });
}

function figure(document: Document, { caption, picture }: { caption: string; picture: Element }): Element {
  const element = document.createElement("figure");
  element.append(picture, withText(document, "figcaption", caption));
  return element;
}

function tableElement(document: Document, [head, ...body]: Rows): Element {
  const row = (cells: readonly string[], tag: string): Element => {
    const element = document.createElement("tr");
    element.append(...cells.map((cell) => withText(document, tag, cell)));
    return element;
  };
  const element = document.createElement("table");
  element.append(row(head!, "th"), ...body.map((cells) => row(cells, "td")));
  return element;
}

function withText(document: Document, tag: string, text: string): Element {
  const element = document.createElement(tag);
  element.textContent = text;
  return element;
}

function element(document: Document, tag: string): Element {
  return document.querySelector(tag)!;
}
