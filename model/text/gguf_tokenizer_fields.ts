/** A tokenizer as the metadata of a GGUF file: the inverse of gguf_tokenizer.ts, with llama.cpp making the same tokens. */
import { byteTokenizerFiles } from "./byte_tokenizer_json.ts";
import { ConfigError, type ModelConfig } from "../config.ts";
import { boolean, float32s, type GgufFields, int32s, text, texts, uint32 } from "../files/gguf_writer.ts";
import {
  BYTE_LEVEL_FORMS,
  OWN_TOKENIZER,
  sentencePieceForm,
  sentencePieceScores,
  type TokenizerForm,
} from "./gguf_words.ts";
import { surroundings } from "./tokenizer_encoder.ts";
import type { TokenizerFiles } from "./tokenizer_json.ts";
import { parseTokenizer, type TokenizerParts } from "./tokenizer_schema.ts";
import { tokenizerFor, type TokenizerSource } from "./tokenizer_source.ts";
import { readMerges, readVocabulary, type Vocabulary } from "./tokenizer_vocabulary.ts";

/** Kinds of tokens, as llama.cpp counts them. */
const KINDS = { normal: 1, unknown: 2, control: 3, userDefined: 4, unused: 5, byte: 6 } as const;

type Fail = (text: string) => never;

/** A tokenizer's files, taken apart. */
interface Described {
  readonly files: TokenizerFiles;
  readonly parts: TokenizerParts;
  readonly vocabulary: Vocabulary;
  readonly merges: readonly [string, string][];
  readonly fail: Fail;
}

/**
 * The metadata for a model's tokenizer. Rows of the vocabulary without a token get one that no text has.
 *
 * @throws ConfigError for a tokenizer that llama.cpp does not have, CheckpointError for damaged files.
 */
export function ggufTokenizerFields(
  source: TokenizerSource,
  { config }: { config: ModelConfig },
): GgufFields {
  const isByte = source === "byte";
  const files = isByte ? byteTokenizerFiles({ maxPositions: config.maxPositionEmbeddings }) : source;
  function fail(problem: string): never {
    throw new ConfigError(`Cannot write the tokenizer of ${files.source} into a GGUF file: ${problem}`);
  }
  const { endTokens } = tokenizerFor(source, { config });
  const parts = parseTokenizer(files.tokenizer, fail);
  const vocabulary = readVocabulary(parts, fail);
  const merges = readMerges({ model: parts.model, vocabulary }, fail);
  const described = { files, parts, vocabulary, merges, fail };
  const kinds = tokenKinds(described);
  const unused = Array.from(
    { length: config.vocabSize - vocabulary.tokens.length },
    (_, i) => `[PAD${vocabulary.tokens.length + i}]`,
  );
  return {
    // Without merges it does not matter where words begin.
    ...(isByte
      ? { ...byteLevelFields("gpt-2"), [OWN_TOKENIZER]: text(source) }
      : formFields(described, { kinds, unused: unused.length })),
    "tokenizer.ggml.tokens": texts([...vocabulary.tokens, ...unused]),
    "tokenizer.ggml.token_type": int32s([...kinds, ...unused.map(() => KINDS.unused)]),
    "tokenizer.ggml.merges": texts(merges.map((pair) => pair.join(" "))),
    ...endFields(endTokens, fail),
    ...surroundingFields(described, { endTokens }),
    ...templateFields(files.config),
  };
}

function byteLevelFields(pre: string): GgufFields {
  return { "tokenizer.ggml.model": text("gpt2"), "tokenizer.ggml.pre": text(pre) };
}

/** How a text becomes words, and words become tokens. */
function formFields(
  { parts, vocabulary, merges, fail }: Described,
  { kinds, unused }: { kinds: readonly number[]; unused: number },
): GgufFields {
  const wanted = formText(parts);
  const isForm = (form: TokenizerForm): boolean => formText(partsOf(form, fail)) === wanted;
  const pre = Object.keys(BYTE_LEVEL_FORMS).find((name) => isForm(BYTE_LEVEL_FORMS[name]!));
  if (pre !== undefined) return byteLevelFields(pre);
  const unknown = parts.model.unk_token ?? "";
  const hasSpace = [true, false].find((hasSpace) => isForm(sentencePieceForm({ unknown, hasSpace }))) ?? fail(
    "llama.cpp has no name for the way in which it splits texts; it has names for those of GPT-2, SmolLM, Llama 2, " +
      "Llama 3, Qwen 2 and its own default; export to hf",
  );
  const scores = sentencePieceScores(vocabulary.tokens, {
    merges,
    canMake: (id) => kinds[id] === KINDS.normal,
  }) ?? fail("its merges do not follow from scores of the tokens, as Llama 2's do; export to hf");
  if (!kinds.includes(KINDS.byte)) fail("it lacks tokens for bytes, from <0x00> to <0xFF>; export to hf");
  return {
    "tokenizer.ggml.model": text("llama"),
    "tokenizer.ggml.scores": float32s([...scores, ...Array.from({ length: unused }, () => 0)]),
    "tokenizer.ggml.add_space_prefix": boolean(hasSpace),
    ...idField("unknown", vocabulary.idOf.get(unknown)),
  };
}

