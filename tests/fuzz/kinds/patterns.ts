/** Tokenizers whose regular expressions and replacements come from a file. */
import { assertEquals } from "@std/assert";
import { jsonTokenizer } from "../../../model/text/tokenizer_json.ts";
import { createRandom } from "../../support/random.ts";
import { fixtureFiles } from "../../support/tokenizer_fixture.ts";
import { type FuzzInput, type FuzzKind, isDone } from "../fuzz_kind.ts";

const NAME = "patterns.json";

/** P stands for a pattern. */
const PATTERNS = [
  ...[
    "a",
    "\\s",
    "\\p{L}",
    "\\p{N}",
    "[^\\s\\p{L}]",
    ".",
    "\\w",
    "[a-z]",
    "'s",
    "(?i:'s|'t)",
    "\\b",
    "^",
    "$",
  ],
  ...[
    "P+",
    "P*",
    "P?",
    "(P)+",
    "(P)*",
    "(?:P+)+",
    "(P|P)*",
    "(P*)*",
    "P{1,3}",
    "(?:P{1,50}){1,50}",
    "P*?",
    "P{2,}",
  ],
  ...[
    "PP",
    "P|P",
    "PPP",
    "(?=P)P",
    "(?!P)P",
    "P(?!\\S)",
    "(?<=P)P",
    "(P)\\1",
    "(a+)+$",
    "(a|a)*b",
    "(.*)*x",
    "P+P+$",
  ],
  ...[
    "(",
    "[",
    "\\",
    "(?<a>P)",
    "(?>P)",
    "P++",
    "\\p{Han}",
    "\\x{41}",
    "(?i)P",
    "\\h",
    "[[:alpha:]]",
    "{",
    "P{9999999}",
  ],
];

const CONTENTS = ["", "▁", "$&", "$1$1", "aa", "a".repeat(1000), "\u0000", "b"];

const TEXTS = [
  "Call me Ishmael.\n 1234 é 世界",
  "a".repeat(60) + "!",
  " ".repeat(200) + "x",
  "ab".repeat(300),
  "1".repeat(500) + "'s",
  "a a\n".repeat(100),
  "x".repeat(3000),
];

/** Splits and replacements by patterns that somebody else wrote. */
export function openPatterns(): Promise<FuzzKind> {
  function make(seed: number): FuzzInput {
    const random = createRandom(seed ^ 0x9a77);
    const pick = <T>(choices: readonly T[]): T => choices[random.integer(choices.length)]!;
    const pattern = (): unknown => {
      let text = "P";
      for (let steps = 2 + random.integer(9); steps > 0; steps--) {
        text = text.replace(/P/, () => pick(PATTERNS));
      }
      text = text.replaceAll("P", () => pick(["a", "\\s", "\\w"]));
      return random.integer(5) === 0 ? { String: pick(["a", " ", "ab", "\n"]) } : { Regex: text };
    };
    const list = <T>(item: () => T, most: number): T[] => Array.from({ length: random.integer(most) }, item);
    const repeats = random.integer(30) === 0 ? 2000 : 1;
    const normalizers = list(() => ({ type: "Replace", pattern: pattern(), content: pick(CONTENTS) }), 4);
    const splits = list(() => {
      const isRemoved = random.integer(4) === 0;
      return {
        type: "Split",
        pattern: pattern(),
        behavior: isRemoved ? "Removed" : "Isolated",
        invert: isRemoved,
      };
    }, 4);
    const json = {
      normalizers: random.integer(3) === 0 ? Array(repeats).fill(normalizers).flat() : [],
      splits: Array(repeats).fill(splits).flat(),
    };
    return { name: NAME, bytes: new TextEncoder().encode(JSON.stringify(json)) };
  }
  async function check({ bytes }: FuzzInput): Promise<boolean> {
    const { normalizers, splits } = JSON.parse(new TextDecoder().decode(bytes));
    const files = fixtureFiles("byte_level", {
      change: (json) => {
        json.normalizer = normalizers.length === 0 ? null : { type: "Sequence", normalizers };
        const words = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: false };
        json.pre_tokenizer = { type: "Sequence", pretokenizers: [...splits, words] };
      },
    });
    return await isDone(() => {
      const tokenizer = jsonTokenizer({ ...files, source: NAME });
      const keepsText = normalizers.length === 0 &&
        splits.every(({ invert }: { invert: boolean }) => !invert);
      for (const text of TEXTS) {
        const decoder = tokenizer.decoder();
        const decoded = tokenizer.encode(text).map((id) => decoder.push(id)).join("") + decoder.flush();
        if (keepsText) assertEquals(decoded, text);
      }
    }, { names: [NAME, "Cannot make tokens of a text with a word of millions"] });
  }
  return Promise.resolve({ make, check, maxMs: 5000 });
}
