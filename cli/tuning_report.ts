/** Choices of kernels and their measurement, for people and for programs. */
import type { CaseReport } from "../gpu/tuning/measure.ts";
import type { Tuning } from "../gpu/tuning/tuning.ts";
import { table } from "./table.ts";

/** What the choices are for. */
const NAMES: Readonly<Record<keyof Tuning, string>> = {
  matmul: "products",
  matmulFewRows: "products of up to 128 rows",
  matmulGradient: "gradients of weights",
  matmulVector: "products of very few rows",
  matmulPanel: "the same, packed weights",
  vectorRows: "very few rows",
  attention: "attention",
  attentionCached: "attention to a cache",
};

/** A candidate as it is shown. */
function candidateText(candidate: Tuning[keyof Tuning]): string {
  return typeof candidate === "number" ? `up to ${candidate}` : candidate;
}

/** Rows of name and value. */
export function tuningRows(tuning: Tuning): [name: string, value: string][] {
  return (Object.keys(NAMES) as (keyof Tuning)[]).map((
    choice,
  ) => [NAMES[choice], candidateText(tuning[choice])]);
}

/** Times and speeds of all candidates, choice by choice. */
export function casesText(cases: readonly CaseReport[]): string {
  const all = cases.flatMap(({ trials }) => trials);
  const firstWidth = Math.max(...all.map(({ candidate }) => candidateText(candidate).length));
  return cases.map(({ choice, work, flops, trials, chosen }) => {
    const rows = trials.map(({ candidate, milliseconds, note }) => [
      candidateText(candidate),
      ...(milliseconds === null ? ["", ""] : [
        `${milliseconds.toPrecision(3)} ms`.padStart(9),
        `${(flops / milliseconds / 1e6).toPrecision(3)} GFLOP/s`.padStart(13),
      ]),
      candidate === chosen ? "chosen" : note ?? "",
    ]);
    return `${NAMES[choice]}: ${work}\n${table(rows, { indent: 2, firstWidth })}`;
  }).join("");
}

/** The same for `--json`. */
export function casesJson(cases: readonly CaseReport[]): unknown {
  return cases.flatMap(({ choice, work, flops, trials, chosen }) =>
    trials.map(({ candidate, milliseconds, note }) => ({
      choice,
      work,
      candidate,
      milliseconds,
      gflopsPerSecond: milliseconds === null ? null : flops / milliseconds / 1e6,
      chosen: candidate === chosen,
      note,
    }))
  );
}
