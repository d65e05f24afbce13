/**
 * Text to tokens by `@huggingface/tokenizers`. Where that package takes another way than the library whose files it
 * reads, the steps are put in words that both understand alike; tests hold the ids to the library's. Known to differ: the
 * spaces that tokens with lstrip or rstrip take are JavaScript's, which have U+FEFF and not U+0085.
 */
import { Tokenizer as HuggingFaceTokenizer } from "@huggingface/tokenizers";
import type {
  NormalizerStep,
  PostProcessorStep,
  PreTokenizerStep,
  TokenizerParts,
} from "./tokenizer_schema.ts";
import type { Vocabulary } from "./tokenizer_vocabulary.ts";

type Fail = (text: string) => never;

/** A step of a pipeline in the package's words. */
type PackageStep = Readonly<Record<string, unknown>> & { readonly type: string };

/** The words that ByteLevel splits a text into, as GPT-2 does. */
const GPT2_WORDS = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";

/** A function that turns text into tokens, without those around it. */
export function textEncoder(
  parts: TokenizerParts,
  { merges, fail }: { merges: readonly [string, string][]; fail: Fail },
): (text: string) => number[] {
  checkFirstSpace(parts, fail);
  const preTokenizer = parts.preTokenizer.flatMap(preTokenizerSteps);
  const normalizer = parts.normalizer.map(normalizerStep);
  const tokenizer = new HuggingFaceTokenizer({
    added_tokens: parts.addedTokens,
    normalizer: normalizer.length === 0 ? null : { type: "Sequence", normalizers: normalizer },
    pre_tokenizer: preTokenizer.length === 0 ? null : { type: "Sequence", pretokenizers: preTokenizer },
    model: { ...parts.model, unk_token: parts.model.unk_token || null, merges },
    post_processor: null,
    decoder: null,
  }, {});
  return (text) => tokenizer.encode(text, { add_special_tokens: false }).ids;
}

/** The package counts a text's sections before it looks for added tokens in their normalized form. */
function checkFirstSpace({ preTokenizer, normalizer, addedTokens }: TokenizerParts, fail: Fail): void {
  const hasFirst = preTokenizer.some((step) => step.type === "Metaspace" && step.prepend_scheme === "first");
  const token = addedTokens.find(({ normalized }) => normalized);
  if (!hasFirst || normalizer.length === 0 || !token) return;
  const name = JSON.stringify(token.content);
  fail(`its added token ${name} is normalized, which does not go with prepend_scheme first`);
}

function normalizerStep(step: NormalizerStep): PackageStep {
  // Its text is inserted by String.replaceAll, where $ has a meaning.
  return step.type === "Replace" ? { ...step, content: step.content.replaceAll("$", "$$$$") } : step;
}

function preTokenizerSteps(step: PreTokenizerStep): PackageStep[] {
  switch (step.type) {
    case "ByteLevel":
      // The package has these words too, but its spaces are JavaScript's, which differ from Unicode's. Its Metaspace puts
      // a space before a text as ByteLevel does, before the text is split.
      return [
        ...(step.add_prefix_space ? [{ type: "Metaspace", replacement: " ", prepend_scheme: "always" }] : []),
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

function split(regex: string): PackageStep {
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
