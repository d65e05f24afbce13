/** Damaged GGUF files, and those of other models, end in one line that says why they cannot be loaded. */
import { assertEquals, assertLess, assertMatch, assertRejects, assertStringIncludes } from "@std/assert";
import { ConfigError } from "../../../model/config.ts";
import { ggufModelConfig } from "../../../model/files/gguf_config.ts";
import { openGguf } from "../../../model/files/gguf_file.ts";
import { parameterTable } from "../../../model/parameters.ts";
import { CheckpointError } from "../../../model/files/safetensors.ts";
import { readWeight } from "../../../model/files/weight_file.ts";
import { mutatedBytes } from "../../support/byte_mutations.ts";
import {
  array,
  concat,
  fileTest,
  ggufBytes,
  type GgufField,
  type GgufParts,
  smallestModel,
  type TensorPart,
  text,
  u32,
  uint32,
} from "../../support/gguf_bytes.ts";

function withValue(key: string, value: GgufField): GgufParts {
  return {
    ...smallestModel,
    values: [...smallestModel.values.filter(([other]) => other !== key), [key, value]],
  };
}

function withTensor(tensor: TensorPart): GgufParts {
  const others = smallestModel.tensors.filter(({ name }) => name !== tensor.name);
  return { ...smallestModel, tensors: [...others, tensor] };
}

const end = ggufBytes(smallestModel).length;
const huge = 2n ** 63n;

/** Files that cannot be opened, and what the message must say besides the path. */
const damaged: Record<string, readonly [file: GgufParts | Uint8Array<ArrayBuffer>, message: string]> = {
  "an empty file": [new Uint8Array(0), "it is not a GGUF file"],
  "another kind of file": [new TextEncoder().encode("This is no model at all.\n"), "it is not a GGUF file"],
  "a version that is not there": [ggufBytes(smallestModel).subarray(0, 6), "it is not a GGUF file"],
  "the first version": [
    { ...smallestModel, version: 1 },
    "of version 1, wanted 2 or 3; convert the model again",
  ],
  "a version to come": [{ ...smallestModel, version: 4 }, "of version 4, wanted 2 or 3"],
  "big-endian numbers": [{ ...smallestModel, version: 3 << 24 }, "big-endian"],
  "a header cut off": [ggufBytes(smallestModel).subarray(0, 300), "its header does not end within 300 bytes"],
  "data cut off": [
    ggufBytes(smallestModel).subarray(0, end - 17),
    `truncated or damaged: ${end - 17} bytes, its header speaks of ${end - 16}`,
  ],
  "bytes past the end": [concat(ggufBytes(smallestModel), new Uint8Array(16)), "truncated or damaged"],
  "more values than it has": [{ ...smallestModel, valueCount: huge }, "damaged"],
  "more tensors than it has": [{ ...smallestModel, tensorCount: 13n }, 'it has "" twice'],
  "more tensors than any model has": [
    { ...smallestModel, tensorCount: huge },
    "damaged: its header speaks of 9223372036854776000 tensors and 7 values",
  ],
  "fewer tensors than it has": [{ ...smallestModel, tensorCount: 10n }, "truncated or damaged"],
  "a text longer than the file": [
    withValue("text", concat(u32(8), new Uint8Array(8).fill(0x7f))),
    "its header does not end within",
  ],
  "a list longer than the file": [
    withValue("list", array(6, { count: huge, items: u32(0) })),
    "does not end within",
  ],
  "a list of texts longer than the file": [
    withValue("list", array(8, { count: huge, items: u32(0) })),
    "damaged",
  ],
  "a list too long to be parsed": [
    withValue("list", array(0, { count: 1_000_001n, items: new Uint8Array(1_000_001) })),
    "1000001 exceeds maximum allowed (1000000)",
  ],
  "a list of lists": [
    withValue("list", array(9, { count: 1n, items: uint32(1) })),
    '"list" has the unknown type 9',
  ],
  "a value of no type": [withValue("value", u32(13)), '"value" has the unknown type 13'],
  "a text that is not UTF-8": [
    withValue("text", text("\u0000").map((byte, i) => i === 12 ? 0xff : byte)),
    "is not UTF-8",
  ],
  "a value twice": [
    { ...smallestModel, values: [...smallestModel.values, ["llama.block_count", uint32(2)]] },
    'it has "llama.block_count" twice',
  ],
  "a tensor twice": [
    { ...smallestModel, tensors: [...smallestModel.tensors, smallestModel.tensors[0]!] },
    'it has "token_embd.weight" twice',
  ],
  "a name without end": [
    withTensor({ name: "x".repeat(1001), dimensions: [1] }),
    "cannot be a name",
  ],
  "a name of two lines": [withTensor({ name: "output\nweight", dimensions: [1] }), "cannot be a name"],
  "an alignment that is no power of two": [
    withValue("general.alignment", uint32(24)),
    "general.alignment is 24, wanted a power of two",
  ],
  "an alignment of nothing": [
    withValue("general.alignment", uint32(0)),
    "general.alignment must be a positive",
  ],
  "an alignment beyond the file": [withValue("general.alignment", uint32(2 ** 31)), "begins at byte"],
  "no tensors": [{ ...smallestModel, tensors: [] }, "it has no tensors"],
  "five dimensions": [
    withTensor({ name: "output.weight", dimensions: [1, 1, 1, 1, 1] }),
    'tensor "output.weight" has 5 dimensions',
  ],
  "three dimensions": [
    withTensor({ name: "output.weight", dimensions: [4, 2, 3] }),
    'tensor "output.weight" of type F32 has the impossible shape (3, 2, 4)',
  ],
  "no dimensions": [withTensor({ name: "output.weight", dimensions: [] }), "the impossible shape ()"],
  "a tensor of nothing": [
    withTensor({ name: "output.weight", dimensions: [4, 0] }),
    "the impossible shape (0, 4)",
  ],
  "a tensor larger than the file": [
    withTensor({ name: "output_norm.weight", dimensions: [2 ** 32, 2 ** 32], bytes: 16 }),
    "truncated or damaged",
  ],
  "rows that are not whole blocks": [
    withTensor({ name: "output.weight", dimensions: [4, 16], type: 8, bytes: 68 }),
    'tensor "output.weight" of type Q8_0 has the impossible shape (16, 4)',
  ],
  "a format it cannot read": [
    withTensor({ name: "output.weight", dimensions: [256, 2], type: 13, bytes: 352 }),
    'tensor "output.weight" is Q5_K, wanted F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q4_K, Q6_K; use another file',
  ],
  "a format that nobody knows": [
    withTensor({ name: "output.weight", dimensions: [4, 2], type: 99 }),
    "of type 99",
  ],
  "a tensor in the place of another": [
    withTensor({ name: "output_norm.weight", dimensions: [4], offset: 0n }),
    'tensor "output_norm.weight" begins at byte',
  ],
  "a tensor far outside": [
    withTensor({ name: "output_norm.weight", dimensions: [4], offset: huge }),
    "begins at byte",
  ],
  "a gap between tensors": [
    withTensor({ name: "blk.0.ffn_down.weight", dimensions: [8, 4], offset: BigInt(end) }),
    'tensor "blk.0.ffn_down.weight" begins at byte',
  ],
  "no architecture": [
    { ...smallestModel, values: smallestModel.values.slice(1) },
    'general.architecture is nothing, this program runs "llama"',
  ],
  "another architecture": [
    withValue("general.architecture", text("qwen2")),
    'general.architecture is "qwen2"',
  ],
  "a part of a model": [
    withValue("split.count", uint32(3)),
    "it is one of 3 parts of a model; join them with llama-gguf-split --merge",
  ],
  "biases": [
    withTensor({ name: "blk.0.attn_q.bias", dimensions: [4] }),
    'tensor "blk.0.attn_q.bias" has no place in a Llama model without biases and experts',
  ],
  "experts": [
    withTensor({ name: "blk.0.ffn_gate_inp.weight", dimensions: [4, 2] }),
    'tensor "blk.0.ffn_gate_inp.weight" has no place',
  ],
  "a name that objects have": [
    withTensor({ name: "constructor", dimensions: [4] }),
    'tensor "constructor" has no place',
  ],
  "heads of odd length": [
    withValue("llama.attention.head_count", uint32(4)),
    'tensor "blk.0.attn_q.weight" of shape (4, 4) cannot be split into heads of even length, their number is 4',
  ],
  "heads that are not counted": [
    withValue("llama.attention.head_count", text("four")),
    'their number is "four"',
  ],
  "queries that are a vector": [
    withTensor({ name: "blk.0.attn_q.weight", dimensions: [16] }),
    'tensor "blk.0.attn_q.weight" of shape (16) cannot be split into heads of even length, their number is 1',
  ],
};

