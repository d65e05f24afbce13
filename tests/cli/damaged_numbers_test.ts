/** Weights with numbers that are none: every command says so in one line, with the tensor's name. */
import { join } from "@std/path";
import { SafetensorsFile } from "../../model/files/safetensors.ts";
import { assertFails, corpus, folderTest, morDone } from "../support/program.ts";
import { savedStep, smallRun } from "../support/small_run.ts";

const NAME = "model.layers.1.mlp.down_proj.weight";

/** Replaces a number of a tensor in a file of f32. */
async function damage(path: string, { tensor, value }: { tensor: string; value: number }): Promise<void> {
  const bytes = await Deno.readFile(path);
  const view = new DataView(bytes.buffer);
  const header = Number(view.getBigUint64(0, true));
  const json = JSON.parse(new TextDecoder().decode(bytes.subarray(8, 8 + header)));
  view.setFloat32(8 + header + json[tensor].data_offsets[0] + 40, value, true);
  await Deno.writeFile(path, bytes);
  (await SafetensorsFile.open(path))[Symbol.dispose]();
}

folderTest("a number that is none in weights is refused by every command that reads them", async (folder) => {
  const run = join(folder, "run");
  await morDone(smallRun(run, "--steps", "4", "--stop-after", "2", "--eval-every", "0"));
  const weights = join(run, "model.safetensors");
  const whole = await Deno.readFile(weights);
  const out = join(folder, "out");
  for (const value of [NaN, -Infinity]) {
    await damage(weights, { tensor: NAME, value });
    const commands = [
      ["generate", run, "-p", "x", "-n", "2", "--json"],
      ["eval", run, "--data", corpus, "--json"],
      ["quantize", run, "--format", "q8_0", "--out", out],
      ["export", run, "--format", "hf", "--out", out],
      ["train", "--out", run, "--resume"],
      smallRun(out, "--init", run),
    ];
    for (const args of commands) {
      await assertFails(args, { code: 1, parts: [weights, `tensor "${NAME}" has NaN or infinity`] });
    }
  }
  await Deno.writeFile(weights, whole);
  const state = join(run, "training", `step-${await savedStep(run)}.safetensors`);
  await damage(state, { tensor: `exp_avg_sq.${NAME}`, value: NaN });
  const parts = [state, `tensor "exp_avg_sq.${NAME}" has NaN or infinity`];
  await assertFails(["train", "--out", run, "--resume"], { code: 1, parts });
});

folderTest(
  "weights too large to compute with end in one line, not in a result that is none",
  async (folder) => {
    const run = join(folder, "run");
    await morDone(smallRun(run, "--steps", "1", "--eval-every", "0"));
    await damage(join(run, "model.safetensors"), { tensor: "model.embed_tokens.weight", value: 3e38 });
    await damage(join(run, "model.safetensors"), { tensor: "model.norm.weight", value: 3e38 });
    await assertFails(["eval", run, "--data", corpus, "--json"], { code: 1, parts: ["loss of a token is"] });
    await assertFails(["generate", run, "-p", "x", "-n", "3", "--json"], { code: 1, parts: ["not numbers"] });
  },
);
