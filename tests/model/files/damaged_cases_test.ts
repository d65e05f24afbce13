/** Damage that once went unnoticed, or ended in a message of several lines: each kind by name. */
import { assertEquals, assertRejects, assertStringIncludes } from "@std/assert";
import { join } from "@std/path";
import { openCheckpoint } from "../../../model/files/checkpoint_source.ts";
import { CheckpointError } from "../../../model/files/safetensors.ts";
import { readWeight } from "../../../model/files/weight_file.ts";
import { ggufAnatomy } from "../../support/damage_gguf.ts";
import { safetensorsAnatomy, withHeader } from "../../support/damage_safetensors.ts";
import { openDamages } from "../../support/damage_trials.ts";
import { memoryWeightFile } from "../../support/memory_weights.ts";

type Bytes = Uint8Array<ArrayBuffer>;

const WEIGHTS = "model.safetensors";
const INDEX = "model.safetensors.index.json";
const SHARD = "model-00001-of-00002.safetensors";
const NORM = "model.norm.weight";

/** One file's bytes in place of others. */
interface Case {
  readonly model: string;
  readonly file: string;
  readonly change: (bytes: Bytes) => Bytes;
  /** Part of the refusal. */
  readonly message: string;
}

const utf8 = new TextEncoder();

/** Another text of a file. */
function text(change: (text: string) => string): Case["change"] {
  return (bytes) => utf8.encode(change(new TextDecoder().decode(bytes)));
}

/** Another header of a safetensors file. */
function header(change: (text: string) => string): Case["change"] {
  return (bytes) => {
    const { data } = safetensorsAnatomy(bytes);
    return withHeader(change(new TextDecoder().decode(bytes.subarray(8, bytes.length - data.length))), data);
  };
}

/** A header with one more entry, which has no bytes. */
function withEntry(name: string, dtype: string): Case["change"] {
  return header((json) =>
    json.replace("{", `{"${name}": {"dtype": "${dtype}", "shape": [0], "data_offsets": [0, 0]}, `)
  );
}

/** A GGUF file with one byte changed at a place of a value. */
function ggufByte(key: string, change: { at: "name" | "type"; byte: number }): Case["change"] {
  return (bytes) => {
    const { begin } = ggufAnatomy(bytes).values.get(key)!.span;
    const out = bytes.slice();
    out[begin + 8 + key.length - (change.at === "name" ? 1 : 0)] = change.byte;
    return out;
  };
}

const cases: Readonly<Record<string, Case>> = {
  "a tensor's name of two lines": {
    model: "quantized",
    file: WEIGHTS,
    change: header((json) => json.replace(NORM, "model\\nnorm")),
    message: 'tensor "model norm" has no place in the model',
  },
  "a tensor's name without end": {
    model: "quantized",
    file: WEIGHTS,
    change: header((json) => json.replace(NORM, "norm".repeat(5000))),
    message: 'normnorm" has no place in the model',
  },
  "a tensor that the header has twice": {
    model: "own",
    file: WEIGHTS,
    change: header((json) => json.replace("{", `{"${NORM}": {"dtype": "F32"}, `)),
    message: `its header has the field "${NORM}" twice`,
  },
  "a type that the header gives twice": {
    model: "own",
    file: WEIGHTS,
    change: header((json) => json.replace('"dtype":"F32"', '"dtype":"I32","\\u0064type":"F32"')),
    message: 'its header has the field "dtype" twice',
  },
  "a header that is not UTF-8": {
    model: "own",
    file: WEIGHTS,
    change: (bytes) => bytes.slice().fill(0xff, 30, 31),
    message: "its header is not UTF-8",
  },
  "a tensor named as a property of every object": {
    model: "own",
    file: WEIGHTS,
    change: withEntry("__proto__", "F32"),
    message: 'tensor "__proto__" has no place',
  },
  "a bias of a type that is not read": {
    model: "own",
    file: WEIGHTS,
    change: withEntry("model.layers.0.self_attn.q_proj.bias", "F64"),
    message: 'tensor "model.layers.0.self_attn.q_proj.bias" has no place',
  },
  "an index that leaves out a tensor of its shard": {
    model: "sharded",
    file: SHARD,
    change: withEntry("model.layers.0.self_attn.q_proj.bias", "F16"),
    message: `${INDEX}: it does not say that tensor "model.layers.0.self_attn.q_proj.bias" is in ${SHARD}`,
  },
  "an index that names two shards for a tensor": {
    model: "sharded",
    file: INDEX,
    change: text((json) => json.replace('"weight_map": {', `$& "${NORM}": "${SHARD}",`)),
    message: `${INDEX}: it has the field "${NORM}" twice`,
  },
  "an index with a shard of a property's name": {
    model: "sharded",
    file: INDEX,
    change: text((json) => json.replace('"weight_map": {', '$& "__proto__": "a\\nb",')),
    message:
      `${INDEX}: field "weight_map.__proto__" is "a\\nb", wanted a .safetensors file of the same folder`,
  },
  "another head in a model that shares it with the embedding": {
    model: "quantized",
    file: "config.json",
    change: text((json) => json.replace('"tie_word_embeddings": false', '"tie_word_embeddings": true')),
    message:
      'tensors "model.embed_tokens.weight" and "lm_head.weight" differ, but tie_word_embeddings is true',
  },
  "a misspelled field of a configuration": {
    model: "sharded",
    file: "config.json",
    change: text((json) => json.replace("rope_theta", "rope_thet`")),
    message: 'unknown field "rope_thet`"; correct its name if it is rope_theta',
  },
  "a field that a configuration has twice": {
    model: "sharded",
    file: "config.json",
    change: text((json) => json.replace("{", '{"rope_theta": 10000,')),
    message: 'it has the field "rope_theta" twice',
  },
  "a configuration that is not UTF-8": {
    model: "sharded",
    file: "config.json",
    change: (bytes) => bytes.slice().fill(0xff, 5, 6),
    message: "config.json: it is not UTF-8",
  },
  "fractions with the type of whole numbers": {
    model: "gguf",
    file: "tiny.gguf",
    change: ggufByte("llama.rope.freq_base", { at: "type", byte: 4 }),
    message: '"llama.rope.freq_base" has the type 4, wanted 6 or 12 (a float)',
  },
  "a misspelled key of a tokenizer": {
    model: "gguf_text",
    file: "text.gguf",
    change: ggufByte("tokenizer.ggml.pre", { at: "name", byte: 0x64 }),
    message: "it has the unknown key tokenizer.ggml.prd, but no tokenizer.ggml.pre",
  },
};

