/**
 * The tokenizer inside a GGUF file, in the form of Hugging Face's files, so that one tokenizer serves both.
 *
 * Keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, section "Tokenizer"; defaults are llama.cpp's.
 */
import { z } from "zod";
import {
  BYTE_LEVEL_FORMS,
  sentencePieceForm,
  sentencePieceMerges,
  type TokenizerForm,
} from "./gguf_words.ts";
import { misspelledName } from "../files/misspelled_name.ts";
import { CheckpointError } from "../files/safetensors.ts";
import type { TokenizerFiles } from "./tokenizer_json.ts";

const PREFIX = "tokenizer.ggml.";
const TEMPLATE = "tokenizer.chat_template";
/** Lists the names of templates, which their keys say as well. */
const TEMPLATE_NAMES = "tokenizer.chat_templates";

/** Kinds of tokens in `token_type` that matter here. */
const [NORMAL, UNKNOWN, CONTROL, USER_DEFINED] = [1, 2, 3, 4];

const id = z.int().nonnegative().optional();
const schema = z.object({
  model: z.enum(["gpt2", "llama"]),
  pre: z.string().default("default"),
  tokens: z.array(z.string()).min(1),
  token_type: z.array(z.int()).optional(),
  scores: z.array(z.number()).optional(),
  merges: z.array(z.string()).optional(),
  bos_token_id: id,
  eos_token_id: id,
  eot_token_id: id,
  eom_token_id: id,
  unknown_token_id: id,
  add_bos_token: z.boolean().optional(),
  add_eos_token: z.boolean().optional(),
  add_space_prefix: z.boolean().default(true),
});
type Fields = z.infer<typeof schema>;
type Fail = (text: string) => never;

/**
 * Hugging Face's files for the tokenizer that GGUF metadata describe.
 *
 * @param source Names the file in messages.
 * @throws CheckpointError for metadata that are damaged, or describe a tokenizer that this program does not have.
 */
export function ggufTokenizer(
  metadata: Readonly<Record<string, unknown>>,
  { source }: { source: string },
): TokenizerFiles {
  function fail(text: string): never {
    throw new CheckpointError(`Cannot use the tokenizer of ${source}: ${text}`);
  }
  const fields = readFields(metadata, fail);
  const { tokens, bos_token_id: bos, eos_token_id: eos } = fields;
  const { normalizer, preTokenizer, decoder, model, addBos } = formOf(fields, fail);
  const hasBos = fields.add_bos_token ?? addBos;
  return {
    tokenizer: {
      version: "1.0",
      truncation: null,
      padding: null,
      added_tokens: addedTokens(fields),
      normalizer,
      pre_tokenizer: preTokenizer,
      post_processor: postProcessor(tokens, {
        before: hasBos ? bos : undefined,
        after: fields.add_eos_token ? eos : undefined,
      }),
      decoder,
      model: {
        type: "BPE",
        ...model,
        // Not by assignment: a token may be called __proto__.
        vocab: Object.fromEntries(tokens.map((token, id) => [token, id])),
        merges: mergesOf(fields, fail),
      },
    },
    config: {
      bos_token: bos === undefined ? null : tokens[bos],
      eos_token: eos === undefined ? null : tokens[eos],
      chat_template: chatTemplates(metadata, fail),
    },
    endTokens: [fields.eot_token_id, fields.eom_token_id].filter((id) => id !== undefined),
    source,
  };
}

/** The chat templates: those beside the default one have their name in the key. */
function chatTemplates(
  metadata: Readonly<Record<string, unknown>>,
  fail: Fail,
): TokenizerFiles["config"]["chat_template"] {
  const templates = Object.entries(metadata).flatMap(([key, template]) => {
    if (key !== TEMPLATE && !key.startsWith(`${TEMPLATE}.`)) return [];
    if (typeof template !== "string") fail(`${key} is no text`);
    return [{ name: key.slice(TEMPLATE.length + 1) || "default", template: template as string }];
  });
  const [first] = templates;
  if (!first) return null;
  return templates.length === 1 && first.name === "default" ? first.template : templates;
}

