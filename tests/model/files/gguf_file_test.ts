import { fromFileUrl } from "@std/path";
import { assertEquals, assertRejects } from "@std/assert";
import { openGguf } from "../../../model/files/gguf_file.ts";
import { decodeNumbers } from "../../../model/files/number_formats.ts";
import { CheckpointError } from "../../../model/files/safetensors.ts";
import {
  fileTest,
  ggufBytes,
  type GgufParts,
  smallestModel,
  text,
  texts,
  uint32,
} from "../../support/gguf_bytes.ts";

const tiny = fromFileUrl(new URL("../../../fixtures/gguf/tiny.gguf", import.meta.url));
const tinyWeights: Record<string, { shape: number[]; format: string; sha256: string }> = JSON.parse(
  Deno.readTextFileSync(new URL("../../../fixtures/gguf/tiny.json", import.meta.url)),
);

Deno.test("openGguf gives every format's numbers, queries and keys in Hugging Face's order", async () => {
  using file = await openGguf(tiny);
  assertEquals([...file.entries.keys()].sort(), Object.keys(tinyWeights).sort());
  for (const [name, { shape, format, sha256 }] of Object.entries(tinyWeights)) {
    const entry = file.entries.get(name)!;
    assertEquals([entry.shape, entry.format], [shape, format], name);
    const rows = { start: 0, count: shape.length === 1 ? 1 : shape[0]! };
    const values = decodeNumbers(entry.format, await file.readRows(name, rows));
    assertEquals(new Uint8Array(await crypto.subtle.digest("SHA-256", values)).toHex(), sha256, name);
  }
  assertEquals(file.ropeFactors, Float32Array.of(1, 8));
});

Deno.test("openGguf gives metadata of every type", async () => {
  using file = await openGguf(tiny);
  const types = Object.entries(file.metadata).filter(([key]) => key.startsWith("types."));
  assertEquals(Object.fromEntries(types), {
    "types.uint8": 200,
    "types.int8": -100,
    "types.uint16": 60000,
    "types.int16": -30000,
    "types.uint64": 2 ** 40 + 1,
    "types.int64": -(2 ** 40),
    "types.float64": 0.1,
    "types.bool": true,
    "types.numbers": [1, 2, 3],
    "types.booleans": [true, false],
  });
  assertEquals(file.metadata["tokenizer.ggml.tokens"], [
    "<unk>",
    "<s>",
    "</s>",
    "▁a",
    "b",
    "é",
    "日本",
    "🙂",
  ]);
  assertEquals(file.metadata["tokenizer.ggml.scores"], [0, 0, 0, -1.5, -2, -3, -4, -5]);
});

Deno.test("readRows gives any rows, also several at the same time", async () => {
  using file = await openGguf(tiny);
  for (const name of ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]) {
    const weight = `model.layers.0.${name}.weight`;
    const [rows] = file.entries.get(weight)!.shape;
    const whole = await file.readRows(weight, { start: 0, count: rows! });
    const bytes = whole.length / rows!;
    const ranges = Array.from(
      { length: rows! + 1 },
      (_, start) => Array.from({ length: rows! - start + 1 }, (_, count) => ({ start, count })),
    ).flat();
    const parts = await Promise.all(ranges.map((range) => file.readRows(weight, range)));
    parts.forEach((part, i) => {
      const { start, count } = ranges[i]!;
      assertEquals(part, whole.slice(start * bytes, (start + count) * bytes), `${name} ${start} ${count}`);
    });
  }
});

fileTest("openGguf reads version 2, another alignment, no padding at the end, empty values", async (path) => {
  const parts: GgufParts = {
    ...smallestModel,
    version: 2,
    alignment: 64,
    values: [...smallestModel.values, ["general.alignment", uint32(64)], ["none", texts([])], ["", text("")]],
  };
  const bytes = ggufBytes(parts);
  // The last tensor has 16 bytes of its 64.
  await Deno.writeFile(path, bytes.subarray(0, -48));
  using file = await openGguf(path);
  assertEquals([file.entries.size, file.ropeFactors], [11, null]);
  assertEquals([file.metadata["none"], file.metadata[""]], [[], ""]);
  assertEquals(await file.readRows("model.norm.weight", { start: 0, count: 1 }), new Uint8Array(16));
});

fileTest(
  "openGguf keeps texts whole that lie across the pieces in which headers are parsed",
  async (path) => {
    // A piece has 2 MB: the last name lies across the end of the second one, the long text across that of the third.
    const names = ["0", "1", "2", "3", "4"].map((digit) => digit.repeat(900_000));
    const long = "é".repeat(1_500_000);
    const values = [...smallestModel.values, ["names", texts(names)], ["long", text(long)]] as const;
    await Deno.writeFile(path, ggufBytes({ ...smallestModel, values }));
    using file = await openGguf(path);
    assertEquals(
      (file.metadata["names"] as string[]).map((name) => name.length),
      names.map((name) => name.length),
    );
    assertEquals(file.metadata["long"] === long, true);
  },
);

fileTest("openGguf names the file that is not there", async (path) => {
  await assertRejects(() => openGguf(path), CheckpointError, `Cannot load ${path}: no such file`);
});

fileTest(
  "readRows names what is missing, and notices a file that shrank since it was opened",
  async (path) => {
    await Deno.writeFile(path, ggufBytes(smallestModel));
    using file = await openGguf(path);
    const rows = { start: 0, count: 1 };
    await assertRejects(
      () => file.readRows("lm_head.weight", rows),
      CheckpointError,
      '"lm_head.weight" is missing',
    );
    await Deno.truncate(path, (await Deno.stat(path)).size - 17);
    await assertRejects(() => file.readRows("model.norm.weight", rows), CheckpointError, "the file shrank");
  },
);
