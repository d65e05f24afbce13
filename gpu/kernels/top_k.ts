import topKCode from "./top_k.wgsl" with { type: "text" };
import workgroupScanCode from "./workgroup_scan.wgsl" with { type: "text" };
import type { Commands } from "../commands.ts";
import { defineKernel } from "../kernel.ts";
import type { Packing } from "../packing.ts";
import { checkShape, type Tensor } from "../tensor.ts";
import { MAX_LOOP_TURNS } from "./row_lanes.ts";

const TOP_K = defineKernel("top_k.wgsl", topKCode, { "workgroup_scan.wgsl": workgroupScanCode });

/** Times that an invocation goes over its candidates: four digits, counting, writing. */
const TURNS_PER_CANDIDATE = 6;

/** Loop turns of an invocation that do not depend on the candidates, rounded up. */
const FIXED_TURNS = 1000;

/**
 * Records expert choice: of each sequence's n candidates the k with the largest logit, ties to the lower index, in
 * ascending order. A NaN ranks beyond the infinity of its sign.
 *
 * logits (B * n) f32; candidates (B * n, 4) u32. Overwritten: chosen (B * k) u32, indices into logits; labels (B * n)
 * f32, 1 where kept and 0 elsewhere; packing (B * k, 4) u32, the kept candidates.
 *
 * @throws RangeError for k outside 1..n, or more candidates than one workgroup can loop over.
 */
export function topK(
  commands: Commands,
  { logits, candidates, chosen, labels, packing }: {
    logits: Tensor;
    candidates: Packing;
    chosen: Tensor;
    labels: Tensor;
    packing: Packing;
  },
  { sequences, candidatesPerSequence, kept }: {
    sequences: number;
    candidatesPerSequence: number;
    kept: number;
  },
): void {
  if (!(kept >= 1 && kept <= candidatesPerSequence)) {
    throw new RangeError(`Cannot record topK: ${kept} of ${candidatesPerSequence} candidates cannot be kept`);
  }
  checkShape("topK", {
    logits: [logits, [sequences * candidatesPerSequence]],
    candidates: [candidates.records, [sequences * candidatesPerSequence, 4]],
    chosen: [chosen, [sequences * kept]],
    labels: [labels, [sequences * candidatesPerSequence]],
    packing: [packing.records, [sequences * kept, 4]],
  });
  // A software adapter pays for each vector of invocations at each barrier.
  const width = commands.device.info.isSoftware ? 64 : 256;
  const most = Math.floor((MAX_LOOP_TURNS - FIXED_TURNS) / TURNS_PER_CANDIDATE) * width;
  if (candidatesPerSequence > most) {
    throw new RangeError(
      `Cannot choose among ${candidatesPerSequence} tokens of a sequence in one dispatch, at most ${most}; ` +
        "lower --sequence-length",
    );
  }
  commands.dispatch(TOP_K, {
    entryPoint: "top_k",
    tensors: { logits, candidates: candidates.records, chosen, labels, packing: packing.records },
    settings: { candidates: candidatesPerSequence, kept },
    constants: { WIDTH: width },
    grid: [sequences, 1, 1],
  });
}
