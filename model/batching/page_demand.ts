/** Pages that texts need: at most, as expected, and at the time when texts that run together need most. */
import { PAGE_ROWS, pagesFor } from "../../gpu/kernels/cache_pages.ts";
import { type ModelConfig, stepFractions } from "../config.ts";
import type { BatchParts } from "./batch_parts.ts";

/** A model whose layers have entries in pages; layer u of them in bank u modulo the number of banks. */
interface CachedModel {
  readonly config: ModelConfig;
  readonly parts: BatchParts;
}

/** Layers of a part, from the `first` cached one on, by the bank that has their pages. */
function layersByBank({ first, count }: { first: number; count: number }, banks: number): number[] {
  const layers = new Array<number>(banks).fill(0);
  for (let layer = first; layer < first + count; layer++) layers[layer % banks]!++;
  return layers;
}

/**
 * Cached layers of the block and of the ends in each bank; parts of the tokens, as configured, that have entries in the
 * block's layers: of each step that makes its own.
 */
function layerCounts(
  { config, parts: { entry, block, exit, steps } }: CachedModel,
  banks: number,
): { block: number[]; ends: number[]; fractions: readonly number[] } {
  return {
    block: layersByBank({ first: 0, count: block.length }, banks),
    ends: layersByBank({ first: block.length, count: entry.length + exit.length }, banks),
    fractions: config.kvCache === "shared" || steps === 1 ? [1] : stepFractions(config),
  };
}

/** Most pages that the entries of a text's tokens take in each bank: every token at full depth. */
export function mostPages(
  model: CachedModel,
  { tokens, banks }: { tokens: number; banks: number },
): number[] {
  const { block, ends, fractions } = layerCounts(model, banks);
  return block.map((layers, bank) => pagesFor(tokens) * (fractions.length * layers + ends[bank]!));
}

/** Pages that a text takes in each bank when its tokens run the recursion's steps in the fractions configured. */
export function expectedPages(
  model: CachedModel,
  { tokens, banks }: { tokens: number; banks: number },
): number[] {
  const { block, ends, fractions } = layerCounts(model, banks);
  const blockPages = fractions.reduce((sum, fraction) => sum + pagesFor(Math.ceil(tokens * fraction)), 0);
  return block.map((layers, bank) => blockPages * layers + pagesFor(tokens) * ends[bank]!);
}

/** A text in a slot: tokens that it has now, and those that it is expected to draw yet. */
export interface GrowingText {
  readonly tokens: number;
  readonly remaining: number;
}

/**
 * Most pages that texts need in each bank at any time from now on, if they grow at one pace and each gives back its own
 * when it ends: just before the text with the i-th most tokens remaining, r_i, ends, those with more have r_i more tokens
 * each, and the others have ended. Every token costs `depth` of what is configured.
 */
export function peakPages(
  model: CachedModel,
  texts: readonly GrowingText[],
  { banks, depth = 1 }: { banks: number; depth?: number },
): number[] {
  const { block, ends, fractions } = layerCounts(model, banks);
  const runs = fractions.reduce((sum, fraction) => sum + fraction, 0);
  const longestFirst = texts.toSorted((a, b) => b.remaining - a.remaining);
  return block.map((layers, bank) => {
    const perToken = depth * (runs * layers + ends[bank]!) / PAGE_ROWS;
    // Every table's last page is half full on average.
    const perText = (fractions.length * layers + ends[bank]!) / 2;
    let [peak, tokens] = [0, 0];
    longestFirst.forEach((text, i) => {
      tokens += text.tokens;
      peak = Math.max(peak, perToken * (tokens + (i + 1) * text.remaining) + perText * (i + 1));
    });
    return peak;
  });
}
