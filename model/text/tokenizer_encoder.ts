/**
 * Text to tokens by `@huggingface/tokenizers`. Where that package takes another way than the library whose files it
 * reads, the steps are put in words that both understand alike; tests hold the ids to the library's. Known to differ: the
 * spaces that tokens with lstrip or rstrip take are JavaScript's, which have U+FEFF and not U+0085.
 */
import { SplitPreTokenizer, Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import { withinTime } from "../time_limit.ts";
import { DataError } from "./documents.ts";
import type {
  NormalizerStep,
  PostProcessorStep,
  PreTokenizerStep,
  TokenizerParts,
} from "./tokenizer_schema.ts";
import type { Vocabulary } from "./tokenizer_vocabulary.ts";
import { isOfPatterns, wordEncoder } from "./tokenizer_words.ts";

type Fail = (text: string) => never;

type SplitStep = ConstructorParameters<typeof SplitPreTokenizer>[0];

/** A step of a pre-tokenizer in the package's words. */
type PackageStep = SplitStep | {
  readonly type: "ByteLevel" | "Metaspace";
  readonly [setting: string]: unknown;
};

/** Puts a space before a text as ByteLevel does, but before the text is split. */
const SPACE_BEFORE: PackageStep = { type: "Metaspace", replacement: " ", prepend_scheme: "always" };

/** The words that ByteLevel splits a text into, as GPT-2 does. */
const GPT2_WORDS = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/** Longest text that is merged as a whole: it takes some hundred bytes of memory for each of its characters. */
const LONGEST_WHOLE = 4_000_000;

/** Most time for such a text, a hundred times what it takes. */
const MAX_MS = 1000;
const MAX_MS_PER_CHARACTER = 0.1;

/** A function that turns a text into tokens, some at a time, without those around it. */
export function textEncoder(
  parts: TokenizerParts,
  { merges, fail }: { merges: readonly [string, string][]; fail: Fail },
): (text: string) => Iterable<number[]> {
  checkFirstSpace(parts, fail);
  const steps = parts.preTokenizer.flatMap(preTokenizerSteps);
  const splits = wordSplits(parts, steps);
  const preTokenizer = splits ? steps.slice(splits.length) : steps;
  const normalizer = parts.normalizer.map(normalizerStep);
  const tokenizer = new HuggingFaceTokenizer({
    added_tokens: parts.addedTokens,
    normalizer: normalizer.length === 0 ? null : { type: "Sequence", normalizers: normalizer },
    pre_tokenizer: preTokenizer.length === 0 ? null : { type: "Sequence", pretokenizers: preTokenizer },
    model: { ...parts.model, unk_token: parts.model.unk_token || null, merges },
    post_processor: null,
    decoder: null,
  }, {});
  function encode(text: string): number[] {
    if (text.length > LONGEST_WHOLE) {
      throw new DataError(
        `Cannot make tokens of ${text.length} characters that the tokenizer merges as a whole, at most ${LONGEST_WHOLE}; ` +
          "split the text, or make it JSONL with a document a line",
      );
    }
    return tokenizer.encode(text, { add_special_tokens: false }).ids;
  }
  /** With patterns of the file's own, which may take years for fifty letters. */
  function encodeInTime(text: string): number[] {
    try {
      return withinTime(MAX_MS + Math.ceil(MAX_MS_PER_CHARACTER * text.length), () => encode(text));
    } catch (cause) {
      if (!isOfPatterns(cause)) throw cause;
      return fail(`its patterns cannot be used on the text: ${cause.message}`);
    }
  }
  const hasPatterns = [...parts.normalizer, ...parts.preTokenizer].some((step) =>
    "pattern" in step && "Regex" in step.pattern
  );
  if (!splits) return (text) => [hasPatterns ? encodeInTime(text) : encode(text)];
  const addedTokens = new Map(parts.addedTokens.map(({ content, id }) => [content, id]));
  const patterns = splits.map((split) => new SplitPreTokenizer(split).pattern!);
  return wordEncoder({ addedTokens, patterns }, { encodeWord: encode, fail });
}

/** The steps that part a text into words, if nothing else is done to it before words become tokens by their bytes. */
function wordSplits(
  { normalizer, addedTokens }: TokenizerParts,
  steps: readonly PackageStep[],
): SplitStep[] | null {
  const splits = steps.slice(0, -1).filter((step) => step.type === "Split");
  const isPlain = splits.length === steps.length - 1 && steps.at(-1)?.type === "ByteLevel" &&
    splits.every(({ invert }) => !invert) && normalizer.length === 0 &&
    addedTokens.every(({ lstrip, rstrip }) => !lstrip && !rstrip);
  return isPlain ? splits : null;
}

/** The package counts a text's sections before it looks for added tokens in their normalized form. */
function checkFirstSpace({ preTokenizer, normalizer, addedTokens }: TokenizerParts, fail: Fail): void {
  const hasFirst = preTokenizer.some((step) => step.type === "Metaspace" && step.prepend_scheme === "first");
  const token = addedTokens.find(({ normalized }) => normalized);
  if (!hasFirst || normalizer.length === 0 || !token) return;
  const name = JSON.stringify(token.content);
  fail(`its added token ${name} is normalized, which does not go with prepend_scheme first`);
}

function normalizerStep(step: NormalizerStep): NormalizerStep {
  // Its text is inserted by String.replaceAll, where $ has a meaning.
  return step.type === "Replace" ? { ...step, content: step.content.replaceAll("$", "$$$$") } : step;
}

function preTokenizerSteps(step: PreTokenizerStep): PackageStep[] {
  switch (step.type) {
    case "ByteLevel":
      // The package has these words too, but its spaces are JavaScript's, which differ from Unicode's.
      return [
        ...(step.add_prefix_space ? [SPACE_BEFORE] : []),
        ...(step.use_regex ? [split(GPT2_WORDS)] : []),
        { type: "ByteLevel", add_prefix_space: false, use_regex: false },
      ];
    case "Digits":
      // To the package only 0 to 9 are digits.
      return [split(step.individual_digits ? "\\p{N}" : "\\p{N}+")];
    case "Metaspace": {
      // The package does not split.
      const { replacement, prepend_scheme } = step;
      const space = `\\x{${replacement.charCodeAt(0).toString(16)}}`;
      const words = step.split ? [split(`${space}[^${space}]*|[^${space}]+`)] : [];
      return [{ type: "Metaspace", replacement, prepend_scheme }, ...words];
    }
    case "Split": {
      // (?i-: instead of (?i: leaves it to the regular expression to fold case: 's matches 'ſ.
      const pattern = "Regex" in step.pattern
        ? { Regex: step.pattern.Regex.replaceAll("(?i:", "(?i-:") }
        : step.pattern;
      return [{ ...step, pattern, invert: step.behavior === "Removed" }];
    }
  }
}

function split(regex: string): SplitStep {
  return { type: "Split", pattern: { Regex: regex }, behavior: "Isolated", invert: false };
}

/** Tokens that go before and after a text. */
export function surroundings(
  steps: readonly PostProcessorStep[],
  { vocabulary, fail }: { vocabulary: Vocabulary; fail: Fail },
): { before: number[]; after: number[] } {
  const templates = steps.filter((step) => step.type === "TemplateProcessing");
  const [template] = templates;
  if (!template) return { before: [], after: [] };
  if (templates.length > 1) fail("its post_processor has two templates");
  const ids = template.single.map((piece) => {
    if ("Sequence" in piece) return piece.Sequence.id;
    const name = piece.SpecialToken.id;
    const id = template.special_tokens[name]?.ids;
    return id?.length === 1 && vocabulary.tokens[id[0]!] === name ? id[0]! : fail(
      `its post_processor's token ${
        JSON.stringify(name)
      } is not in the vocabulary under the id that it gives`,
    );
  });
  const place = ids.indexOf("A");
  const [before, after] = [ids.slice(0, place), ids.slice(place + 1)];
  if (place < 0 || [...before, ...after].some((id) => typeof id === "string")) {
    fail("its post_processor's template for single texts does not have the text exactly once");
  }
  return { before: before as number[], after: after as number[] };
}
