/** Help, parsing, and what `mor inspect` says of the paper's models. */
import { ValidationError } from "@cliffy/command";
import { assert, assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { rootCommand } from "../../cli/root.ts";
import { morDone } from "../support/program.ts";

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
