/** Models of the authors' PyTorch code under our names again: exact, or refused. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { authorsProblem } from "../../../model/exchange/authors_config.ts";
import { authorsLayout } from "../../../model/exchange/authors_layout.ts";
import type { ModelConfig } from "../../../model/config.ts";
import { importAuthorsWeights, isAuthorsLayout } from "../../../model/exchange/import_authors.ts";
import { CheckpointError } from "../../../model/files/safetensors.ts";
import { tinyConfig } from "../../reference/tiny_model.ts";
import { authorsCases, EXPORT_SEED as seed } from "../../support/export_cases.ts";
import {
  contentOf,
  type MemoryWeight,
  memoryWeightFile,
  seededWeights,
} from "../../support/memory_weights.ts";
import { createRandom } from "../../support/random.ts";
import { randomConfig } from "../../support/random_config.ts";

/** How many names each weight is stored under: all, or one, counted from the first name on. */
type Copies = "all" | number;

/** A file of that code; f16 unless told, so that formats show. */
function theirWeights(config: ModelConfig, copies: Copies = "all"): Map<string, MemoryWeight> {
  const weights = seededWeights(config, { seed, format: "f16" });
  return new Map(
    authorsLayout(config).flatMap(({ spec, names }) => {
      const stored = copies === "all" ? names : [names[copies % names.length]!];
      return stored.map((name) => [name, weights.get(spec.name)!] as const);
    }),
  );
}

for (const [name, config] of Object.entries(authorsCases)) {
  Deno.test(`importAuthorsWeights gives every weight bit for bit, from all copies or any one: ${name}`, async () => {
    for (const copies of ["all", 0, 1, 2] as const) {
      const file = await importAuthorsWeights(memoryWeightFile(theirWeights(config, copies)), config);
      assertEquals(await contentOf(file), seededWeights(config, { seed, format: "f16" }));
    }
    assert(isAuthorsLayout(memoryWeightFile(theirWeights(config)), config));
    assert(!isAuthorsLayout(memoryWeightFile(seededWeights(config, { seed })), config));
  });
}

Deno.test("any model that the code has comes back exactly, and no two weights have a name in common", async () => {
  const random = createRandom(8);
  const seen = new Set<string>();
  for (let i = 0; i < 150; i++) {
    const config = randomConfig(random);
    if (authorsProblem(config)) continue;
    seen.add(`${config.recursion!.sharing} ${config.router?.kind}`);
    const names = authorsLayout(config).flatMap(({ names }) => names);
    assertEquals(new Set(names).size, names.length);
    const file = await importAuthorsWeights(memoryWeightFile(theirWeights(config, i)), config);
    assertEquals(await contentOf(file), seededWeights(config, { seed, format: "f16" }));
  }
  assertEquals([...seen].sort(), [
    "cycle expert_choice",
    "cycle undefined",
    "middle_cycle expert_choice",
    "middle_cycle token_choice",
    "middle_cycle undefined",
    "middle_sequence undefined",
    "sequence undefined",
  ]);
});

Deno.test("isAuthorsLayout knows a router's modules even without a configuration of them", () => {
  const file = memoryWeightFile(theirWeights(authorsCases.token_choice!, 1));
  assert(isAuthorsLayout(file, tinyConfig()));
  assert(!isAuthorsLayout(memoryWeightFile(seededWeights(tinyConfig(), { seed })), tinyConfig()));
});

Deno.test("rows are read under their names, and the file is closed with the result", async () => {
  const config = authorsCases.expert_choice!;
  let closed = 0;
  const raw = { ...memoryWeightFile(theirWeights(config)), [Symbol.dispose]: () => void closed++ };
  const name = "model.layers.1.mlp.up_proj.weight";
  const wanted = seededWeights(config, { seed, format: "f16" }).get(name)!.bytes.subarray(16, 48);
  {
    using file = await importAuthorsWeights(raw, config);
    assertEquals(await file.readRows(name, { start: 1, count: 2 }), wanted);
  }
  assertEquals(closed, 1);
});

Deno.test("a file that does not hold the model is refused with what is wrong", async () => {
  const config = authorsCases.expert_choice!;
  async function refusal(change: (weights: Map<string, MemoryWeight>) => void): Promise<string> {
    const weights = theirWeights(config);
    change(weights);
    const file = memoryWeightFile(weights, "some/file");
    return (await assertRejects(() => importAuthorsWeights(file, config), CheckpointError)).message;
  }
  const router = "model.layers.2.mor_router.router.weight";
  assertEquals(
    await refusal((weights) => weights.delete(router)),
    `Cannot load some/file: tensor "${router}" is missing`,
  );
  const [first, copy] = [1, 3].map((layer) => `model.layers.${layer}.block.1.self_attn.q_proj.weight`);
  assertEquals(
    await refusal((weights) => {
      const weight = weights.get(copy!)!;
      weights.set(copy!, { ...weight, bytes: weight.bytes.map((byte, i) => i === 77 ? byte ^ 1 : byte) });
    }),
    `Cannot load some/file: tensors "${first}" and "${copy}" differ, but the model shares them; ` +
      "that code shares the attention of expert choice only from commit 82c97f2 on",
  );
  const embedding = "model.embed_tokens.weight";
  assertEquals(
    await refusal((weights) => weights.set("lm_head.weight", { ...weights.get(embedding)!, format: "bf16" })),
    `Cannot load some/file: tensors "${embedding}" and "lm_head.weight" differ, but the model shares them; ` +
      "set tie_word_embeddings to false in config.json",
  );
  assertEquals(
    await refusal((weights) => weights.set(copy!, { ...weights.get(copy!)!, shape: [4, 16] })),
    `Cannot load some/file: tensor "${copy}" has shape (4, 16), expected (8, 8) as the configuration says`,
  );
  assertEquals(
    await refusal((weights) => weights.set("model.layers.1.lora.weight", weights.get(copy!)!)),
    'Cannot load some/file: tensor "model.layers.1.lora.weight" is not part of the model that config.json describes',
  );
  await assertRejects(
    () => importAuthorsWeights(memoryWeightFile(theirWeights(config), "some/file"), tinyConfig()),
    CheckpointError,
    "config.json has no recursion; add the fields recursion, router and kv_cache",
  );
});
