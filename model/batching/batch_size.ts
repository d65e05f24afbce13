/** How large a batch is made for given requests, where nobody says so. */
import type { KvDtype } from "../../gpu/kernels/attention_heads.ts";
import type { ModelConfig } from "../config.ts";
import type { BatchShape } from "./batch_device.ts";
import { batchParts } from "./batch_parts.ts";
import type { BatchPrompt } from "./batch_prompt.ts";
import { expectedPages, mostPages } from "./page_demand.ts";
import { pageBytes } from "./page_store.ts";

/**
 * Texts in slots for each row of the block: one that recurs, one that waits until enough leave with it, and a half for
 * those whose end the host has not read yet.
 */
const SLOTS_PER_ROW = 2.5;

/** Part of the free memory that keys and values may take. */
const MEMORY_SHARE = 0.7;

/** A batch for requests: no more rows and slots than there are texts, and keys and values for all that run at a time. */
export function batchSize(
  config: ModelConfig,
  { requests, rows, kvDtype, kvBytes, available }: {
    requests: readonly BatchPrompt[];
    /** Most rows of the block. */
    rows: number;
    kvDtype: KvDtype;
    /** For keys and values; null for as much as the texts that run at a time are expected to need. */
    kvBytes: number | null;
    /** Bytes of memory that are free. */
    available: number;
  },
): Pick<BatchShape, "rows" | "slots" | "capacity" | "kvDtype" | "kvBytes"> {
  const tokens = requests.map(({ prompt, count }) => prompt.length + Math.max(count, 1) - 1);
  const used = Math.max(1, Math.min(rows, tokens.length));
  const slots = Math.min(Math.ceil(SLOTS_PER_ROW * used), Math.max(1, tokens.length));
  const capacity = tokens.reduce((most, count) => Math.max(most, count), 1);
  const model = { config, parts: batchParts(config) };
  const mean = Math.ceil(tokens.reduce((sum, count) => sum + count, 0) / Math.max(1, tokens.length));
  const [expected, longest] = [
    expectedPages(model, { tokens: mean, banks: 1 })[0]! * slots,
    mostPages(model, { tokens: capacity, banks: 1 })[0]!,
  ];
  // Banks share pages out unevenly, so that the longest text needs some more than its own.
  const wanted = Math.max(expected, 2 * longest) * pageBytes(config, kvDtype);
  return {
    rows: used,
    slots,
    capacity,
    kvDtype,
    kvBytes: kvBytes ?? Math.min(wanted, Math.floor(MEMORY_SHARE * available)),
  };
}
