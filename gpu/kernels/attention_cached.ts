import attentionCachedCode from "./attention_cached.wgsl" with { type: "text" };
import attentionCachedLanesCode from "./attention_cached_lanes.wgsl" with { type: "text" };
import attentionCachedLanesSubgroupsCode from "./attention_cached_lanes_subgroups.wgsl" with { type: "text" };
import rowReduceCode from "./row_reduce.wgsl" with { type: "text" };
import rowReduceSubgroupsCode from "./row_reduce_subgroups.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import type { GpuDevice } from "../device.ts";
import { defineKernel, type Kernel } from "../kernel.ts";
import type { Packing } from "../packing.ts";
import { rowGrid } from "../rows.ts";
import { checkShape, type Tensor } from "../tensor.ts";
import { CACHE_PAGES, PAGE_ROWS, type PagedKeys } from "./cache_pages.ts";
import {
  attentionCost,
  type AttentionHeads,
  headConstants,
  KV_PARTS,
  type KvDtype,
  kvDtypeOf,
} from "./attention_heads.ts";
import { hasSubgroupsOfEight, MAX_LOOP_TURNS } from "./row_lanes.ts";

const SEPARATE = kvVariants({
  "attention_cached_lanes.wgsl": attentionCachedLanesCode,
  "row_reduce.wgsl": rowReduceCode,
});

const SUBGROUPS = kvVariants({
  "attention_cached_lanes_subgroups.wgsl": attentionCachedLanesSubgroupsCode,
  "row_reduce_subgroups.wgsl": rowReduceSubgroupsCode,
});

/** The kernel with these parts for either form of keys and values. */
function kvVariants(parts: Readonly<Record<string, string>>): Record<KvDtype, Kernel> {
  const define = (dtype: KvDtype): Kernel =>
    defineKernel("attention_cached.wgsl", attentionCachedCode, {
      ...parts,
      ...CACHE_PAGES,
      ...KV_PARTS[dtype],
    });
  return { f32: define("f32"), f16: define("f16") };
}

/** Ways to share a row's keys, by the name that `device.tuning` has for them. */
export const CACHED_VARIANTS = {
  /** Lanes of one vector that exchange what they have read, while there are eight. */
  subgroup: { loads: SUBGROUPS, lanes: 8 },
  lanes_8: { loads: SEPARATE, lanes: 8 },
  lanes_64: { loads: SEPARATE, lanes: 64 },
  lanes_256: { loads: SEPARATE, lanes: 256 },
} as const satisfies Readonly<Record<string, CachedVariant>>;

export type CachedVariantName = keyof typeof CACHED_VARIANTS;

/** Whether an adapter can run a variant at all. */
export function canAttendToCache(device: GpuDevice, name: CachedVariantName): boolean {
  if (name === "subgroup") return hasSubgroupsOfEight(device);
  return CACHED_VARIANTS[name].lanes <= device.limits.maxComputeInvocationsPerWorkgroup;
}

/** How keys and values are read, and the fewest lanes that share them. */
interface CachedVariant {
  readonly loads: Record<KvDtype, Kernel>;
  readonly lanes: number;
}

/** Rows of one text up to which this is used instead of `attention`, whose blocks have 32 rows. */
export const MAX_CACHED_ROWS = 16;

/** The heads, and how far a row sees. */
export interface AttentionCachedSettings extends AttentionHeads {
  /** Most keys that a row sees; as many as its table has places for unless told. */
  readonly longest?: number;
}

/**
 * Records attention of every packed row to a text's entries in a cache: 0 to w of the table that begins at place z
 * of the cache's pages, z and w being the last two of its record. Key/value head g serves the query heads g * H / G to (g + 1) * H / G - 1.
 *
 * q (rows, at least H * D), head h at column h * D; the cache's pool (pool rows, ...) as `layout` says; out
 * (rows, H * D). All f32, the pool also f16 (see `KvDtype`). A row's result does not depend on the others, nor on where
 * the pages lie, bit for bit.
 *
 * @throws TypeError for a shape that does not fit; RangeError for a size that is not a multiple of 4, heads that do not
 * divide or more keys than an invocation can loop over.
 */
export function attentionCached(
  commands: Commands,
  { q, cache, packing, out }: { q: Tensor; cache: PagedKeys; packing: Packing; out: Tensor },
  settings: AttentionCachedSettings,
): void {
  const { rows, records } = packing;
  const { pool: kv, pages } = cache;
  const { heads, headDim, longest = pages.shape[1]! * PAGE_ROWS } = settings;
  const shape = headConstants("attentionCached", { q, kv, settings });
  checkShape("attentionCached", {
    q: [q, [rows.maximum, q.shape.at(-1)!]],
    packing: [records, [rows.maximum, 4]],
    out: [out, [rows.maximum, heads * headDim]],
  });
  const { loads, lanes: fewest } = CACHED_VARIANTS[commands.device.tuning.attentionCached];
  const lanes = keyLanes({ fewest, headDim, longest });
  commands.dispatch((lanes.LANES === fewest ? loads : SEPARATE)[kvDtypeOf(kv)], {
    entryPoint: "forward",
    tensors: { rows: rows.count, packing: records, pages, q, kv, out },
    constants: { ...shape, PAGE_ROWS, ROWS: 1, ...lanes },
    grid: rowGrid(rows, { unitsPerGroup: 1, z: heads }),
    cost: attentionCost({ kv, packing }, settings, { sees: "cache", products: 2, queryRows: 2, keyRows: 2 }),
  });
}

/** Counts of lanes: vectors of a software adapter, two vectors or more of others. */
const LANE_COUNTS = [8, 64, 256] as const;

/**
 * Constants LANES and SLICES for rows of up to `longest` keys: the fewest lanes, or more where the keys would take an
 * invocation past the loop limit. Lanes share the scores among them, and slices the sums, so that one dispatch does
 * without state between windows of keys.
 *
 * @throws RangeError for more keys than 256 lanes reach.
 */
function keyLanes(
  { fewest, headDim, longest }: { fewest: number; headDim: number; longest: number },
): { LANES: number; SLICES: number } {
  const width = headDim / 4;
  let most = 0;
  for (const lanes of LANE_COUNTS.filter((count) => count >= fewest)) {
    const slices = 2 ** Math.max(0, Math.floor(Math.log2(lanes / width)));
    const blocks = Math.ceil(width * slices / lanes);
    // The scores, the maximum and the sums of a tile. A loop's last check is a turn, too, and passes its inner loops.
    const turns = 1 + (width + 2 * Math.ceil(width / 8) + 2) + (Math.log2(lanes) + 1) +
      (blocks * (lanes / slices + 2) + 2);
    most = 4 * lanes * Math.floor(MAX_LOOP_TURNS / turns);
    if (longest <= most) return { LANES: lanes, SLICES: slices };
  }
  throw new RangeError(
    `Cannot record attentionCached: rows that see ${longest} keys, at most ${most} with heads of ${headDim}`,
  );
}
