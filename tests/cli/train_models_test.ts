/** `mor train` and `mor generate` with the kinds of models beside the default, and what they start from. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { assertFails, folderTest, morDone } from "../support/program.ts";
import {
  assertSameCheckpoints,
  type Metrics,
  readMetrics,
  smallRun,
  withoutSpeed,
  writeConfig,
} from "../support/small_run.ts";

const PROMPT = "The whale";
const COUNT = 12;

const TOKEN_CHOICE = { kind: "token_choice" };

/** Metrics of every step, of any router, and of each kind of router. */
const ALWAYS = ["step", "tokens", "loss", "loss_ce", "learning_rate", "grad_norm", "tokens_per_second"];
const ROUTED = [...ALWAYS, "loss_z", "depth_fractions", "dead_tokens", "max_violation", "depth_entropy"];
const BY_TOKEN = [...ROUTED, "loss_balancing"];
const BY_EXPERT = [...ROUTED, "loss_auxiliary", "selection_accuracy"];

/** Models by name: what differs from the tiny preset's config.json, and the metrics of their steps. */
const MODELS: Readonly<Record<string, { change: Record<string, unknown>; metrics: readonly string[] }>> = {
  "token choice": { change: { router: TOKEN_CHOICE }, metrics: BY_TOKEN },
  "token choice with a balancing bias": {
    change: { router: { ...TOKEN_CHOICE, balancing: "loss_free" } },
    metrics: BY_TOKEN,
  },
  "token choice with shared keys": {
    change: { router: TOKEN_CHOICE, kv_cache: "shared" },
    metrics: BY_TOKEN,
  },
  "expert choice with shared keys": { change: { kv_cache: "shared" }, metrics: BY_EXPERT },
  "expert choice with auxiliary routers": {
    change: { router: { kind: "expert_choice", auxiliary: "router", architecture: "mlp" } },
    metrics: BY_EXPERT,
  },
  "a recursive baseline with shared keys": {
    change: { router: null, kv_cache: "shared" },
    metrics: ALWAYS,
  },
};

for (const [name, { change, metrics }] of Object.entries(MODELS)) {
  folderTest(`${name} trains, resumes and generates`, async (folder) => {
    const [out, straight] = [join(folder, "out"), join(folder, "straight")];
    const model = ["--model", await writeConfig(join(folder, "model.json"), { change })];
    const steps = ["--steps", "2", "--eval-every", "0"];
    await morDone(smallRun(out, ...model, ...steps, "--stop-after", "1"));
    await morDone(["train", "--out", out, "--resume"]);
    await morDone(smallRun(straight, ...model, ...steps));
    await assertSameCheckpoints(out, straight);

    for (const line of await readMetrics(out)) {
      assertEquals(Object.keys(line).sort(), [...metrics].sort());
      assertFinite(line);
    }
    const { stdout } = await morDone(generate(out, "--json"));
    const tokens: { id: number; depth: number }[] = JSON.parse(stdout).tokens;
    assertEquals(tokens.length, COUNT);
    // The first step takes every token.
    for (const { depth } of tokens) assert(depth >= 1 && depth <= 3, `depth ${depth}`);
    assertEquals(tokens.map(({ id }) => id), await recomputed(out, { folder }));
  });
}

function assertFinite(line: Metrics): void {
  for (const [name, value] of Object.entries(line)) {
    assert([value].flat().every(Number.isFinite), `${name} is ${value}`);
  }
}

function generate(model: string, ...more: readonly string[]): string[] {
  return ["generate", model, "-p", PROMPT, "-n", String(COUNT), "--temperature", "0", ...more];
}

/** What `generate` gives, by a command that has no cache. */
async function recomputed(model: string, { folder }: { folder: string }): Promise<number[]> {
  const ids = join(folder, "ids.json");
  await Deno.writeTextFile(ids, JSON.stringify({ input_ids: [[...new TextEncoder().encode(PROMPT)]] }));
  const { stdout } = await morDone(["forward", model, "--ids", ids, "--greedy", String(COUNT), "--json"]);
  return JSON.parse(stdout).greedy_ids;
}

folderTest("train --init starts a recursive model from a vanilla one, by each method", async (folder) => {
  const vanilla = join(folder, "vanilla");
  const steps = ["--steps", "2", "--eval-every", "0"];
  await morDone(smallRun(vanilla, ...steps, "--model", "tiny-vanilla"));
  const starts = {
    none: [],
    default: ["--init", vanilla],
    ...Object.fromEntries(
      ["stepwise", "average", "lower", "upper", "random"].map((method) =>
        [method, ["--init", vanilla, "--init-method", method]] as const
      ),
    ),
  };
  const losses = new Map<string, number>();
  for (const [name, args] of Object.entries(starts)) {
    const out = join(folder, name);
    await morDone(smallRun(out, ...steps, ...args));
    const metrics = await readMetrics(out);
    assertEquals(metrics.length, 2);
    losses.set(name, metrics[0]!.loss_ce as number);
  }
  // The block has one layer: of the three between the ends, stepwise and lower take the first, upper the last.
  assertEquals(losses.get("stepwise"), losses.get("lower"));
  assertEquals(losses.get("default"), losses.get("stepwise"));
  const different = ["none", "stepwise", "average", "upper"].map((name) => losses.get(name));
  assertEquals(new Set(different).size, 4, `losses ${different}`);
  await morDone(generate(join(folder, "average")));
});

