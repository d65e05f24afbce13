/**
 * The parts of a `tokenizer.json` that this program reads: those of Llama's family, byte-level or SentencePiece BPE.
 * Everything else is refused, as are unknown fields: guessing would give wrong tokens without a word.
 *
 * Format: https://huggingface.co/docs/tokenizers, whose library serializes its own settings.
 */
import { z } from "zod";

/** One character, which stands for a space. */
const character = z.string().length(1);
const prependScheme = z.enum(["always", "first", "never"]).default("always");
const pattern = z.union([
  z.strictObject({ String: z.string().min(1) }),
  z.strictObject({ Regex: z.string().min(1) }),
], { error: "expected a String or a Regex" });

const normalizerStep = z.discriminatedUnion("type", [
  z.strictObject({ type: z.enum(["NFC", "NFD", "NFKC", "NFKD"]) }),
  z.strictObject({ type: z.literal("Prepend"), prepend: z.string() }),
  z.strictObject({ type: z.literal("Replace"), pattern, content: z.string() }),
]);

const byteLevel = z.strictObject({
  type: z.literal("ByteLevel"),
  add_prefix_space: z.boolean().default(true),
  trim_offsets: z.boolean().default(true),
  use_regex: z.boolean().default(true),
});
const metaspace = z.strictObject({
  type: z.literal("Metaspace"),
  replacement: character,
  prepend_scheme: prependScheme,
  split: z.boolean().default(true),
  // Older files say this twice; the library refuses those that contradict themselves.
  str_rep: character.optional(),
  add_prefix_space: z.boolean().optional(),
}).refine(
  ({ prepend_scheme, add_prefix_space }) => add_prefix_space !== false || prepend_scheme === "never",
  { message: "add_prefix_space is false, which contradicts prepend_scheme" },
);

const preTokenizerStep = z.discriminatedUnion("type", [
  byteLevel,
  metaspace,
  z.strictObject({ type: z.literal("Digits"), individual_digits: z.boolean().default(false) }),
  z.strictObject({
    type: z.literal("Split"),
    pattern,
    behavior: z.enum(["Isolated", "Removed"]),
    invert: z.boolean(),
  }).refine(({ behavior, invert }) => behavior === "Isolated" || invert, {
    message: 'behavior "Removed" is known with invert only',
  }),
]);

const templatePiece = z.union([
  z.strictObject({ SpecialToken: z.strictObject({ id: z.string(), type_id: z.int() }) }),
  z.strictObject({ Sequence: z.strictObject({ id: z.enum(["A", "B"]), type_id: z.int() }) }),
], { error: "expected a SpecialToken or a Sequence" });
const postProcessorStep = z.discriminatedUnion("type", [
  byteLevel,
  z.strictObject({
    type: z.literal("TemplateProcessing"),
    single: z.array(templatePiece),
    pair: z.array(templatePiece),
    special_tokens: z.record(
      z.string(),
      z.strictObject({ id: z.string(), ids: z.array(z.int()), tokens: z.array(z.string()) }),
    ),
  }),
]);

const decoderStep = z.discriminatedUnion("type", [
  byteLevel,
  metaspace,
  z.strictObject({
    type: z.literal("Replace"),
    pattern: z.strictObject({ String: character }),
    content: z.string(),
  }),
  z.strictObject({ type: z.literal("ByteFallback") }),
  z.strictObject({ type: z.literal("Fuse") }),
  z.strictObject({
    type: z.literal("Strip"),
    content: z.literal(" "),
    start: z.int().nonnegative(),
    stop: z.literal(0),
  }),
]);

const addedToken = z.strictObject({
  id: z.int().nonnegative(),
  content: z.string().min(1),
  single_word: z.literal(false),
  lstrip: z.boolean(),
  rstrip: z.boolean(),
  normalized: z.boolean(),
  special: z.boolean(),
});

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

const model = z.strictObject({
  // Files of 2020 do not say it.
  type: z.literal("BPE").default("BPE"),
  dropout: z.literal(0).nullish(),
  unk_token: z.string().nullish(),
  continuing_subword_prefix: z.literal("").nullish(),
  end_of_word_suffix: z.literal("").nullish(),
  fuse_unk: z.boolean().default(false),
  byte_fallback: z.boolean().default(false),
  ignore_merges: z.boolean().default(false),
  // Checked in tokenizer_vocabulary.ts.
  vocab: z.custom<Readonly<Record<string, unknown>>>(isRecord, "expected an object"),
  merges: z.array(z.unknown()),
});