for (const [label, { model: name, file, change, message }] of Object.entries(cases)) {
  Deno.test(`a model is refused for ${label}`, async () => {
    await using damages = await openDamages();
    const model = damages.models.find((model) => model.name === name)!;
    const bytes = change(model.files[file]!);
    const outcome = await damages.run({ model, files: { ...model.files, [file]: bytes }, label });
    assertStringIncludes(outcome.message, message);
  });
}

Deno.test("a head may be stored beside the embedding that it is", async () => {
  await using damages = await openDamages();
  const model = damages.models.find(({ name }) => name === "quantized")!;
  const bytes = model.files[WEIGHTS]!.slice();
  const { tensors, data } = safetensorsAnatomy(bytes);
  const [[from, end], [to]] = ["model.embed_tokens.weight", "lm_head.weight"].map((name) =>
    tensors.get(name)!.data_offsets.map((offset) => bytes.length - data.length + offset)
  ) as [[number, number], [number]];
  bytes.copyWithin(to, from, end);
  const tie = text((json) => json.replace('"tie_word_embeddings": false', '"tie_word_embeddings": true'));
  const config = tie(model.files["config.json"]!);
  const files = { ...model.files, [WEIGHTS]: bytes, "config.json": config };
  const { loaded, message } = await damages.run({ model, files, label: "tied" });
  assertEquals(message, "");
  assertEquals(loaded!.config.tieWordEmbeddings, true);
});

for (
  const [name, make, message] of [
    [
      "of 10 GB",
      (path: string) => Deno.writeFile(path, new Uint8Array(1)).then(() => Deno.truncate(path, 1e10)),
      "it has 10000000000 bytes, wanted a text of at most 50000000",
    ],
    ["that is a folder", (path: string) => Deno.mkdir(path), "it is a folder, wanted a file"],
  ] as const
) {
  Deno.test(`a config.json ${name} is refused at once`, async () => {
    const folder = await Deno.makeTempDir();
    try {
      const path = join(folder, "config.json");
      await make(path);
      const error = await assertRejects(() => openCheckpoint(folder), CheckpointError);
      assertEquals(error.message, `Cannot load ${path}: ${message}`);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  });
}

Deno.test("readWeight looks for a weight before it makes room for it", async () => {
  const shape = [2 ** 24, 2 ** 18];
  const file = memoryWeightFile(
    new Map([["weight", { shape: [1, 1], format: "f32", bytes: new Uint8Array(4) }]]),
  );
  await assertRejects(() => readWeight(file, { name: "weight", shape }), CheckpointError, "has shape (1, 1)");
});
