/** Attention whose variants are compared. */
import type { GpuDevice } from "../device.ts";
import { attention, attentionBackward } from "../kernels/attention.ts";
import { canAttend } from "../kernels/attention_variants.ts";
import { attentionCached, canAttendToCache } from "../kernels/attention_cached.ts";
import { fusedLayout } from "../kernels/attention_heads.ts";
import { PAGE_ROWS, pagesFor } from "../kernels/cache_pages.ts";
import { fullPacking } from "../packing.ts";
import { staticRows } from "../rows.ts";
import { createTensor, type Tensor, tensorFrom } from "../tensor.ts";
import { candidatesOf, type TuningCase } from "./cases.ts";
import { randomTensor } from "./random_tensors.ts";

/** Attention of a training step with its gradients, and of decoding. */
export function attentionCases(device: GpuDevice): TuningCase[] {
  return [attentionCase(device), attentionCachedCase(device)];
}

function attentionCase(device: GpuDevice): TuningCase {
  const { isSoftware } = device.info;
  const [sequences, tokens, heads, headDim] = isSoftware
    ? [1, 128, 2, 64] as const
    : [4, 512, 8, 64] as const;
  return {
    choice: "attention",
    work: `${sequences} x ${tokens} tokens, ${heads} heads of ${headDim}, and gradients`,
    candidates: candidatesOf(device, {
      choice: "attention",
      software: ["subgroup", "lanes_8"],
      hardware: ["lanes_32", "lanes_64"],
      canRun: (name) => canAttend(device, name),
    }),
    prepare: (scope) => {
      const packing = fullPacking(scope, Array.from({ length: sequences }, () => tokens));
      const settings = { heads, kvHeads: heads, headDim, longest: tokens };
      const count = sequences * tokens;
      const width = heads * headDim;
      const tensor = (label: string, columns: number): Tensor =>
        createTensor(scope, { shape: [count, columns], label });
      const qkv = randomTensor(scope, [count, 3 * width], 1);
      const gradOut = randomTensor(scope, [count, width], 2);
      const [out, gradQkv] = [tensor("attended", width), tensor("gradient", 3 * width)];
      const tensors = { q: qkv, kv: qkv, packing, out, logSumExp: tensor("log-sum-exp", heads) };
      const delta = tensor("delta", heads);
      const withLayout = { ...settings, layout: fusedLayout(settings) };
      return {
        record(commands): void {
          attention(commands, tensors, withLayout);
          attentionBackward(
            commands,
            { ...tensors, gradOut, gradQ: gradQkv, gradKv: gradQkv, delta },
            withLayout,
          );
        },
        outputs: [out, gradQkv],
        // Nine products: two forward, seven backward.
        flops: 2 * 9 * width * sequences * tokens * (tokens + 1) / 2,
      };
    },
  };
}

function attentionCachedCase(device: GpuDevice): TuningCase {
  const { isSoftware } = device.info;
  const [texts, entries, heads, headDim] = isSoftware ? [1, 512, 4, 64] as const : [4, 1024, 8, 64] as const;
  return {
    choice: "attentionCached",
    work: `${texts} rows that see ${entries} keys each, ${heads} heads of ${headDim}`,
    candidates: candidatesOf(device, {
      choice: "attentionCached",
      software: ["subgroup", "lanes_8"],
      hardware: ["lanes_64", "lanes_256"],
      canRun: (name) => canAttendToCache(device, name),
    }),
    prepare: (scope) => {
      const width = heads * headDim;
      const tableLength = pagesFor(entries);
      const count = texts * tableLength;
      const pages = tensorFrom(scope, {
        data: Uint32Array.from({ length: count }, (_, page) => page),
        shape: [texts, tableLength],
        label: "pages",
      });
      const records = tensorFrom(scope, {
        data: Uint32Array.from(
          Array.from({ length: texts }, (_, text) => [text, entries - 1, text * tableLength, entries - 1])
            .flat(),
        ),
        shape: [texts, 4],
        label: "packing",
      });
      const cache = { pool: randomTensor(scope, [count * PAGE_ROWS, 2 * width], 1), pages };
      const packing = { rows: staticRows(scope, texts), records };
      const q = randomTensor(scope, [texts, width], 2);
      const out = createTensor(scope, { shape: [texts, width], label: "attended" });
      const settings = { heads, kvHeads: heads, headDim, layout: { kOffset: 0, vOffset: width } };
      return {
        record: (commands) => attentionCached(commands, { q, cache, packing, out }, settings),
        outputs: [out],
        flops: 2 * 2 * width * texts * entries,
      };
    },
  };
}
