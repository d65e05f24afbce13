/** Tokens as Hugging Face's own library makes them of the same files. */
import { assertEquals } from "@std/assert";
import { basename, join } from "@std/path";
import { openGguf } from "../../../model/files/gguf_file.ts";
import { ggufTokenizer } from "../../../model/text/gguf_tokenizer.ts";
import { jsonTokenizer } from "../../../model/text/tokenizer_json.ts";
import { mixedLines } from "../../support/mixed_text.ts";
import { corpus } from "../../support/program.ts";
import { createRandom } from "../../support/random.ts";
import { decodeAll } from "../../support/decode.ts";
import { hasPeer, peer, PEER_HINT } from "../../support/tokenizers_peer.ts";

const lines = mixedLines({ count: 2000, seed: 1 });

/** Lists of tokens that no text has: their bytes need not be characters. */
const random = createRandom(2);
const lists = Array.from({ length: 300 }, () => Array.from({ length: 20 }, () => random.integer(256)));

/** What the library makes of a file. */
interface PeerResult {
  readonly ids: readonly number[][];
  /** What the lines' tokens decode to. */
  readonly texts: readonly string[];
  /** What the lists decode to. */
  readonly decoded: readonly string[];
}

/** Checks files against the library. */
async function assertEqualsPeer(paths: readonly string[]): Promise<void> {
  const results: Record<string, PeerResult> = JSON.parse(
    await peer(["run", ...paths], { texts: lines, ids: lists }),
  );
  for (const [path, { ids, texts, decoded }] of Object.entries(results)) {
    const json = JSON.parse(await Deno.readTextFile(path));
    const tokenizer = jsonTokenizer({ tokenizer: json, config: {}, endTokens: [0], source: path });
    lines.forEach((line, i) => {
      assertEquals(tokenizer.encode(line), ids[i], `${basename(path)}, line ${i}`);
      assertEquals(decodeAll(tokenizer, ids[i]!), texts[i], `${basename(path)}, line ${i}`);
    });
    // The library takes back characters that it has shown when it meets bytes that do not go on well; a stream cannot.
    if (json.model.byte_fallback) continue;
    lists.forEach((list, i) => assertEquals(decodeAll(tokenizer, list), decoded[i], `${path}, list ${i}`));
  }
}

Deno.test({
  name: `tokenizers of every form make the tokens and texts that Hugging Face's library makes (${PEER_HINT})`,
  ignore: !hasPeer,
  fn: async (): Promise<void> => {
    const folder = await Deno.makeTempDir();
    try {
      // Without special tokens, which would be learnt as words.
      const texts = [...lines.filter((line) => !line.includes("<")), await Deno.readTextFile(corpus)];
      await peer(["make", folder, "1000"], texts);
      const paths = Array.from(Deno.readDirSync(folder), ({ name }) => join(folder, name));
      assertEquals(paths.length, 11);
      await assertEqualsPeer(paths);
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});

const model = Deno.env.get("MOR_TEST_SMOLLM2");

Deno.test({
  name: "SmolLM2's tokenizer out of its GGUF file makes the tokens that Hugging Face's library makes " +
    `(needs that file's path in MOR_TEST_SMOLLM2; ${PEER_HINT})`,
  ignore: !hasPeer || model === undefined,
  fn: async (): Promise<void> => {
    using file = await openGguf(model!);
    const { tokenizer } = ggufTokenizer(file.metadata, { source: model! });
    const path = await Deno.makeTempFile({ suffix: ".json" });
    try {
      await Deno.writeTextFile(path, JSON.stringify(tokenizer));
      await assertEqualsPeer([path]);
    } finally {
      await Deno.remove(path);
    }
  },
});
