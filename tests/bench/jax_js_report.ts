/** Shows what a comparison with jax-js found. */
import { table } from "../../cli/table.ts";
import { toSnakeCase } from "../../model/snake_case.ts";
import { type Result, TOLERANCE } from "./jax_js_agreement.ts";
import type { JaxInfo } from "./jax_js_worker.ts";
import { median, print, range } from "./report.ts";

/** What was compared. */
export interface Comparison {
  /** Of this program. */
  readonly adapter: string;
  readonly jax: JaxInfo;
  /** A training step in words. */
  readonly work: string;
  /** FLOPs of a step, and its tokens. */
  readonly flops: number;
  readonly tokens: number;
  /** This program, then jax-js by its backends. */
  readonly results: readonly Result[];
}

/** Prints it as text. */
export function printComparison({ adapter, jax, work, flops, tokens, results }: Comparison): void {
  const [own, ...others] = results as [Result, ...Result[]];
  const webgpu = jax.adapter === null ? "" : `, webgpu on ${jax.adapter}`;
  print(`ours on ${adapter}`);
  print(`jax-js ${jax.version} in Deno ${jax.deno}: wasm with ${jax.threads} threads${webgpu}`);
  print(`training step: ${work}, ${(flops / 1e9).toFixed(1)} GFLOP`);
  if (jax.adapter !== null) {
    print("jax-js webgpu takes the embedding's rows by a product, as Deno refuses its shader for scattering");
  }
  print("");
  print(table([
    ["loss, gradient norm", ...results.map(({ name }) => name)],
    ...own.losses.map((_, i) => [
      `step ${i + 1}`,
      ...results.map(({ losses, gradientNorms }) =>
        `${losses[i]!.toFixed(5)}, ${gradientNorms[i]!.toFixed(5)}`
      ),
    ]),
    [
      `largest difference, at most ${TOLERANCE}`,
      ...results.map(({ largestDifference }) => largestDifference.toExponential(1)),
    ],
  ]));
  print(`tokens/s, median of ${own.tokensPerSecond.length} in turn (range)`);
  for (const { name, tokensPerSecond } of results) {
    const rate = flops * median(tokensPerSecond) / tokens / 1e9;
    print(`  ${name.padEnd(24)} ${range(tokensPerSecond, 0).padEnd(24)} ${rate.toFixed(1)} GFLOP/s`);
  }
  for (const { name, firstOverThis } of others) {
    print(`  ${`ours / ${name}`.padEnd(24)} ${range(firstOverThis, 3)}, pair by pair`);
  }
}

/** Prints it as one JSON object. */
export function printComparisonJson({ jax, results, ...facts }: Comparison): void {
  print(JSON.stringify({
    ...facts,
    jax_js: jax.version,
    deno: jax.deno,
    threads: jax.threads,
    webgpu_adapter: jax.adapter,
    tolerance: TOLERANCE,
    results: results.map(toSnakeCase),
  }));
}
