/** Reading documents; what reading refuses is tested with readTokens. */
import { assertEquals, assertRejects } from "@std/assert";
import { join } from "@std/path";
import { dataBytes, DataError, readDocuments } from "../../../model/text/documents.ts";
import { folderTest } from "../../support/program.ts";

async function textsIn(path: string): Promise<string[]> {
  const documents = await Array.fromAsync(readDocuments([path], { textField: "text" }));
  return documents.map(({ text }) => text);
}

folderTest("readDocuments finds the lines of a file that it reads in many parts", async (folder) => {
  // Around 64 KiB, where a part ends: every place in a character of three bytes, and in a line's end.
  for (const length of [65_520, 65_521, 65_522, 65_523, 65_524, 65_525]) {
    const texts = ["世".repeat(2), "x".repeat(length), "世界", "", "y".repeat(300_000), "end"];
    const path = join(folder, `${length}.jsonl`);
    const ends = ["\n", "\n\r\n", "\r\n", "\n", "\n", ""];
    await Deno.writeTextFile(path, texts.map((text, i) => JSON.stringify({ text }) + ends[i]).join(""));
    assertEquals(await textsIn(path), texts);
  }
});

folderTest("the bytes of documents add up to those of the files", async (folder) => {
  await Deno.writeTextFile(join(folder, "a.txt"), "Grüße\n");
  await Deno.writeTextFile(join(folder, "b.jsonl"), '{"text": "ü"}\n{"text": "世"}\n');
  const documents = await Array.fromAsync(readDocuments([folder], { textField: "text" }));
  assertEquals(documents.map(({ text, bytes }) => [text, bytes]), [["Grüße\n", 8], ["ü", 15], ["世", 16]]);
  assertEquals(await dataBytes([folder]), 39);
});

folderTest(
  "a folder's links to files are read, and a mark at a file's start is none of its JSON",
  async (folder) => {
    const data = join(folder, "data");
    await Deno.mkdir(join(data, "inner.txt"), { recursive: true });
    await Deno.writeTextFile(join(folder, "a.jsonl"), '\ufeff{"text": "a"}\n{"text": "b"}\n');
    await Deno.symlink(join(folder, "a.jsonl"), join(data, "link.jsonl"));
    const documents = await Array.fromAsync(readDocuments([data], { textField: "text" }));
    assertEquals(documents.map(({ text }) => text), ["a", "b"]);
  },
);

folderTest(
  "readDocuments refuses JSONL that is empty, not UTF-8, or ends inside a character",
  async (folder) => {
    const path = join(folder, "a.jsonl");
    await Deno.writeTextFile(path, "");
    await assertRejects(() => textsIn(path), DataError, `Cannot use ${path}: the file is empty`);
    const line = new TextEncoder().encode('{"text": "世"}');
    for (const bytes of [line.with(10, 0xff), line.slice(0, 12)]) {
      await Deno.writeFile(path, bytes);
      await assertRejects(() => textsIn(path), DataError, `Cannot read ${path}: it is not UTF-8 text`);
    }
  },
);

folderTest("readDocuments refuses a text too long for a string before it reads it", async (folder) => {
  const path = join(folder, "a.txt");
  await Deno.writeTextFile(path, "");
  await Deno.truncate(path, 500_000_001);
  await assertRejects(
    () => textsIn(path),
    DataError,
    "one text of 500000001 bytes, at most 500000000; split",
  );
});
