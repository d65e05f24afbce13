import { assertEquals, assertRejects, assertStringIncludes, assertThrows } from "@std/assert";
import { join } from "@std/path";
import { CheckpointError } from "../../../model/files/safetensors.ts";
import { jsonTokenizer, readTokenizer, readTokenizerFiles } from "../../../model/text/tokenizer_json.ts";
import { decodeAll } from "../../support/decode.ts";
import { folderTest } from "../../support/program.ts";
import { createRandom } from "../../support/random.ts";
import {
  type Change,
  fixtureFiles,
  type FixtureForm,
  fixtureLines,
  fixtureText,
} from "../../support/tokenizer_fixture.ts";

const forms: readonly FixtureForm[] = ["byte_level", "sentence_piece"];

for (const form of forms) {
  Deno.test(`a ${form} tokenizer makes the tokens and texts that Hugging Face's library makes of nasty lines`, () => {
    const tokenizer = jsonTokenizer(fixtureFiles(form));
    const lines = fixtureLines(form);
    assertEquals(lines.length, 40);
    for (const { text, ids, decoded } of lines) {
      assertEquals(tokenizer.encode(text), ids, text);
      assertEquals(decodeAll(tokenizer, ids), decoded, text);
    }
  });
}

Deno.test("neither nested steps nor the older way of writing merges make a difference", () => {
  const nested = jsonTokenizer(fixtureFiles("byte_level", {
    change: (json) => {
      const { pretokenizers: [digits, words] } = json.pre_tokenizer;
      json.pre_tokenizer.pretokenizers = [{ type: "Sequence", pretokenizers: [digits] }, words];
      json.decoder = { type: "Sequence", decoders: [json.decoder] };
      json.model.merges = json.model.merges.map((pair: string[]) => pair.join(" "));
    },
  }));
  const text = "Call me 123 Ishmael";
  assertEquals(nested.encode(text), jsonTokenizer(fixtureFiles("byte_level")).encode(text));
});

Deno.test("what a tokenizer puts before a text can be left out", () => {
  const tokenizer = jsonTokenizer(fixtureFiles("sentence_piece"));
  const [begin, ...rest] = tokenizer.encode("whale");
  assertEquals(begin, 1);
  assertEquals(tokenizer.encode("whale", { addSpecialTokens: false }), rest);
  assertEquals([tokenizer.encode(""), tokenizer.encode("", { addSpecialTokens: false })], [[1], []]);
  assertEquals(tokenizer.vocabSize, 400);
});

Deno.test("texts end at the config's eos_token and wherever else the files say", () => {
  const { endOfText, endTokens } = jsonTokenizer(
    fixtureFiles("byte_level", { config: { eos_token: "<|im_end|>" }, endTokens: [0, 2] }),
  );
  assertEquals([endOfText, endTokens], [2, [2, 0]]);
  const without = jsonTokenizer(fixtureFiles("byte_level", { endTokens: [1, 0] }));
  assertEquals([without.endOfText, without.endTokens], [1, [1, 0]]);
});

folderTest("a folder's files are read as far as they exist", async (folder) => {
  async function write(name: string, value: unknown): Promise<void> {
    await Deno.writeTextFile(join(folder, name), typeof value === "string" ? value : JSON.stringify(value));
  }
  async function ends(eosTokenId?: unknown): Promise<readonly number[]> {
    return (await readTokenizer(folder, { eosTokenId })).endTokens;
  }
  await write("tokenizer.json", fixtureText("byte_level"));
  await assertRejects(() => ends(), CheckpointError, "no token ends a text");
  assertEquals(await ends(1), [1]);
  await write("generation_config.json", { eos_token_id: [2, 1], temperature: 0.6 });
  assertEquals(await ends(1), [1, 2]);
  await write("special_tokens_map.json", { eos_token: { content: "<|im_end|>", lstrip: false } });
  assertEquals(await ends([0]), [2, 0, 1]);
  await write("tokenizer_config.json", { eos_token: "<|endoftext|>", bos_token: null, chat_template: "old" });
  assertEquals(await ends(null), [0, 2, 1]);
  assertEquals((await readTokenizerFiles(folder)).config.chat_template, "old");
  await write("chat_template.jinja", "new");
  assertEquals((await readTokenizerFiles(folder)).config.chat_template, "new");

  await assertRejects(() => ends("2"), CheckpointError, 'config.json: field "eos_token_id"');
  await write("tokenizer_config.json", { eos_token: 5 });
  await assertRejects(() => ends(), CheckpointError, 'tokenizer_config.json: field "eos_token"');
  await write("tokenizer_config.json", { eos_tokem: "<|endoftext|>" });
  await assertRejects(
    () => ends(),
    CheckpointError,
    'unknown field "eos_tokem"; correct its name if it is eos_token',
  );
  await write("tokenizer_config.json", '{"eos_token": "a", "eos_token": "b"}');
  await assertRejects(() => ends(), CheckpointError, 'it has the field "eos_token" twice');
  await write("tokenizer.json", "{");
  await assertRejects(() => ends(), CheckpointError, "tokenizer.json: it is not JSON");
  await Deno.remove(join(folder, "tokenizer.json"));
  await assertRejects(() => ends(), CheckpointError, "no such file; a tokenizer in another form");
});