function partsOf({ normalizer, preTokenizer, decoder, model }: TokenizerForm, fail: Fail): TokenizerParts {
  return parseTokenizer({
    added_tokens: [],
    normalizer,
    pre_tokenizer: preTokenizer,
    post_processor: null,
    decoder,
    model: { ...model, vocab: {}, merges: [] },
  }, fail);
}

/** What decides on a text's tokens besides the vocabulary, as a text to compare. */
function formText({ normalizer, preTokenizer, decoder, model }: TokenizerParts): string {
  return JSON.stringify({
    normalizer,
    preTokenizer: preTokenizer.map((step) =>
      step.type === "ByteLevel" ? { ...step, trim_offsets: undefined } : step
    ),
    decoder: decoder.map((step) => step.type === "ByteLevel" ? step.type : step),
    model: [model.byte_fallback, model.ignore_merges],
  });
}

/** The file has no place for `normalized`: llama.cpp looks for added tokens in texts as they are. */
function tokenKinds(
  { parts: { addedTokens, model }, vocabulary: { tokens, idOf }, fail }: Described,
): number[] {
  const kinds: number[] = tokens.map((token) =>
    model.byte_fallback && /^<0x[0-9A-F]{2}>$/.test(token) ? KINDS.byte : KINDS.normal
  );
  for (const { id, content, special, lstrip, rstrip } of addedTokens) {
    if (lstrip || rstrip) {
      fail(`its token ${JSON.stringify(content)} takes the spaces beside it (lstrip, rstrip)`);
    }
    kinds[id] = special ? KINDS.control : KINDS.userDefined;
  }
  const unknown = idOf.get(model.unk_token ?? "");
  if (unknown !== undefined && model.byte_fallback) kinds[unknown] = KINDS.unknown;
  return kinds;
}

/** Tokens that end a text; the file has room for three. */
function endFields(endTokens: readonly number[], fail: Fail): GgufFields {
  const [eos, eot, eom, ...more] = endTokens;
  if (more.length > 0) {
    fail(`${endTokens.length} tokens end a text (${endTokens.join(", ")}), the file has room for three`);
  }
  return { ...idField("eos", eos), ...idField("eot", eot), ...idField("eom", eom) };
}

/** The tokens before and after each text. */
function surroundingFields(
  { files, parts, vocabulary, fail }: Described,
  { endTokens }: { endTokens: readonly number[] },
): GgufFields {
  const { before, after } = surroundings(parts.postProcessor, { vocabulary, fail });
  const named = vocabulary.idOf.get(files.config.bos_token ?? "");
  const bos = named ?? before[0];
  const isPossible = before.length <= 1 && after.length <= 1 && (before[0] ?? bos) === bos &&
    (after[0] ?? endTokens[0]) === endTokens[0];
  if (!isPossible) {
    fail(
      `it puts the tokens [${before}] before a text and [${after}] after it, wanted at most bos_token ` +
        `(${bos ?? "none"}) and eos_token (${endTokens[0]})`,
    );
  }
  return {
    ...idField("bos", bos),
    "tokenizer.ggml.add_bos_token": boolean(before.length > 0),
    "tokenizer.ggml.add_eos_token": boolean(after.length > 0),
  };
}

function idField(name: string, id: number | undefined): GgufFields {
  return id === undefined ? {} : { [`tokenizer.ggml.${name}_token_id`]: uint32(id) };
}

/** Chat templates; all but the default one have their name in the key. */
function templateFields({ chat_template: given }: TokenizerFiles["config"]): GgufFields {
  const templates = typeof given === "string" ? [{ name: "default", template: given }] : given ?? [];
  return Object.fromEntries(
    templates.map(({ name, template }) => [
      name === "default" ? "tokenizer.chat_template" : `tokenizer.chat_template.${name}`,
      text(template),
    ]),
  );
}
