import { join } from "@std/path";
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { encodeNumbers, rowBytes } from "../../../model/files/number_formats.ts";
import { CheckpointError, SafetensorsFile } from "../../../model/files/safetensors.ts";
import { type TensorSource, writeSafetensors } from "../../../model/files/safetensors_writer.ts";
import { readWeight } from "../../../model/files/weight_file.ts";
import { readTensors } from "../../support/golden.ts";
import { folderTest } from "../../support/program.ts";

const values = Float32Array.of(0.1, -2, 3e-39, -1.5e38, 5, 6);
type Whole = Omit<TensorSource, "data"> & { readonly data: () => Float32Array | Promise<Float32Array> };
const tensors: readonly Whole[] = [
  { name: "model.norm.weight", shape: [6], data: () => values },
  { name: "zähler", shape: [2, 3], data: () => Promise.resolve(values.map((value) => value * 2)) },
  { name: "empty", shape: [0, 4], data: () => new Float32Array(0) },
  // A view with an offset of its own.
  { name: "part", shape: [2], data: () => values.subarray(4) },
];

function storageTest(name: string, body: (path: string) => Promise<void>): void {
  folderTest(name, (folder) => body(join(folder, "model.safetensors")));
}

storageTest("writeSafetensors and SafetensorsFile agree bit for bit", async (path) => {
  await writeSafetensors(path, { tensors, metadata: { format: "pt", step: "12" } });
  using file = await SafetensorsFile.open(path);
  assertEquals(file.metadata, { format: "pt", step: "12" });
  assertEquals([...file.entries.keys()], ["model.norm.weight", "zähler", "empty", "part"]);
  // Out of order, and twice.
  assertEquals(await readWeight(file, { name: "part", shape: [2] }), Float32Array.of(5, 6));
  for (const { name, shape, data } of [...tensors, ...tensors]) {
    assertEquals(await readWeight(file, { name, shape }), Float32Array.from(await data()));
  }
});

storageTest(
  "writeSafetensors writes what an independent reader reads, data at a multiple of eight",
  async (path) => {
    await writeSafetensors(path, { tensors, metadata: { format: "pt" } });
    const read = readTensors(new URL(`file://${path}`));
    assertEquals([...read.keys()], tensors.map(({ name }) => name));
    for (const { name, shape, data } of tensors) {
      assertEquals(read.get(name), { shape, data: Float32Array.from(await data()) });
    }
    const bytes = await Deno.readFile(path);
    assertEquals(new DataView(bytes.buffer).getBigUint64(0, true) % 8n, 0n);
  },
);

storageTest(
  "SafetensorsFile reads files whose header is in another order and has no metadata",
  async (path) => {
    const header = {
      b: { dtype: "F32", shape: [1], data_offsets: [4, 8] },
      a: { dtype: "F32", shape: [1], data_offsets: [0, 4] },
      step: { dtype: "I32", shape: [1], data_offsets: [8, 12] },
    };
    await Deno.writeFile(path, fileBytes(header, new Uint8Array(Float32Array.of(1, 2, 3).buffer)));
    using file = await SafetensorsFile.open(path);
    assertEquals(file.metadata, {});
    assertEquals(await readWeight(file, { name: "b", shape: [1] }), Float32Array.of(2));
    const error = await assertRejects(() => readWeight(file, { name: "step", shape: [1] }), CheckpointError);
    assertEquals(error.message, `Cannot load ${path}: tensor "step" is I32, which no weight can be`);
  },
);

function fileBytes(header: unknown, data: Uint8Array): Uint8Array {
  const text = new TextEncoder().encode(typeof header === "string" ? header : JSON.stringify(header));
  const bytes = new Uint8Array(8 + text.length + data.length);
  new DataView(bytes.buffer).setBigUint64(0, BigInt(text.length), true);
  bytes.set(text, 8);
  bytes.set(data, 8 + text.length);
  return bytes;
}

const eight = new Uint8Array(8);
const entry = { dtype: "F32", shape: [2], data_offsets: [0, 8] };

