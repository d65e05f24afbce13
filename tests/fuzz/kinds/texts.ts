/** Files of lines and of text. */
import { assertEquals } from "@std/assert";
import { join } from "@std/path";
import { readDocuments } from "../../../model/text/documents.ts";
import { readPromptLines } from "../../../model/text/prompt_lines.ts";
import { readResults, sortResults } from "../../../model/text/result_lines.ts";
import { mutatedBytes } from "../../support/byte_mutations.ts";
import { concat } from "../../support/gguf_bytes.ts";
import { mutatedJson } from "../../support/json_mutations.ts";
import { createRandom } from "../../support/random.ts";
import { type FuzzInput, type FuzzKind, isDone } from "../fuzz_kind.ts";

type Fields = Record<string, unknown>;

const utf8 = new TextEncoder();

/** Pieces that texts have and readers trip over. */
const ODD = [
  "\u0000",
  "\uFEFF",
  "\r",
  "\u2028",
  "\u001b[2J",
  "\\ud800",
  "é",
  "世界",
  "👍🏽",
  '"',
  "\\",
  "",
  " ",
  "\t\n\n",
];

/** Lines of JSON, some of them damaged, put together in one of the ways that programs do. */
export function mutatedLines(
  records: readonly object[],
  { seed }: { seed: number },
): Uint8Array<ArrayBuffer> {
  const random = createRandom(seed ^ 0x11e5);
  const pick = <T>(choices: readonly T[]): T => choices[random.integer(choices.length)]!;
  const lines = records.map((record, i) => {
    const isChanged = random.integer(3) === 0;
    const text = isChanged ? mutatedJson(record, { seed: seed * 8 + i }) : JSON.stringify(record);
    return random.integer(2) === 0 ? text.replaceAll("\n", " ") : text;
  });
  const changes = [
    () => lines.splice(random.integer(lines.length), 0, pick(ODD)),
    () => lines.push(pick(lines)),
    () => lines.reverse(),
    () => lines[0] = pick(ODD) + lines[0],
    () => lines[0] += pick(ODD),
    () => lines.splice(0, lines.length),
    () => {},
    () => {},
  ];
  pick(changes)();
  const text = lines.join(pick(["\n", "\n", "\n", "\r\n", "\n\n"])) + pick(["\n", "\n", "", "\r\n", "{"]);
  const bytes = utf8.encode(text);
  const broken = random.integer(4) === 0 ? mutatedBytes(bytes, { seed, headerBytes: bytes.length }) : bytes;
  if (random.integer(60) > 0) return broken;
  // A line of more than a buffer.
  return concat(broken, utf8.encode(JSON.stringify({ prompt: "long ".repeat(200_000), text: "x" })));
}

/** Lines of a file as they should be read; throws for what is not UTF-8. */
function trueLines(bytes: Uint8Array): string[] {
  const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  return text.split("\n").filter((line) => line.trim() !== "");
}

function trueRecords(bytes: Uint8Array): Fields[] {
  return trueLines(bytes).map((line) => JSON.parse(line.replace(/^\uFEFF/, "")));
}

const PROMPTS = [
  { prompt: "Call me", temperature: 0, seed: 3, count: 5 },
  { prompt: "世界 👍🏽", system: "Be kind", stop: ["\n", "."], top_k: 40, top_p: 0.9, id: "a" },
  { prompt: "", min_p: 0.1, repeat_penalty: 1.1, stop: "x", note: { deep: [1, 2] } },
];

/** `mor generate --prompts`. */
export function openPrompts(): Promise<FuzzKind> {
  async function check({ name, bytes }: FuzzInput, folder: string): Promise<boolean> {
    const path = join(folder, name);
    await Deno.writeFile(path, bytes);
    return await isDone(async () => {
      const prompts = await readPromptLines(path);
      const truth = trueRecords(bytes);
      assertEquals(prompts.map(({ prompt }) => prompt), truth.map(({ prompt }) => prompt));
      assertEquals(
        prompts.map(({ seed, topK }) => [seed, topK]),
        truth.map(({ seed, top_k }) => [seed, top_k]),
      );
      assertEquals(prompts.map(({ extra }) => extra.id), truth.map(({ id }) => id));
    }, { names: [path] });
  }
  const make = (seed: number): FuzzInput => ({
    name: "prompts.jsonl",
    bytes: mutatedLines(PROMPTS, { seed }),
  });
  return Promise.resolve({ make, check });
}

const RESULTS = [2, 0, 1].map((index) => ({ index, prompt: `p${index}`, seed: 7, text: "a\n", tokens: 3 }));

/** What `mor generate --resume` goes on with. */
export function openResults(): Promise<FuzzKind> {
  async function check({ name, bytes }: FuzzInput, folder: string): Promise<boolean> {
    const path = join(folder, name);
    await Deno.writeFile(path, bytes);
    return await isDone(async () => {
      const { done, bytes: whole, cut } = await readResults(path, { resume: true });
      assertEquals(whole + cut, bytes.length);
      const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(
        bytes.subarray(0, whole),
      );
      const truth = text.split("\n").slice(0, -1).map((line) => JSON.parse(line));
      assertEquals(done, truth.map(({ index, prompt, seed }) => ({ index, prompt, seed })));
      await Deno.writeFile(path, bytes.subarray(0, whole));
      await sortResults(path);
      const sorted = (await Deno.readTextFile(path)).split("\n").slice(0, -1);
      const indices = truth.map(({ index }) => index);
      assertEquals(sorted.map((line) => JSON.parse(line).index), indices.toSorted((a, b) => a - b));
      assertEquals(sorted.toSorted(), text.split("\n").slice(0, -1).toSorted());
    }, { names: [path] });
  }
  const make = (seed: number): FuzzInput => ({ name: "out.jsonl", bytes: mutatedLines(RESULTS, { seed }) });
  return Promise.resolve({ make, check });
}

const DOCUMENTS = [{ text: "Call me Ishmael.\nSome years ago" }, { text: "", n: 1 }, {
  text: "世界 👍🏽",
  id: "a",
}];

/** Values of --text-field, the usual one first. */
const TEXT_FIELDS = ["text", "id", "__proto__", "constructor", "length", "0"];

/** Training texts: one text, or JSONL. */
export function openDocuments(): Promise<FuzzKind> {
  async function check({ name, bytes }: FuzzInput, folder: string): Promise<boolean> {
    const path = join(folder, name);
    await Deno.writeFile(path, bytes);
    const isRead = (textField: string): Promise<boolean> =>
      isDone(async () => {
        const documents = await Array.fromAsync(readDocuments([path], { textField }));
        const truth = name.endsWith(".jsonl")
          ? trueRecords(bytes).map((record) => record[textField])
          : [new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes)];
        assertEquals(documents.map(({ text }) => text) as unknown[], truth);
      }, { names: [path] });
    const [isAccepted = false] = await Promise.all(TEXT_FIELDS.map(isRead));
    return isAccepted;
  }
  function make(seed: number): FuzzInput {
    const name = seed % 4 === 0 ? "data.txt" : "data.jsonl";
    return { name, bytes: mutatedLines(DOCUMENTS, { seed }) };
  }
  return Promise.resolve({ make, check });
}
