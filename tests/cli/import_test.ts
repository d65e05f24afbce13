/** `mor import` from end to end: models that come back from where `mor export` sent them. */
import { assertEquals } from "@std/assert";
import { join } from "@std/path";
import { readTensors } from "../support/golden.ts";
import { assertFails, folderTest, morDone } from "../support/program.ts";
import { readMetrics, smallRun } from "../support/small_run.ts";

const USAGE = 2;

/** Checks that two folders hold the same weights. */
function assertSameWeights(actual: string, expected: string): void {
  const [met, wanted] = [actual, expected].map((path) =>
    readTensors(new URL(`file://${join(path, "model.safetensors")}`))
  );
  assertEquals(met, wanted);
}

folderTest("import brings back what export sent, and training goes on with it", async (folder) => {
  const models = { "tiny-vanilla": ["hf", "gguf"], tiny: ["hf"] };
  for (const [preset, formats] of Object.entries(models)) {
    const model = join(folder, preset);
    await morDone(smallRun(model, "--model", preset, "--steps", "2", "--eval-every", "0"));
    for (const format of formats) {
      const sent = join(folder, `${preset}.${format}`);
      const out = join(folder, `${preset} from ${format}`);
      await morDone(["-q", "export", model, "--format", format, "--out", sent]);
      assertEquals(await morDone(["import", sent, "--out", out]), {
        code: 0,
        stdout: `${out}\n`,
        stderr: "",
      });
      assertSameWeights(out, model);
      const { tokenizer, recursion } = JSON.parse(await Deno.readTextFile(join(out, "config.json")));
      assertEquals([tokenizer, recursion === null], ["byte", preset === "tiny-vanilla"]);
    }
  }
  const on = join(folder, "on");
  const init = join(folder, "tiny-vanilla from gguf");
  const flags = ["--model", join(init, "config.json"), "--init", init, "--steps", "1", "--eval-every", "0"];
  await morDone(smallRun(on, ...flags));
  assertEquals((await readMetrics(on)).length, 1);
  const half = join(folder, "half");
  await morDone(["import", init, "--dtype", "f16", "--out", half]);
  assertEquals(JSON.parse(await Deno.readTextFile(join(half, "config.json"))).torch_dtype, "float16");
});

folderTest("import ends with one line about what went wrong", async (folder) => {
  const out = join(folder, "out");
  const gguf = join(folder, "a.gguf");
  await Deno.writeTextFile(gguf, "GGUF".padEnd(40, "x"));
  await assertFails(["import", gguf], { code: USAGE, parts: ["--out"] });
  await assertFails(["import", "--out", out], { code: USAGE, parts: ["Missing argument", "model"] });
  await assertFails(["import", gguf, "--dtype", "q8_0", "--out", out], {
    code: USAGE,
    parts: ['--dtype is "q8_0"', "f32, f16"],
  });
  await assertFails(["import", gguf, "--out", out], { code: 1, parts: [`Cannot load ${gguf}`, "GGUF file"] });
  await assertFails(["import", join(folder, "nothing"), "--out", out], { code: 1, parts: ["no such file"] });
  await assertFails(["import", folder, "--out", folder], { code: 1, parts: [`Cannot load ${gguf}`] });
  assertEquals(Array.from(Deno.readDirSync(folder), ({ name }) => name), ["a.gguf"]);
});
