/** The forms of tokenizers that GGUF files name in a word, in the terms of `tokenizer.json`. */

/** This program's own key: "byte" for its byte tokenizer, whose vocabulary is there as well for other programs. */
export const OWN_TOKENIZER = "mor.tokenizer";

/** What the tokenizers of a form have in common. */
export interface TokenizerForm {
  readonly normalizer: unknown;
  readonly preTokenizer: unknown;
  readonly decoder: unknown;
  /** Settings of the BPE model besides vocabulary and merges. */
  readonly model: Readonly<Record<string, unknown>>;
  /** Whether a begin-of-text token goes before each text where the file does not say. */
  readonly addBos: boolean;
}

const BYTE_LEVEL = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
const BYTES_ONLY = { ...BYTE_LEVEL, use_regex: false };

function sequence(...pretokenizers: readonly unknown[]): unknown {
  return { type: "Sequence", pretokenizers };
}

function split(regex: string): unknown {
  return { type: "Split", pattern: { Regex: regex }, behavior: "Isolated", invert: false };
}

/** GPT-4's words, with so many digits to a number. */
function gpt4Words(digits: string): unknown {
  return sequence(
    split(
      "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}" + digits +
        "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+",
    ),
    BYTES_ONLY,
  );
}

const GPT2: TokenizerForm = {
  normalizer: null,
  preTokenizer: BYTE_LEVEL,
  decoder: BYTE_LEVEL,
  model: {},
  addBos: false,
};
const LLAMA3: TokenizerForm = {
  ...GPT2,
  preTokenizer: gpt4Words("{1,3}"),
  model: { ignore_merges: true },
  addBos: true,
};

/** Byte-level forms by `tokenizer.ggml.pre`: how a text becomes words. */
export const BYTE_LEVEL_FORMS: Readonly<Record<string, TokenizerForm>> = {
  default: {
    ...GPT2,
    preTokenizer: sequence(
      split("[\\p{P}\\$\\+<=>\\^~\\|]+"),
      split("'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)"),
      split("\\p{N}+"),
      split("[0-9][0-9][0-9]"),
      BYTES_ONLY,
    ),
  },
  "gpt-2": GPT2,
  smollm: { ...GPT2, preTokenizer: sequence({ type: "Digits", individual_digits: true }, BYTE_LEVEL) },
  "llama-bpe": LLAMA3,
  "llama-v3": LLAMA3,
  llama3: LLAMA3,
  // Its models are trained on composed characters, as its tokenizer.json says; llama.cpp leaves that out.
  qwen2: { ...GPT2, normalizer: { type: "NFC" }, preTokenizer: gpt4Words("") },
};

/**
 * SentencePiece with bytes for characters that have no token, as Hugging Face writes Llama 2's.
 *
 * @param unknown The token for what has neither.
 * @param hasSpace Whether a space is put before each text.
 */
export function sentencePieceForm(
  { unknown, hasSpace }: { unknown: string; hasSpace: boolean },
): TokenizerForm {
  const replace = (from: string, to: string): unknown => ({
    type: "Replace",
    pattern: { String: from },
    content: to,
  });
  const prepend = { type: "Prepend", prepend: "▁" };
  const strip = { type: "Strip", content: " ", start: 1, stop: 0 };
  return {
    normalizer: { type: "Sequence", normalizers: [...(hasSpace ? [prepend] : []), replace(" ", "▁")] },
    preTokenizer: null,
    decoder: {
      type: "Sequence",
      decoders: [
        replace("▁", " "),
        { type: "ByteFallback" },
        { type: "Fuse" },
        ...(hasSpace ? [strip] : []),
      ],
    },
    model: { unk_token: unknown, fuse_unk: true, byte_fallback: true },
    addBos: true,
  };
}

/**
 * SentencePiece merges the two neighbours whose union scores highest. As pairs in the order of merging: by score, then by
 * the ids of the halves, as Hugging Face's conversion orders them.
 *
 * @param scores By token; undefined for tokens that merging must not make.
 */
export function sentencePieceMerges(
  tokens: readonly string[],
  scores: readonly (number | undefined)[],
): [string, string][] {
  const idOf = new Map(tokens.map((token, id) => [token, id]));
  const merges = tokens.flatMap((token, id) => {
    const score = scores[id];
    if (score === undefined) return [];
    const characters = Array.from(token);
    return characters.slice(1).flatMap((_, i) => {
      const pair: [string, string] = [
        characters.slice(0, i + 1).join(""),
        characters.slice(i + 1).join(""),
      ];
      const [left, right] = pair.map((half) => idOf.get(half));
      return left === undefined || right === undefined ? [] : [{ pair, score, token: id, left, right }];
    });
  });
  merges.sort((a, b) => b.score - a.score || a.token - b.token || a.left - b.left || a.right - b.right);
  return merges.map(({ pair }) => pair);
}

/**
 * The scores with which SentencePiece merges as a list of pairs does; null if none do. It merges any two tokens whose
 * union is one, so the list must have all of its pairs.
 *
 * @param canMake Whether merging may make a token.
 */
export function sentencePieceScores(
  tokens: readonly string[],
  { merges, canMake }: {
    merges: readonly (readonly [string, string])[];
    canMake: (id: number) => boolean;
  },
): number[] | null {
  const made = merges.map((pair) => pair.join(""));
  const last = new Map(made.map((token, i) => [token, i]));
  const scores = new Map<string, number>();
  let [score, end] = [0, 0];
  made.forEach((token, i) => {
    if (!scores.has(token)) scores.set(token, score);
    // Tokens whose pairs mix have one score.
    end = Math.max(end, last.get(token)!);
    if (i === end) score--;
  });
  // Of equal scores the leftmost pair is merged first. Among runs of one character, as Llama 2 has them, that makes the
  // list's tokens; elsewhere it need not.
  const isClear = Map.groupBy(scores.keys(), (token) => scores.get(token)!).values()
    .every((group) => group.length === 1 || new Set(group.join("")).size === 1);
  const list = tokens.map((token, id) => canMake(id) ? scores.get(token) ?? score : undefined);
  const given = new Set(merges.map((pair) => JSON.stringify(pair)));
  const pairs = sentencePieceMerges(tokens, list);
  const isSame = pairs.length === given.size && pairs.every((pair) => given.has(JSON.stringify(pair)));
  return isClear && isSame ? list.map((score) => score ?? 0) : null;
}