folderTest("train --resume needs no --init again, nor its folder", async (folder) => {
  const [vanilla, out, straight] = [join(folder, "vanilla"), join(folder, "out"), join(folder, "straight")];
  const steps = ["--steps", "3", "--eval-every", "0"];
  await morDone(smallRun(vanilla, ...steps, "--model", "tiny-vanilla"));
  const settings = join(folder, "settings.json");
  await Deno.writeTextFile(settings, JSON.stringify({ init: vanilla, init_method: "upper" }));
  const init = ["--config", settings];
  await morDone(smallRun(straight, ...steps, ...init));
  await morDone(smallRun(out, ...steps, ...init, "--stop-after", "1"));
  await Deno.remove(vanilla, { recursive: true });

  // The settings of the start may be given again in the file that they came from, but not others.
  await morDone(["train", "--out", out, "--resume", ...init, "--stop-after", "2"]);
  await Deno.writeTextFile(settings, JSON.stringify({ init: "elsewhere" }));
  await assertFails(["train", "--out", out, "--resume", ...init], {
    code: 1,
    parts: [out, "init is elsewhere", `started with ${vanilla}`],
  });
  await morDone(["train", "--out", out, "--resume"]);
  await assertSameCheckpoints(out, straight);
});

folderTest("train --init refuses a source that it cannot use", async (folder) => {
  const [source, out] = [join(folder, "source"), join(folder, "out")];
  const model = await writeConfig(join(folder, "wide.json"), {
    preset: "tiny-vanilla",
    change: { hidden_size: 96 },
  });
  await morDone(smallRun(source, "--model", model, "--steps", "1", "--eval-every", "0"));
  await assertFails(smallRun(out, "--init", source), {
    code: 1,
    parts: [source, "hidden_size is 96, the model's 64"],
  });
  const missing = join(folder, "missing");
  await assertFails(smallRun(out, "--init", missing), { code: 1, parts: [missing, "no such file"] });
  assertEquals(await Deno.stat(out).catch(() => null), null, "a refused run left a folder");
});

folderTest(
  "train warms routers up, also across a resumption, and only those that there are",
  async (folder) => {
    const model = await writeConfig(join(folder, "token.json"), { change: { router: TOKEN_CHOICE } });
    const every = [0, 0, 0, 1];
    const runs = [
      { name: "expert", args: ["--capacity-warmup", "4"], other: "--balancing-warmup", setting: "capacity" },
      {
        name: "token",
        args: ["--model", model, "--balancing-warmup", "4"],
        other: "--capacity-warmup",
        setting: "balancing",
      },
    ];
    for (const { name, args, other, setting } of runs) {
      const [straight, out] = [join(folder, name), join(folder, `${name} in parts`)];
      const run = [...args, "--eval-every", "0"];
      await morDone(smallRun(straight, ...run));
      await morDone(smallRun(out, ...run, "--stop-after", "2"));
      await assertFails(["train", "--out", out, "--resume", `--${setting}-warmup`, "2"], {
        code: 1,
        parts: [out, `routerWarmup.${setting} is 2`, "started with 4"],
      });
      await morDone(["train", "--out", out, "--resume"]);
      await assertSameCheckpoints(out, straight);
      const metrics = await readMetrics(straight);
      assertEquals(withoutSpeed(await readMetrics(out)), withoutSpeed(metrics));
      assertEquals(metrics[0]!.depth_fractions, every);
      assert(String(metrics[4]!.depth_fractions) !== String(every), `${name} choice stays warm`);

      const refused = join(folder, "refused");
      const unused = smallRun(refused, ...args, other, "5");
      const parts = [`${other} is 5`, `routes by ${name} choice`, "give 0"];
      await assertFails(unused, { code: 1, parts });
      await assertFails([...unused, "--dry-run"], { code: 1, parts });
      await morDone([...smallRun(refused, ...args, other, "0"), "--dry-run"]);
    }
    await assertFails(smallRun(join(folder, "none"), "--model", "tiny-rec3", "--capacity-warmup", "5"), {
      code: 1,
      parts: ["--capacity-warmup is 5", "has no router", "give 0"],
    });
  },
);

/** Overwrites a tensor of a checkpoint. */
async function patchWeights(
  folder: string,
  { name, values }: { name: string; values: readonly number[] },
): Promise<void> {
  const path = join(folder, "model.safetensors");
  const bytes = await Deno.readFile(path);
  const headerLength = Number(new DataView(bytes.buffer).getBigUint64(0, true));
  const header = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + headerLength)));
  assertEquals(header[name].shape, [values.length]);
  const [start] = header[name].data_offsets;
  bytes.set(new Uint8Array(Float32Array.from(values).buffer), 8 + headerLength + start);
  await Deno.writeFile(path, bytes);
}

folderTest("train warns of token choice that sends nearly all tokens to one depth", async (folder) => {
  const [source, out] = [join(folder, "source"), join(folder, "out")];
  const router = { ...TOKEN_CHOICE, balancing: "loss_free", bias_update_rate: 0 };
  const model = await writeConfig(join(folder, "model.json"), { change: { router } });
  const args = ["--model", model, "--eval-every", "0", "--batch-size", "1", "--sequence-length", "16"];
  await morDone(smallRun(source, ...args, "--steps", "1"));
  // No probability differs from another by as much as the bias.
  await patchWeights(source, { name: "model.router.bias", values: [0, 2, 0] });
  const settings = ["--init", source, "--save-every", "200", "--steps", "101"];
  const { stderr } = await morDone(smallRun(out, ...args, ...settings));

  const depths = (await readMetrics(out)).map((line) => String(line.depth_fractions));
  assertEquals([...new Set(depths)], ["0,0,1,0"]);
  const warning = "warning: over 95 % of the tokens had depth 2 for 100 steps: the router has collapsed; " +
    "raise bias_update_rate";
  assertStringIncludes(stderr, warning);
  assertEquals(stderr.split("warning: ").length, 2);
});
