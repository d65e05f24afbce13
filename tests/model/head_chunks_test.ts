import { assert, assertEquals, assertThrows } from "@std/assert";
import { MemoryError } from "../../gpu/errors.ts";
import { type Allocator, planAllocator } from "../../gpu/memory.ts";
import { staticRows } from "../../gpu/rows.ts";
import { allocateChunkedLogits, type HeadLogits } from "../../model/head_chunks.ts";
import { paddedVocabSize } from "../../model/parameters.ts";
import { presetConfig } from "../../model/presets.ts";
import { trainingMemory } from "../../model/training.ts";
import { allocateWorkspace } from "../../model/workspace.ts";
import { tinyConfig } from "../reference/tiny_model.ts";
import { createRandom } from "../support/random.ts";

const MIB = 1024 * 1024;

interface Case {
  readonly rows: number;
  readonly vocabSize: number;
  readonly bindingLimit?: number;
  readonly logitRows?: number;
}

/** A plan for an adapter that binds so many bytes. */
function planOf(bindingLimit: number): Allocator {
  return { ...planAllocator(), bindingLimit };
}

function chunksOf({ rows, vocabSize, bindingLimit = 128 * MIB, logitRows }: Case): HeadLogits {
  const plan = planOf(bindingLimit);
  const config = tinyConfig({ vocabSize });
  return allocateChunkedLogits(plan, { config, rows: staticRows(plan, rows), logitRows });
}

function sizes({ headChunks }: HeadLogits): number[] {
  return headChunks.map(({ rows }) => rows.maximum);
}

const cases: readonly { readonly name: string; readonly met: Case; readonly wanted: readonly number[] }[] = [
  { name: "one row", met: { rows: 1, vocabSize: 49_152 }, wanted: [1] },
  // 8,388,608 logits are 32 MiB.
  { name: "logits of just the budget", met: { rows: 1024, vocabSize: 8192 }, wanted: [1024] },
  { name: "one row more", met: { rows: 1025, vocabSize: 8192 }, wanted: [576, 449] },
  { name: "the vocabulary of SmolLM2", met: { rows: 1024, vocabSize: 49_152 }, wanted: Array(8).fill(128) },
  { name: "a last chunk of one row", met: { rows: 129, vocabSize: 100_000 }, wanted: [64, 64, 1] },
  {
    name: "a vocabulary of which 64 rows are over the budget",
    met: { rows: 100, vocabSize: 256_000 },
    wanted: [64, 36],
  },
  { name: "64 rows that no adapter need bind", met: { rows: 70, vocabSize: 1_000_000 }, wanted: [32, 32, 6] },
  {
    name: "64 rows that this adapter binds",
    met: { rows: 70, vocabSize: 1_000_000, bindingLimit: 256 * MIB },
    wanted: [64, 6],
  },
  { name: "a chunk larger than the rows", met: { rows: 5, vocabSize: 11, logitRows: 16 }, wanted: [5] },
  { name: "few rows by choice", met: { rows: 33, vocabSize: 11, logitRows: 16 }, wanted: [16, 16, 1] },
  {
    name: "fewer by choice than can be bound apart",
    met: { rows: 33, vocabSize: 11, logitRows: 3 },
    wanted: [16, 16, 1],
  },
];

for (const { name, met, wanted } of cases) {
  Deno.test(`the head's rows are cut into chunks: ${name}`, () => {
    const head = chunksOf(met);
    assertEquals(sizes(head), wanted);
    assertEquals(head.logits.shape, [Math.max(...wanted), paddedVocabSize(tinyConfig(met))]);
  });
}

Deno.test("chunks hold each row once, start where it can be bound, and keep within what the adapter binds", () => {
  const random = createRandom(111);
  for (let i = 0; i < 500; i++) {
    const met = {
      rows: 1 + random.integer(3000),
      vocabSize: 1 + random.integer(300_000),
      bindingLimit: (20 + random.integer(200)) * MIB,
      ...(i % 2 === 0 && { logitRows: 1 + random.integer(200) }),
    };
    const head = chunksOf(met);
    let end = 0;
    for (const { first, rows } of head.headChunks) {
      assertEquals(first, end, JSON.stringify(met));
      assertEquals(first % 16, 0, JSON.stringify(met));
      assert(rows.maximum > 0 && rows.maximum <= head.logits.shape[0]!, JSON.stringify(met));
      end += rows.maximum;
    }
    assertEquals(end, met.rows, JSON.stringify(met));
    const [rows, columns] = head.logits.shape as [number, number];
    assert(rows * columns * 4 <= met.bindingLimit, JSON.stringify(met));
  }
});

Deno.test("a vocabulary too large for the adapter is refused with both sizes", () => {
  const message =
    "Cannot run the head on 16 rows at once: their logits, 183.1 MiB, are more than the adapter binds, " +
    "128.0 MiB; choose a model with a smaller vocabulary";
  assertThrows(() => chunksOf({ rows: 40, vocabSize: 3_000_000 }), MemoryError, message);
  const [one, limit] = [{ rows: 1, vocabSize: 3_000_000 }, 11 * MIB];
  assertThrows(() => chunksOf({ ...one, bindingLimit: limit }), MemoryError, "on 1 rows at once");
  assertEquals(sizes(chunksOf({ ...one, bindingLimit: 12 * MIB })), [1]);
});

Deno.test("only a head for losses takes its logits in chunks", () => {
  const config = tinyConfig({ vocabSize: 300_000 });
  const shape = { lengths: [60, 60], routing: "causal", backward: false } as const;
  const chunks = (["losses", "all", "one"] as const).map((head) =>
    sizes(allocateWorkspace(planAllocator(), { config, shape: { ...shape, head } }))
  );
  assertEquals(chunks, [[64, 56], [120], [1]]);
});

Deno.test("planned memory of training counts one chunk of logits", () => {
  const config = { ...presetConfig("tiny"), vocabSize: 49_152 };
  const shape = { batchSize: 4, sequenceLength: 256, gradientAccumulation: 1 };
  const [chunked, whole] = [undefined, 1024].map((logitRows) =>
    trainingMemory({ config, shape, evaluationSequences: 4, logitRows }).peak
  );
  // Training and evaluation have logits of 128 rows instead of 1,024, and a row count of 16 bytes for each of 8 chunks.
  assertEquals(whole! - chunked!, 2 * ((1024 - 128) * 49_152 * 4 - 8 * 16));
});