export type NormalizerStep = z.infer<typeof normalizerStep>;
export type PreTokenizerStep = z.infer<typeof preTokenizerStep>;
export type PostProcessorStep = z.infer<typeof postProcessorStep>;
export type DecoderStep = z.infer<typeof decoderStep>;
export type AddedToken = z.infer<typeof addedToken>;
export type BpeModel = z.infer<typeof model>;

/** A checked `tokenizer.json`. Its sequences are lists of their steps, however they were nested. */
export interface TokenizerParts {
  readonly addedTokens: readonly AddedToken[];
  readonly normalizer: readonly NormalizerStep[];
  readonly preTokenizer: readonly PreTokenizerStep[];
  readonly postProcessor: readonly PostProcessorStep[];
  readonly decoder: readonly DecoderStep[];
  readonly model: BpeModel;
}

/** Of a file; `padding` and `truncation` are for batches of texts, and count for nothing here. */
const FIELDS = [
  ...["version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer"],
  ...["post_processor", "decoder", "model"],
];

/** Real files have no more than a dozen steps in a sequence; each adds to the cost of every text. */
const MAX_STEPS = 100;

/** Factor by which replacements may lengthen a text: each of twenty that double it would do no harm alone. */
const MAX_GROWTH = 64;

/** The factor by which the steps may lengthen a text. */
function growth(steps: readonly (NormalizerStep | DecoderStep)[]): number {
  return steps.reduce((factor, step) => {
    if (step.type !== "Replace") return factor;
    const { pattern, content } = step;
    // A regular expression may match between any two characters.
    const most = "String" in pattern ? content.length / pattern.String.length : 1 + content.length;
    return factor * Math.max(1, most);
  }, 1);
}

/** Checks the parts of a parsed `tokenizer.json`; `fail` gets one line on the first that cannot be used. */
export function parseTokenizer(json: unknown, fail: (text: string) => never): TokenizerParts {
  const file = isRecord(json) ? json : fail("it is not a JSON object");
  const unknown = Object.keys(file).find((name) => !FIELDS.includes(name));
  if (unknown !== undefined) fail(`it has the unknown field "${unknown}"`);

  function part<T>(name: string, schema: z.ZodType<T>, value = file[name]): T {
    if (!Object.hasOwn(file, name)) fail(`its field "${name}" is missing`);
    const parsed = schema.safeParse(value);
    return parsed.success ? parsed.data : fail(`its ${name} ${describe(parsed.error, value)}`);
  }
  /** A component's steps: none for null, those of a sequence one after the other. */
  function steps<T>(name: string, { list, schema }: { list: string; schema: z.ZodType<T> }): T[] {
    function flat(component: unknown): T[] {
      if (!isRecord(component) || component.type !== "Sequence") return [part(name, schema, component)];
      const sequence = z.strictObject({ type: z.literal("Sequence"), [list]: z.array(z.unknown()) });
      return (part(name, sequence, component)[list] as unknown[]).flatMap(flat);
    }
    const flattened = part(name, z.unknown()) === null ? [] : flat(file[name]);
    if (flattened.length > MAX_STEPS) fail(`its ${name} has ${flattened.length} steps, at most ${MAX_STEPS}`);
    return flattened;
  }
  if (Object.hasOwn(file, "version")) part("version", z.literal("1.0"));
  const normalizer = steps("normalizer", { list: "normalizers", schema: normalizerStep });
  const decoder = steps("decoder", { list: "decoders", schema: decoderStep });
  for (const [name, list] of Object.entries({ normalizer, decoder })) {
    if (!(growth(list) <= MAX_GROWTH)) {
      fail(`its ${name} can make a text more than ${MAX_GROWTH} times as long`);
    }
  }
  return {
    addedTokens: part("added_tokens", z.array(addedToken)),
    normalizer,
    preTokenizer: steps("pre_tokenizer", { list: "pretokenizers", schema: preTokenizerStep }),
    postProcessor: steps("post_processor", { list: "processors", schema: postProcessorStep }),
    decoder,
    model: part("model", model),
  };
}

/** What is wrong first, as the rest of a sentence: what was met, and what was expected. */
function describe(error: z.ZodError, value: unknown): string {
  const issue = error.issues[0]!;
  const path = issue.path.join(".");
  if (issue.code === "unrecognized_keys") {
    return `has the unknown field "${[...issue.path, issue.keys[0]].join(".")}"`;
  }
  const met = issue.path.reduce<unknown>(
    (inner, key) => (inner as Record<PropertyKey, unknown>)?.[key],
    value,
  );
  const wanted = issue.message.replace(/^Invalid [a-z ]+[:.] /, "").replace(/, received .*/, "");
  const text = JSON.stringify(met)?.slice(0, 80) ?? "missing";
  return `${path === "" ? "is" : `has ${path}`} ${text}, ${wanted.replace(/^E/, "e")}`;
}
