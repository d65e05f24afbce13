import { join } from "@std/path";
import { assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import {
  type Batch,
  evaluationBatches,
  readTokens,
  splitTokens,
  trainingBatch,
  windowCount,
} from "../../../model/text/dataset.ts";
import { DataError } from "../../../model/text/documents.ts";
import { byteTokenizer } from "../../../model/text/tokenizer.ts";

const END = byteTokenizer.endOfText;

function bytes(text: string): number[] {
  return [...new TextEncoder().encode(text)];
}

function filesTest(
  name: string,
  { files, body }: { files: Record<string, string>; body: (folder: string) => Promise<void> },
): void {
  Deno.test(name, async () => {
    const folder = await Deno.makeTempDir();
    try {
      for (const [file, text] of Object.entries(files)) await Deno.writeTextFile(join(folder, file), text);
      await body(folder);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  });
}

async function tokensOf(paths: readonly string[], textField = "text"): Promise<number[]> {
  return [...await readTokens(paths, { tokenizer: byteTokenizer, textField })];
}

filesTest("readTokens joins texts, lines of JSONL and folders in name order by the end of text", {
  files: {
    "b.txt": "Bé",
    "a.jsonl": '{"text": "one", "id": 1}\r\n\n{"text": "two"}\n',
    "c.md": "C",
    "image.png": "not text",
  },
  body: async (folder) => {
    const [one, two, b, c] = ["one", "two", "Bé", "C"].map(bytes);
    assertEquals(await tokensOf([folder]), [...one!, END, ...two!, END, ...b!, END, ...c!, END]);
    const paths = [join(folder, "c.md"), join(folder, "a.jsonl")];
    assertEquals(await tokensOf(paths), [...c!, END, ...one!, END, ...two!, END]);
  },
});

filesTest("readTokens has room for long texts", {
  files: { "a.txt": "a".repeat(65_535), "b.txt": "b".repeat(200_000), "c.txt": "c" },
  body: async (folder) => {
    const tokens = await tokensOf([folder]);
    assertEquals(tokens.length, 65_536 + 200_001 + 2);
    assertEquals([65_535, 65_536, 265_536, 265_537].map((i) => tokens[i]), [END, 98, END, 99]);
  },
});

filesTest("readTokens takes the text of JSONL from the named field", {
  files: { "a.jsonl": '{"body": "yes", "text": "no"}' },
  body: async (folder) => {
    assertEquals(await tokensOf([join(folder, "a.jsonl")], "body"), [...bytes("yes"), END]);
  },
});

const refusedFiles: readonly (readonly [name: string, files: Record<string, string>, message: string])[] = [
  ["an empty file", { "a.txt": "" }, "a.txt: the file is empty"],
  [
    "a JSONL line that is not JSON",
    { "a.jsonl": '{"text": "a"}\n\n{"text": ' },
    "a.jsonl:3: the line is not JSON",
  ],
  [
    "a JSONL line without text",
    { "a.jsonl": '{"text": "a"}\n{"body": "b"}' },
    'a.jsonl:2: no text under "text"',
  ],
  [
    "a JSONL line that is null",
    { "a.jsonl": "null" },
    'a.jsonl:1: no text under "text"; name it by --text-field',
  ],
  ["a JSONL text that is a number", { "a.jsonl": '{"text": 7}' }, "a.jsonl:1: no text"],
];

for (const [name, files, message] of refusedFiles) {
  filesTest(`readTokens refuses ${name}`, {
    files,
    body: async (folder) => {
      const path = join(folder, Object.keys(files)[0]!);
      await assertRejects(() => tokensOf([path]), DataError, message);
    },
  });
}

filesTest("readTokens refuses bytes that are not UTF-8", {
  files: { "a.txt": "" },
  body: async (folder) => {
    const path = join(folder, "a.txt");
    await Deno.writeFile(path, Uint8Array.of(72, 255, 105));
    await assertRejects(() => tokensOf([path]), DataError, "it is not UTF-8 text");
  },
});

filesTest("readTokens refuses a file that is not there and a folder without texts", {
  files: { "image.png": "x" },
  body: async (folder) => {
    const missing = join(folder, "none.txt");
    await assertRejects(() => tokensOf([missing]), DataError, `Cannot read data ${missing}: no such file`);
    await assertRejects(() => tokensOf([folder]), DataError, "no .txt, .md or .jsonl file in the folder");
  },
});

const split = { validationFraction: 0.1, sequenceLength: 8, vocabSize: 257 };
const counting = Array.from({ length: 1000 }, (_, i) => i % 257);

Deno.test("splitTokens holds out the text's end", async () => {
  const { training, validation } = await splitTokens(counting, split);
  assertEquals([...training, ...validation], counting);
  assertEquals([training.length, validation.length], [900, 100]);
  assertEquals(training instanceof Uint16Array, true);
  const whole = await splitTokens(counting, { ...split, validationFraction: 0, vocabSize: 100_000 });
  assertEquals([whole.training.length, whole.validation.length], [1000, 0]);
  assertEquals(whole.training instanceof Uint32Array, true);
});

Deno.test("splitTokens fingerprints the tokens", async () => {
  const { fingerprint } = await splitTokens(counting, split);
  assertEquals(fingerprint.length, 32);
  assertEquals((await splitTokens(counting, { ...split, validationFraction: 0.5 })).fingerprint, fingerprint);
  assertNotEquals((await splitTokens(counting.with(999, 5), split)).fingerprint, fingerprint);
});

Deno.test("splitTokens refuses parts shorter than a sequence and its target", async () => {
  await splitTokens(counting.slice(0, 9), { ...split, validationFraction: 0 });
  await assertRejects(
    () => splitTokens(counting.slice(0, 8), { ...split, validationFraction: 0 }),
    DataError,
    "the training part of the text has 8 tokens, one sequence needs 9; give more text or lower --sequence-length",
  );
  await assertRejects(
    () => splitTokens(counting.slice(0, 80), split),
    DataError,
    "the validation part of the text has 8",
  );
});

/** Values tell positions: token i is i. */
const tokens = Uint32Array.from({ length: 203 }, (_, i) => i);
const shape = { batchSize: 4, sequenceLength: 10, seed: 5 };

/** Starts of a batch's windows, after checking that each is a run of the text with its targets. */
function starts({ ids, targets }: Batch, sequenceLength = 10): number[] {
  const rows = ids.length / sequenceLength;
  return Array.from({ length: rows }, (_, row) => {
    const start = ids[row * sequenceLength]!;
    for (let t = 0; t < sequenceLength; t++) {
      assertEquals([ids[row * sequenceLength + t], targets[row * sequenceLength + t]], [
        start + t,
        start + t + 1,
      ]);
    }
    return start;
  });
}

function epochStarts(epoch: number, settings = shape): number[] {
  return Array.from(
    { length: 5 },
    (_, i) => starts(trainingBatch(tokens, { index: 5 * epoch + i, ...settings })),
  ).flat();
}

Deno.test("trainingBatch visits every window once an epoch, each epoch in another order", () => {
  assertEquals(windowCount(tokens, 10), 20);
  const epochs = [0, 1, 2, 3].map((epoch) => epochStarts(epoch));
  for (const visited of epochs) {
    const sorted = visited.toSorted((a, b) => a - b);
    const shift = sorted[0]!;
    assertEquals(shift >= 0 && shift <= 2, true, "the text has two tokens to spare");
    assertEquals(sorted, Array.from({ length: 20 }, (_, i) => shift + 10 * i));
  }
  assertNotEquals(epochs[0], epochs[1]);
  assertNotEquals(epochs[1], epochs[2]);
  const shifts = new Set(Array.from({ length: 12 }, (_, epoch) => Math.min(...epochStarts(epoch))));
  assertEquals(shifts.size, 3);
});

Deno.test("trainingBatch is a function of index and seed alone", () => {
  const forwards = [0, 1, 2, 3, 4, 5, 11, 12].map((index) => trainingBatch(tokens, { index, ...shape }));
  const backwards = [12, 11, 5, 4, 3, 2, 1, 0].map((index) => trainingBatch(tokens, { index, ...shape }));
  assertEquals(forwards, backwards.reverse());
  assertNotEquals(epochStarts(0), epochStarts(0, { ...shape, seed: 6 }));
});

Deno.test("trainingBatch crosses epochs when the batch does not divide them", () => {
  const settings = { ...shape, batchSize: 7 };
  const visited = Array.from(
    { length: 20 },
    (_, index) => starts(trainingBatch(tokens, { index, ...settings })),
  ).flat();
  for (let epoch = 0; epoch < 7; epoch++) {
    assertEquals(new Set(visited.slice(20 * epoch, 20 * (epoch + 1))).size, 20);
  }
});

Deno.test("trainingBatch repeats a text of one window", () => {
  const short = tokens.slice(0, 11);
  assertEquals(starts(trainingBatch(short, { index: 3, ...shape })), [0, 0, 0, 0]);
});

Deno.test("evaluationBatches spreads full batches over the text, in its order", () => {
  const settings = { batchSize: 4, sequenceLength: 10 };
  const all = [...evaluationBatches(tokens, { ...settings, maximumBatches: 99 })];
  assertEquals(all.flatMap((batch) => starts(batch)), Array.from({ length: 20 }, (_, i) => 10 * i));
  const some = [...evaluationBatches(tokens, { ...settings, maximumBatches: 2 })].flatMap((batch) =>
    starts(batch)
  );
  assertEquals(some, [0, 20, 50, 70, 100, 120, 150, 170]);
  const uneven = [...evaluationBatches(tokens, { ...settings, batchSize: 7, maximumBatches: 99 })];
  assertEquals(uneven.map(({ ids }) => ids.length), [70, 70]);
});
