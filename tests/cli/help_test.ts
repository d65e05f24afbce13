/** Help, parsing, and what `mor inspect` says of the paper's models. */
import { ValidationError } from "@cliffy/command";
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { rootCommand } from "../../cli/root.ts";
import { morDone } from "../support/program.ts";

/** Flags of each command that scripts may rely on. */
const COMMANDS: Readonly<Record<string, readonly string[]>> = {
  train: [
    ...["--model", "--data", "--text-field", "--out", "--steps", "--batch-size", "--sequence-length"],
    ...["--gradient-accumulation", "--learning-rate", "--warmup-steps", "--decay-steps", "--weight-decay"],
    ...[
      "--grad-clip",
      "--capacity-warmup",
      "--balancing-warmup",
      "--init",
      "--init-method",
      "--seed",
      "--validation-fraction",
      "--eval-every",
      "--eval-batches",
      "--save-every",
    ],
    ...["--sample-every", "--sample-prompt", "--stop-after", "--resume", "--config", "--dry-run"],
    ...["--tokenizer", "--recompute", "--no-recompute", "--activations"],
  ],
  generate: [
    ...["-p", "--prompt", "-f", "--file", "-n", "--count", "--temperature", "--top-k", "--top-p", "--min-p"],
    ...["--repeat-penalty", "--stop", "--seed", "--depths", "--json", "--logprobs", "--chat", "--system"],
    ...[
      "--dtype",
      "--kv-dtype",
      "--prompts",
      "--out",
      "--resume",
      "--in-order",
      "--batch-size",
      "--kv-memory",
    ],
  ],
  bench: ["throughput", "compare"],
  eval: [
    ...["--data", "--text-field", "--routing", "--sequence-length", "--batch-size", "--max-tokens", "--json"],
    "--dtype",
  ],
  forward: ["--ids", "--routing", "--cached", "--greedy", "--gradients", "--dtype", "--json"],
  inspect: ["--json"],
  profile: [
    ...["-p", "--prompt-tokens", "-n", "--tokens", "--train", "--batch-size", "--sequence-length"],
    ...["--recompute", "--activations", "--repeats", "--seed", "--dtype", "--json"],
  ],
  pull: ["--out", "--file"],
  import: ["--out", "--dtype"],
  export: ["--format", "--out", "--dtype"],
  tokenizer: ["train"],
  doctor: ["--tune", "--json"],
  demo: ["--data", "--out", "--steps"],
  completions: ["bash", "fish", "zsh"],
  help: [],
};

Deno.test("--help lists every command, and that of a command every flag", async () => {
  const help = (await morDone(["--help"])).stdout;
  for (const [name, flags] of Object.entries(COMMANDS)) {
    assert(new RegExp(`^ *${name}\\b`, "m").test(help), `${name} is missing in:\n${help}`);
    const own = (await morDone([name, "--help"])).stdout;
    const words = new Set(own.split(/[\s,]+/));
    // The package's own commands take no flags of the program.
    const shared = ["completions", "help"].includes(name) ? [] : ["-q", "--quiet", "-v", "--verbose"];
    assertEquals(["-h", "--help", ...shared, ...flags].filter((flag) => !words.has(flag)), [], name);
  }
  assertStringIncludes(
    help.replaceAll("\n", " "),
    "0 done, 1 failed, 2 wrong usage, 3 no adapter, 4 not enough memory, 130 interrupted",
  );
});

Deno.test("--help of bench compare lists every flag", async () => {
  const words = new Set((await morDone(["bench", "compare", "--help"])).stdout.split(/[\s,]+/));
  const flags = [
    ...["--base", "--change", "--pairs", "-p", "--prompt-tokens", "-n", "--tokens", "--train"],
    ...["--batch-size", "--sequence-length", "--recompute", "--activations", "--seed", "--dtype", "--json"],
  ];
  assertEquals(flags.filter((flag) => !words.has(flag)), []);
});

Deno.test("help and version go to stdout and succeed", async () => {
  for (const args of [[], ["--help"], ["-h"], ["train", "--help"], ["generate", "-h"]]) {
    const { stdout, stderr } = await morDone(args);
    assert(/^\s*Usage:/.test(stdout), stdout);
    assertEquals(stderr, "");
  }
  const { version } = JSON.parse(await Deno.readTextFile(new URL("../../deno.json", import.meta.url)));
  assertStringIncludes((await morDone(["--version"])).stdout, version);
});

Deno.test("wrong usage is thrown, not printed", async () => {
  for (
    const args of [["trian"], ["train", "--stepz"], ["train", "--steps", "x"], ["inspect"], ["doctor", "x"]]
  ) {
    await assertRejects(() => rootCommand().parse(args), ValidationError);
  }
});

/** Parts of what `mor inspect --json` prints. */
interface Report {
  readonly parameters: number;
  readonly flops_per_token_paper: number;
  readonly context: number;
  readonly tensors: readonly { readonly name: string; readonly shape: readonly number[] }[];
}

async function inspect(model: string): Promise<Report> {
  return JSON.parse((await morDone(["inspect", model, "--json"])).stdout);
}

Deno.test("inspect 360m-mor3 gives the paper's numbers", async () => {
  const { parameters, flops_per_token_paper: flops, context } = await inspect("360m-mor3");
  assertEquals([parameters, context, (flops / 1e6).toFixed(2)], [165_177_600, 2048, "555.64"]);
});

Deno.test("inspect 135m-mor3 counts each weight once", async () => {
  const { parameters, tensors } = await inspect("135m-mor3");
  const [hidden, keyValue, intermediate] = [576, 192, 1536];
  const layer = 2 * hidden ** 2 + 2 * keyValue * hidden + 3 * intermediate * hidden + 2 * hidden;
  // Embedding, twelve unique layers, the last norm, a router for each of three steps.
  assertEquals(parameters, 49152 * hidden + 12 * layer + hidden + 3 * hidden);
  const sizes = tensors.map(({ shape }) => shape.reduce((product, n) => product * n, 1));
  assertEquals(sizes.reduce((sum, size) => sum + size, 0), parameters);
  assertEquals(new Set(tensors.map(({ name }) => name)).size, tensors.length);
  const { stdout } = await morDone(["inspect", "135m-mor3"]);
  assertStringIncludes(stdout, "70,795,008");
  assertStringIncludes(stdout, "model.routers.2.weight (1, 576)");
});
