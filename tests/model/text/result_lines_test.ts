import { assertEquals, assertRejects } from "@std/assert";
import { join } from "@std/path";
import { DataError } from "../../../model/text/documents.ts";
import { readResults, ResultFile, sortResults } from "../../../model/text/result_lines.ts";
import { folderTest } from "../../support/program.ts";

const results = [0, 2, 1].map((index) => ({
  index,
  prompt: `prompt ${index} \u2028 é`,
  seed: index + 5,
  text: "x\ny",
}));

folderTest(
  "results are gone on with after their last whole line, wherever writing was stopped",
  async (folder) => {
    const path = join(folder, "results.jsonl");
    const file = await ResultFile.open(path, await readResults(path, { resume: false }));
    for (const result of results) await file.write(result);
    await file.close();
    const bytes = await Deno.readFile(path);
    const ends = [...bytes.keys()].filter((i) => bytes[i] === 10).map((i) => i + 1);
    assertEquals(ends.length, 3);
    for (let size = 0; size <= bytes.length; size++) {
      // A cut in the middle of a character leaves what is no text; it is cut off all the same.
      await Deno.writeFile(path, bytes.subarray(0, size));
      const whole = ends.filter((end) => end <= size);
      const found = await readResults(path, { resume: true });
      assertEquals(found, {
        done: results.slice(0, whole.length).map(({ index, prompt, seed }) => ({ index, prompt, seed })),
        bytes: whole.at(-1) ?? 0,
        cut: size - (whole.at(-1) ?? 0),
      }, `${size} bytes`);
      const again = await ResultFile.open(path, found);
      for (const result of results.slice(whole.length)) await again.write(result);
      await again.close();
      assertEquals(await Deno.readFile(path), bytes, `${size} bytes`);
    }
  },
);

folderTest("a file that is there is not written over unless it is gone on with", async (folder) => {
  const path = join(folder, "results.jsonl");
  assertEquals(await readResults(path, { resume: true }), { done: [], bytes: 0, cut: 0 });
  await Deno.writeTextFile(path, "");
  assertEquals(await readResults(path, { resume: false }), { done: [], bytes: 0, cut: 0 });
  await Deno.writeTextFile(path, '{"in');
  await assertRejects(
    () => readResults(path, { resume: false }),
    DataError,
    "give --resume to go on with it",
  );
  assertEquals(await readResults(path, { resume: true }), { done: [], bytes: 0, cut: 4 });
});

folderTest("a file of results is put in the order of the prompts", async (folder) => {
  const path = join(folder, "results.jsonl");
  const text = (order: readonly number[]): string =>
    order.map((i) => JSON.stringify(results.find(({ index }) => index === i)) + "\n").join("");
  for (const order of [[0, 2, 1], [2, 1, 0], [0, 1, 2], [1], []]) {
    await Deno.writeTextFile(path, text(order));
    await sortResults(path);
    assertEquals(await Deno.readTextFile(path), text(order.toSorted((a, b) => a - b)));
  }
  assertEquals([...Deno.readDirSync(folder)].map(({ name }) => name), ["results.jsonl"]);
});

folderTest("a file of something else is refused", async (folder) => {
  const path = join(folder, "results.jsonl");
  for (
    const [text, part] of [['{"prompt": "a"}\n', "no result"], ["hello\n", "is not JSON"], [
      "null\n",
      "no result",
    ]]
  ) {
    await Deno.writeTextFile(path, text!);
    await assertRejects(() => readResults(path, { resume: true }), DataError, part);
    assertEquals(await Deno.readTextFile(path), text);
  }
});