function readFields(metadata: Readonly<Record<string, unknown>>, fail: Fail): Fields {
  const known = [TEMPLATE, TEMPLATE_NAMES, ...Object.keys(schema.shape).map((key) => PREFIX + key)];
  const found = misspelledName(Object.keys(metadata), known);
  if (found) fail(`it has the unknown key ${found.name}, but no ${found.meant}`);
  const given = Object.fromEntries(Object.keys(schema.shape).map((key) => [key, metadata[PREFIX + key]]));
  const parsed = schema.safeParse(given);
  if (!parsed.success) {
    const { path, message } = parsed.error.issues[0]!;
    const met = path.reduce<unknown>((inner, key) => (inner as Record<PropertyKey, unknown>)[key], given);
    return fail(
      `${PREFIX}${path.join(".")} is ${JSON.stringify(met)?.slice(0, 80) ?? "missing"}: ${message}`,
    );
  }
  const fields = parsed.data;
  const { tokens, model } = fields;
  for (const key of ["token_type", "scores"] as const) {
    const met = fields[key]?.length ?? tokens.length;
    if (met !== tokens.length) fail(`${PREFIX}${key} has ${met} entries for ${tokens.length} tokens`);
  }
  if (model === "llama") {
    fields.bos_token_id ??= 1;
    fields.eos_token_id ??= 2;
    fields.unknown_token_id ??= 0;
  }
  for (const [key, value] of Object.entries(fields)) {
    if (key.endsWith("_token_id") && typeof value === "number" && value >= tokens.length) {
      fail(`${PREFIX}${key} is ${value}, but there are ${tokens.length} tokens`);
    }
  }
  const seen = new Set<string>();
  for (const token of tokens) {
    if (seen.has(token)) fail(`${PREFIX}tokens has ${JSON.stringify(token)} more than once`);
    seen.add(token);
  }
  return fields;
}

function formOf(
  { model, pre, tokens, unknown_token_id, add_space_prefix }: Fields,
  fail: Fail,
): TokenizerForm {
  if (model === "llama") {
    return sentencePieceForm({ unknown: tokens[unknown_token_id!]!, hasSpace: add_space_prefix });
  }
  return Object.hasOwn(BYTE_LEVEL_FORMS, pre)
    ? BYTE_LEVEL_FORMS[pre]!
    : fail(`${PREFIX}pre is ${JSON.stringify(pre)}, known are ${Object.keys(BYTE_LEVEL_FORMS).join(", ")}`);
}

/** Files made from SentencePiece's own model have scores instead. */
function mergesOf({ model, tokens, token_type: types, scores, merges }: Fields, fail: Fail): unknown {
  if (merges) return merges;
  if (model === "gpt2") fail(`${PREFIX}merges is missing`);
  if (!scores) return fail(`${PREFIX}scores is missing`);
  const canMake = (id: number): boolean => (types?.[id] ?? NORMAL) === NORMAL;
  return sentencePieceMerges(tokens, scores.map((score, id) => canMake(id) ? score : undefined));
}

/** Tokens that are recognized in a text before it is split into words. */
function addedTokens({ tokens, token_type: types }: Fields): unknown[] {
  const flags = { single_word: false, lstrip: false, rstrip: false, normalized: false };
  return tokens.flatMap((content, id) => {
    const type = types?.[id];
    const special = type === CONTROL || type === UNKNOWN;
    return special || type === USER_DEFINED ? [{ id, content, ...flags, special }] : [];
  });
}

function postProcessor(
  tokens: readonly string[],
  { before, after }: { before: number | undefined; after: number | undefined },
): unknown {
  const ids = [before, after].filter((id) => id !== undefined);
  if (ids.length === 0) return null;
  const token = (id: number | undefined): unknown[] =>
    id === undefined ? [] : [{ SpecialToken: { id: tokens[id], type_id: 0 } }];
  const text = (name: string): unknown[] => [
    ...token(before),
    { Sequence: { id: name, type_id: 0 } },
    ...token(after),
  ];
  return {
    type: "TemplateProcessing",
    single: text("A"),
    pair: [...text("A"), ...text("B")],
    special_tokens: Object.fromEntries(
      ids.map((id) => [tokens[id], { id: tokens[id], ids: [id], tokens: [tokens[id]] }]),
    ),
  };
}
