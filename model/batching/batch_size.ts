/** How large a batch is made for given requests, where nobody says so. */
import type { GpuDevice } from "../../gpu/device.ts";
import type { KvDtype } from "../../gpu/kernels/attention_heads.ts";
import type { ModelConfig } from "../config.ts";
import type { BatchShape } from "./batch_device.ts";
import { batchParts } from "./batch_parts.ts";
import type { BatchRequest } from "./batch_request.ts";
import { expectedPages, mostPages } from "./page_demand.ts";
import { bindableBytes, pageBytes } from "./page_store.ts";

/**
 * Texts in slots for each row of the block: one that recurs, one that waits until enough leave with it, and a half for
 * those whose end the host has not read yet.
 */
export const SLOTS_PER_ROW = 2.5;

/** Part of the free memory that keys and values may take. */
const MEMORY_SHARE = 0.7;

/** Most bytes for keys and values of several texts unless told: adapters do not say how much memory they have. */
const CEILING = 2 * 2 ** 30;

/**
 * A batch for requests: no more rows and slots than there are texts, and keys and values for all that run at a time, if
 * the adapter has and binds that much.
 */
export function batchSize(
  device: GpuDevice,
  config: ModelConfig,
  { requests, rows, kvDtype, kvBytes }: {
    requests: readonly BatchRequest[];
    /** Most rows of the block. */
    rows: number;
    kvDtype: KvDtype;
    /** For keys and values; null for as much as the texts that run at a time are expected to need. */
    kvBytes: number | null;
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
  const bytesOfPage = pageBytes(config, kvDtype);
  // Banks share pages out unevenly, so that the longest text needs some more than its own.
  const wanted = Math.max(Math.min(expected * bytesOfPage, CEILING), 2 * longest * bytesOfPage);
  const bindable = bindableBytes(device, { ...model, capacity, kvDtype });
  return {
    rows: used,
    slots,
    capacity,
    kvDtype,
    kvBytes: kvBytes ?? Math.min(wanted, bindable, Math.floor(MEMORY_SHARE * device.memory.available)),
  };
}
