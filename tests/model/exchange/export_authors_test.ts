/** Folders for the authors' PyTorch code. */
import { join } from "@std/path";
import { assert, assertEquals, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { authorsProblem, authorsSettings, yamlText } from "../../../model/exchange/authors_config.ts";
import { authorsLayout } from "../../../model/exchange/authors_layout.ts";
import { readConfig } from "../../../model/files/checkpoint.ts";
import { ConfigError, type RecursionConfig, type RouterConfig } from "../../../model/config.ts";
import { exportAuthors } from "../../../model/exchange/export_authors.ts";
import { tinyConfig, tinyRecursiveConfig, tinyRouter, tinyTokenRouter } from "../../reference/tiny_model.ts";
import { authorsCases, EXPORT_SEED as seed } from "../../support/export_cases.ts";
import { readTensors } from "../../support/golden.ts";
import { memoryWeightFile, seededNumbers, seededWeights } from "../../support/memory_weights.ts";
import { folderTest } from "../../support/program.ts";

const middleCycle: RecursionConfig = { sharing: "middle_cycle", numRecursions: 2, blockLayers: 1 };

for (const [name, config] of Object.entries(authorsCases)) {
  folderTest(
    `exportAuthors writes all copies of the weights and a config that reads back: ${name}`,
    async (folder) => {
      const weights = memoryWeightFile(seededWeights(config, { seed }));
      const out = join(folder, name);
      await exportAuthors({ config, weights, tokenizer: null, dtype: null, out });
      assertEquals(
        [...Deno.readDirSync(out)].map((entry) => entry.name).sort(),
        ["README.md", "config.json", `${name}.yaml`, "model.safetensors"].sort(),
      );
      const { extra, ...rest } = await readConfig(out);
      assertEquals({ ...rest, extra: {} }, config);
      assertEquals(extra.architectures, [config.router ? "MoRLlamaForCausalLM" : "LlamaForCausalLM"]);
      assertEquals(JSON.parse(Deno.readTextFileSync(join(out, "config.json"))).model_type, "llama");
      const tensors = readTensors(new URL(`file://${join(out, "model.safetensors")}`));
      const layout = authorsLayout(config);
      assertEquals(tensors.size, layout.flatMap(({ names }) => names).length);
      for (const { spec, names } of layout) {
        const wanted = { shape: spec.shape, data: seededNumbers(spec, seed) };
        for (const copy of names) assertEquals(tensors.get(copy), wanted);
      }
    },
  );
}

folderTest("the README says how to train there and how to come back", async (folder) => {
  const config = { ...authorsCases.expert_choice!, vocabSize: 257, tokenizer: "byte" as const };
  const weights = memoryWeightFile(seededWeights(config, { seed }));
  const out = join(folder, "my-run");
  await exportAuthors({ config, weights, tokenizer: "byte", dtype: null, out });
  const readme = Deno.readTextFileSync(join(out, "README.md"));
  for (
    const part of [
      "# my-run\n",
      "82c97f2",
      "deepspeed --include",
      "accelerate launch --config_file",
      "--config-name my-run",
      "model.load_state_dict(load_file(",
      "`hf_models/my-run`",
      "mor import results/pretrain/my-run --out my-run",
      "| `model.layers.2.*` | `model.layers.1.block.1.*`, `model.layers.2.block.1.*`, `model.layers.3.block.1.*` |",
      "| `model.routers.2.weight` | `model.layers.3.mor_router.router.weight` |",
    ]
  ) assertStringIncludes(readme, part);
  assert(Deno.statSync(join(out, "tokenizer.json")).isFile);
  const { pad_token } = JSON.parse(Deno.readTextFileSync(join(out, "tokenizer_config.json")));
  assertEquals(pad_token, "<|endoftext|>");
});

folderTest(
  "a model without a router is loaded as a pretrained one, its head tied by hand",
  async (folder) => {
    const config = authorsCases.recursive_middle_sequence!;
    const weights = memoryWeightFile(seededWeights(config, { seed }));
    await exportAuthors({
      config,
      weights,
      tokenizer: null,
      dtype: null,
      out: join(folder, "my rec"),
    });
    const readme = Deno.readTextFileSync(join(folder, "my rec", "README.md"));
    assert(!readme.includes("load_state_dict"));
    assertStringIncludes(readme, "       model.lm_head.weight = model.model.embed_tokens.weight\n");
    const yaml = Deno.readTextFileSync(join(folder, "my rec", "my-rec.yaml"));
    assertStringIncludes(
      yaml,
      '\nmodel_name_or_path: "${oc.env:PWD}/hf_models/my-rec"\nmodel_config: null\n',
    );
    assertStringIncludes(yaml, "\nuse_pretrained_weights: true\n");
    assertStringIncludes(
      yaml,
      '\n  sharing: "middle_sequence"\n  ln_share: true\n  initialization: "stepwise"\n',
    );
    assertStringIncludes(yaml, "\nmor:\n  enable: false\n");
  },
);

const place = { name: "run", folder: "models/run" };

Deno.test("authorsSettings says sharing, caching and routers in that code's words", () => {
  const expert = authorsSettings(authorsCases.expert_choice_cycle!, place);
  assertEquals(expert.recursive, {
    enable: true,
    base_depth: null,
    num_recursion: 2,
    sharing: "cycle",
    ln_share: true,
    initialization: "lower",
  });
  const { expert: chosen, token: unused, ...mor } = expert.mor as Record<string, Record<string, unknown>>;
  assertEquals(mor as unknown, {
    enable: true,
    rand_router: false,
    router_type: "mlp",
    z_loss: false,
    z_coeff: 0,
    temp: 1,
    type: "expert",
    capacity: "0.9,0.4",
  });
  assertEquals([chosen!.router_func, chosen!.alpha, chosen!.sampling], ["tanh", 0.5, "aux_router"]);
  assertEquals(unused!.balancing, "loss");
  const bare = authorsSettings(authorsCases.expert_choice_additive!, place).mor as Record<string, unknown>;
  assertEquals(bare.capacity, null);
  const { router_func, gating, sampling } = bare.expert as Record<string, unknown>;
  assertEquals([router_func, gating, sampling], [null, "additive", "aux_loss"]);

  const config = authorsCases.token_choice_loss_free!;
  const { token, type, z_loss, z_coeff, temp } = authorsSettings(config, place).mor as Record<
    string,
    unknown
  >;
  assertEquals([type, z_loss, z_coeff, temp], ["token", true, 1e-5, 2]);
  assertEquals(token, {
    bal_warmup_step: 0,
    router_func: "sigmoid",
    alpha: 0.5,
    balancing: "loss_free",
    coeff: 0.1,
    u: 0.001,
    gating: "weighted",
  });
  const shared = authorsSettings(authorsCases.recursive_kv_shared!, place).kv_sharing as Record<
    string,
    unknown
  >;
  assertEquals([shared.enable, shared.update_cache], [true, false]);
});

Deno.test("yamlText quotes strings, and nests by two spaces", () => {
  const settings = { a: null, b: { c: { d: "x: #y" }, e: 1e-7 }, f: false };
  assertEquals(yamlText(settings), 'a: null\nb:\n  c:\n    d: "x: #y"\n  e: 1e-7\nf: false\n');
});

Deno.test("what that code does not have is refused by name", () => {
  function problemOf(router: RouterConfig | null, recursion: Partial<RecursionConfig> = {}): string | null {
    return authorsProblem(tinyRecursiveConfig({ ...middleCycle, ...recursion }, { router }));
  }
  for (const config of Object.values(authorsCases)) assertEquals(authorsProblem(config), null);
  assertMatch(authorsProblem(tinyConfig())!, /no recursion; export it as a plain/);
  assertMatch(problemOf(null, { numRecursions: 1 })!, /single recursion/);
  for (const gating of ["replace", "delta"] as const) {
    for (const router of [tinyRouter({ gating }), tinyTokenRouter({ gating })]) {
      assertMatch(problemOf(router)!, new RegExp(`router.gating is ${gating}`));
    }
  }
  assertMatch(problemOf(tinyRouter({ random: true }))!, /router.random/);
  assertMatch(problemOf(tinyTokenRouter({ random: true }))!, /router.random/);
  assertMatch(problemOf(tinyRouter({ function: "none" }))!, /router.alpha is 0.1 with function none/);
  assertMatch(
    problemOf(tinyRouter({ auxiliary: "none" }))!,
    /router.auxiliary is none.*auxiliary_coefficient 0/,
  );
  assertMatch(problemOf(tinyRouter({ auxiliary: "router", temperature: 2 }))!, /router.temperature is 2/);
  assertMatch(problemOf(tinyTokenRouter({ balancing: "none" }))!, /router.balancing is none/);
  assertMatch(problemOf(tinyTokenRouter(), { sharing: "cycle" })!, /middle_cycle only, met cycle/);
});

folderTest("a refused model leaves no folder", async (folder) => {
  const config = tinyRecursiveConfig(middleCycle, { router: tinyRouter({ gating: "delta" }) });
  const weights = memoryWeightFile(seededWeights(config, { seed }));
  const out = join(folder, "out");
  await assertRejects(
    () => exportAuthors({ config, weights, tokenizer: null, dtype: null, out }),
    ConfigError,
    "Cannot export the model for the authors' code: router.gating is delta, that code has weighted and additive only",
  );
  assertEquals([...Deno.readDirSync(folder)], []);
});