const damages: readonly (readonly [part: string, change: Change])[] = [
  ['field "decoder" is missing', (json) => delete json.decoder],
  ['has the unknown field "models"', (json) => json.models = json.model],
  ['its version is "2.0", expected "1.0"', (json) => json.version = "2.0"],
  ['its pre_tokenizer has the unknown field "name"', (json) => json.pre_tokenizer.name = "x"],
  ["its model has vocab [], expected an object", (json) => json.model.vocab = []],
  ['its model has type "Unigram", expected "BPE"', (json) => json.model.type = "Unigram"],
  ['token "Ġthe" has the id "3"', (json) => json.model.vocab["Ġthe"] = "3"],
  ['tokens "!" and "\\"" have the same id, 3', (json) => json.model.vocab['"'] = 3],
  ["none with the id 100", (json) => {
    const [token] = Object.entries(json.model.vocab).find(([, id]) => id === 100)!;
    json.model.vocab[token] = 1e9;
  }],
  ['"<|im_end|>" has two ids, 2 and 300', (json) => json.added_tokens[2].id = 300],
  ['merge 0 is "a b c", wanted two tokens', (json) => json.model.merges[0] = "a b c"],
  ["merge 1 is 7, wanted two tokens", (json) => json.model.merges[1] = 7],
  ['merge 3, ["Ġ","t"], is there twice', (json) => json.model.merges[3] = json.model.merges[0]],
  ['merge 0 needs the token "Ġz"', (json) => json.model.merges[0] = ["Ġ", "z"]],
  ['unk_token "<unk>" is not in the vocabulary', (json) => json.model.unk_token = "<unk>"],
  [
    'its pre_tokenizer has the unknown field "use_regez"',
    (json) => json.pre_tokenizer.pretokenizers[1].use_regez = true,
  ],
  [
    "its pre_tokenizer has type \"Whitespace\", expected 'ByteLevel' | 'Metaspace'",
    (json) => json.pre_tokenizer = { type: "Whitespace" },
  ],
  ['has behavior "MergedWithNext"', (json) => {
    json.pre_tokenizer = {
      type: "Split",
      pattern: { Regex: "a" },
      behavior: "MergedWithNext",
      invert: false,
    };
  }],
  ["Invalid regular expression", (json) => {
    json.pre_tokenizer = { type: "Split", pattern: { Regex: "(" }, behavior: "Isolated", invert: false };
  }],
  ["known with invert only", (json) => {
    json.pre_tokenizer = { type: "Split", pattern: { Regex: "a" }, behavior: "Removed", invert: false };
  }],
  [
    "its added_tokens has 0.single_word true, expected false",
    (json) => json.added_tokens[0].single_word = true,
  ],
  ["its decoder has the steps (none)", (json) => json.decoder = null],
  ["its decoder has the steps Fuse ByteLevel", (json) => {
    json.decoder = { type: "Sequence", decoders: [{ type: "Fuse" }, json.decoder] };
  }],
  ["normalized, which does not go with prepend_scheme first", (json) => {
    json.normalizer = { type: "NFC" };
    json.pre_tokenizer = { type: "Metaspace", replacement: "▁", prepend_scheme: "first" };
    json.added_tokens[0].normalized = true;
  }],
];

const sentencePieceDamages: readonly (readonly [part: string, change: Change])[] = [
  ['lacks the token of a byte, "<0x41>"', (json) => {
    json.model.vocab["<0x4!>"] = json.model.vocab["<0x41>"];
    delete json.model.vocab["<0x41>"];
  }],
  ['token "<s>" is not in the vocabulary under the id', (json) => {
    json.post_processor.special_tokens["<s>"].ids = [2];
  }],
  ["does not have the text exactly once", (json) => json.post_processor.single.pop()],
  ["two templates", (json) => {
    json.post_processor = { type: "Sequence", processors: [json.post_processor, json.post_processor] };
  }],
];

Deno.test("damaged files, and those that ask for what is not there, are refused in one line", () => {
  function check(form: FixtureForm, [part, change]: readonly [string, Change]): void {
    const error = assertThrows(() => jsonTokenizer(fixtureFiles(form, { change })), CheckpointError);
    assertStringIncludes(error.message, "Cannot use the tokenizer of a fixture: ");
    assertStringIncludes(error.message, part);
    assertEquals(error.message.includes("\n"), false);
  }
  for (const damage of damages) check("byte_level", damage);
  for (const damage of sentencePieceDamages) check("sentence_piece", damage);
  for (const tokenizer of [null, [], 5, "tokenizer"]) {
    assertThrows(
      () => jsonTokenizer({ ...fixtureFiles("byte_level"), tokenizer }),
      CheckpointError,
      "not a JSON object",
    );
  }
  const eos = { config: { eos_token: "</s>" } };
  assertThrows(
    () => jsonTokenizer(fixtureFiles("byte_level", eos)),
    CheckpointError,
    'eos_token "</s>" is not in',
  );
  const far = { endTokens: [300] };
  assertThrows(() => jsonTokenizer(fixtureFiles("byte_level", far)), CheckpointError, "the ids are 0 to 299");
});

Deno.test("a file with any byte changed is read or refused, and what is read makes texts of its tokens", () => {
  const random = createRandom(7);
  let read = 0;
  for (let i = 0; i < 200; i++) {
    const form = forms[i % 2]!;
    const bytes = new TextEncoder().encode(fixtureText(form));
    const at = random.integer(bytes.length);
    bytes[at] = bytes[at]! ^ (1 << random.integer(8));
    try {
      const tokenizer = jsonTokenizer({
        ...fixtureFiles(form),
        tokenizer: JSON.parse(new TextDecoder().decode(bytes)),
      });
      const ids = tokenizer.encode("Call me Ishmael. 12 é");
      assertEquals(ids.every((id) => Number.isInteger(id) && id < tokenizer.vocabSize), true);
      decodeAll(tokenizer, ids);
      read++;
    } catch (error) {
      if (!(error instanceof SyntaxError)) {
        assertEquals((error as Error).name, "CheckpointError", String(error));
      }
    }
  }
  assertEquals(read > 0 && read < 150, true, `${read} read`);
});