/** Files that cannot be opened, and what the message must say besides the path. */
const damaged: Record<string, readonly [bytes: Uint8Array, message: string]> = {
  "an empty file": [new Uint8Array(0), "0 bytes, fewer than a safetensors header"],
  "five bytes": [new Uint8Array(5), "5 bytes, fewer than a safetensors header"],
  "text": [new TextEncoder().encode("This is no model at all.\n"), "not a safetensors file"],
  "a header cut off": [
    fileBytes({ weight: entry }, eight).subarray(0, 30),
    "truncated inside its header (30 bytes)",
  ],
  "a header that is not JSON": [fileBytes('{"weight": ', eight), "its header is not JSON"],
  "a header that is a list": [fileBytes([1, 2], eight), "its header is not JSON"],
  "data cut off": [fileBytes({ weight: entry }, eight.subarray(0, 5)), "truncated or damaged"],
  "bytes past the end": [fileBytes({ weight: entry }, new Uint8Array(9)), "truncated or damaged"],
  "an entry without offsets": [
    fileBytes({ weight: { dtype: "F32", shape: [2] } }, eight),
    'entry "weight" is malformed',
  ],
  "a shape that does not fill its bytes": [
    fileBytes({ weight: { ...entry, shape: [3] } }, eight),
    'tensor "weight" spans 8 bytes, its shape needs 12',
  ],
  "offsets in reverse": [
    fileBytes({ weight: { ...entry, data_offsets: [8, 0] } }, eight),
    'tensor "weight" spans -8 bytes',
  ],
  "an unknown dtype": [
    fileBytes({ weight: { ...entry, dtype: "TEXT" } }, eight),
    'tensor "weight" spans 8 bytes',
  ],
  "two tensors in one place": [
    fileBytes({ weight: entry, other: entry }, eight),
    "its tensors overlap or leave a hole at byte 0",
  ],
  "a hole between tensors": [
    fileBytes({ weight: entry, other: { ...entry, data_offsets: [12, 20] } }, new Uint8Array(20)),
    "its tensors overlap or leave a hole at byte 8",
  ],
  "metadata that is not text": [
    fileBytes({ __metadata__: { step: 3 }, weight: entry }, eight),
    "metadata is malformed",
  ],
};

for (const [name, [bytes, message]] of Object.entries(damaged)) {
  storageTest(`SafetensorsFile refuses ${name}`, async (path) => {
    await Deno.writeFile(path, bytes);
    const error = await assertRejects(() => SafetensorsFile.open(path), CheckpointError);
    assertStringIncludes(error.message, `Cannot load ${path}: `);
    assertStringIncludes(error.message, message);
  });
}

storageTest("SafetensorsFile names the file that is not there", async (path) => {
  await assertRejects(() => SafetensorsFile.open(path), CheckpointError, `Cannot load ${path}: no such file`);
});

storageTest(
  "readWeight names file and tensor when the tensor is missing or has another shape",
  async (path) => {
    await writeSafetensors(path, { tensors, metadata: {} });
    using file = await SafetensorsFile.open(path);
    const missing = await assertRejects(
      () => readWeight(file, { name: "lm_head.weight", shape: [6] }),
      CheckpointError,
    );
    assertEquals(missing.message, `Cannot load ${path}: tensor "lm_head.weight" is missing`);
    const reshaped = await assertRejects(
      () => readWeight(file, { name: "model.norm.weight", shape: [2, 3] }),
      CheckpointError,
    );
    assertStringIncludes(
      reshaped.message,
      `Cannot load ${path}: tensor "model.norm.weight" has shape (6), expected (2, 3)`,
    );
  },
);

storageTest("readWeight notices a file that shrank since it was opened", async (path) => {
  await writeSafetensors(path, { tensors, metadata: {} });
  using file = await SafetensorsFile.open(path);
  await Deno.truncate(path, (await Deno.stat(path)).size - 4);
  await assertRejects(
    () => readWeight(file, { name: "part", shape: [2] }),
    CheckpointError,
    'ends inside tensor "part"',
  );
});

storageTest("writeSafetensors refuses data of another size than its shape", async (path) => {
  const wrong = [{ name: "weight", shape: [4], data: () => new Float32Array(3) }];
  await assertRejects(
    () => writeSafetensors(path, { tensors: wrong, metadata: {} }),
    CheckpointError,
    "damaged",
  );
  assertEquals([...Deno.readDirSync(join(path, ".."))], []);
});

storageTest("half precision and quantized blocks are read as what they are", async (path) => {
  const numbers = Float32Array.from({ length: 3 * 64 }, (_, i) => Math.sin(i) * 3);
  const formats = ["f32", "f16", "q8_0"] as const;
  // In pieces of any length.
  async function* pieces(bytes: Uint8Array): AsyncGenerator<Uint8Array> {
    for (let start = 0; start < bytes.length; start += 50) yield bytes.subarray(start, start + 50);
  }
  await writeSafetensors(path, {
    tensors: formats.map((format) => ({
      name: format,
      shape: [3, 64],
      format,
      data: () => pieces(encodeNumbers(format, numbers)),
    })),
    metadata: {},
  });
  using file = await SafetensorsFile.open(path);
  assertEquals(file.metadata, { quantized: "q8_0" });
  for (const format of formats) {
    assertEquals(file.entries.get(format)!.shape, [3, 64]);
    assertEquals(file.entries.get(format)!.format, format);
    const bytes = encodeNumbers(format, numbers);
    const width = rowBytes(format, 64);
    assertEquals(await file.readRows(format, { start: 1, count: 2 }), bytes.slice(width));
    const read = await readWeight(file, { name: format, shape: [3, 64] });
    assertEquals(encodeNumbers(format, read), bytes);
  }
});