for (const [name, [content, message]] of Object.entries(damaged)) {
  fileTest(`openGguf refuses ${name}`, async (path) => {
    await Deno.writeFile(path, content instanceof Uint8Array ? content : ggufBytes(content));
    const error = await assertRejects(() => openGguf(path), CheckpointError);
    assertStringIncludes(error.message, `Cannot load ${path}: `);
    assertStringIncludes(error.message, message);
    assertEquals(error.message.includes("\n"), false);
  });
}

const MUTATIONS = 100;

/** Loads a file as an import would; whether it could be loaded. */
async function isLoaded(path: string, label: string): Promise<boolean> {
  const start = performance.now();
  try {
    using file = await openGguf(path);
    for (const weight of parameterTable(ggufModelConfig(file))) await readWeight(file, weight);
    return true;
  } catch (error) {
    assertEquals(
      error instanceof CheckpointError || error instanceof ConfigError,
      true,
      `${label}: ${error}`,
    );
    // deno-lint-ignore no-control-regex -- none may reach a terminal
    assertMatch((error as Error).message, /^Cannot (load|use) [^\x00-\x1f]{5,1400}$/);
    return false;
  } finally {
    assertLess(performance.now() - start, 2000, label);
  }
}

const originals = {
  "a model of every format": Deno.readFileSync(new URL("../../../fixtures/gguf/tiny.gguf", import.meta.url)),
  "the smallest model": ggufBytes(smallestModel),
};

for (const [name, bytes] of Object.entries(originals)) {
  fileTest(`${MUTATIONS} damaged versions of ${name} are loaded or refused in one line`, async (path) => {
    let loaded = 0;
    for (let seed = 0; seed < MUTATIONS; seed++) {
      await Deno.writeFile(path, mutatedBytes(bytes, { seed, headerBytes: 1800 }));
      if (await isLoaded(path, `seed ${seed}`)) loaded++;
    }
    // Damage that is never noticed, or always, would prove little.
    assertEquals(loaded > MUTATIONS / 50 && loaded < MUTATIONS / 2, true, `${loaded} loaded`);
  });
}
