/** Tokenizers of other people's models: `tokenizer.json` and the files beside it. */
import { join } from "@std/path";
import { z } from "zod";
import { parseJson } from "../files/json_text.ts";
import { misspelledName } from "../files/misspelled_name.ts";
import { CheckpointError } from "../files/safetensors.ts";
import { readTextFile } from "../files/text_file.ts";
import { textRules, textStream } from "./text_stream.ts";
import type { EncodeOptions, Tokenizer } from "./tokenizer.ts";
import { surroundings, textEncoder } from "./tokenizer_encoder.ts";
import { parseTokenizer } from "./tokenizer_schema.ts";
import { readMerges, readVocabulary } from "./tokenizer_vocabulary.ts";

/** What a model's files say about its tokenizer. */
export interface TokenizerFiles {
  /** `tokenizer.json`, parsed. */
  readonly tokenizer: unknown;
  /** `tokenizer_config.json`, checked; `{}` where there is none. */
  readonly config: TokenizerConfig;
  /** Tokens that end a generated text, besides the config's eos_token. */
  readonly endTokens: readonly number[];
  /** Names the tokenizer in messages. */
  readonly source: string;
}

/** A token by its text; older files describe it in full. */
const tokenName = z.union([
  z.string(),
  z.looseObject({ content: z.string() }).transform(({ content }) => content),
]);
const tokensSchema = z.looseObject({ bos_token: tokenName.nullish(), eos_token: tokenName.nullish() });
const configSchema = z.looseObject({
  ...tokensSchema.shape,
  chat_template: z.union([z.string(), z.array(z.looseObject({ name: z.string(), template: z.string() }))])
    .nullish(),
});
const endIdsSchema = z.union([z.int(), z.array(z.int())]).nullish();
const generationSchema = z.looseObject({ eos_token_id: endIdsSchema });

/** The fields of `tokenizer_config.json` that count here. */
export type TokenizerConfig = z.infer<typeof configSchema>;

/**
 * A tokenizer by its files' content.
 *
 * @throws CheckpointError for files that are damaged, contradict themselves or ask for what this program does not have.
 */
export function jsonTokenizer(files: TokenizerFiles): Tokenizer {
  function fail(text: string): never {
    throw new CheckpointError(`Cannot use the tokenizer of ${files.source}: ${text}`);
  }
  try {
    return makeTokenizer(files, fail);
  } catch (cause) {
    if (cause instanceof CheckpointError) throw cause;
    // A regular expression that does not compile, parts nested too deeply.
    throw new CheckpointError(
      `Cannot use the tokenizer of ${files.source}: ${(cause as Error).message.split("\n")[0]}`,
      { cause },
    );
  }
}

function makeTokenizer(
  { tokenizer, config, endTokens }: TokenizerFiles,
  fail: (text: string) => never,
): Tokenizer {
  const parts = parseTokenizer(tokenizer, fail);
  const vocabulary = readVocabulary(parts, fail);
  const { tokens, idOf } = vocabulary;
  const merges = readMerges({ model: parts.model, vocabulary }, fail);
  const { unk_token } = parts.model;
  if (unk_token && !idOf.has(unk_token)) {
    fail(`its unk_token ${JSON.stringify(unk_token)} is not in the vocabulary`);
  }
  const { before, after } = surroundings(parts.postProcessor, { vocabulary, fail });
  const rules = textRules(parts.decoder, fail);
  const lost = rules.fallbackTokens.filter((token) => !idOf.has(token));
  if (lost.length > 0 && lost.length < rules.fallbackTokens.length) {
    fail(`its vocabulary lacks the token of a byte, ${JSON.stringify(lost[0])}, but not those of all bytes`);
  }
  const encode = textEncoder(parts, { merges, fail });
  const silent = new Set(parts.addedTokens.filter(({ special }) => special).map(({ id }) => id));

  const { eos_token } = config;
  if (eos_token && !idOf.has(eos_token)) {
    fail(`its eos_token ${JSON.stringify(eos_token)} is not in the vocabulary`);
  }
  const ends = new Set([...(eos_token ? [idOf.get(eos_token)!] : []), ...endTokens]);
  const stranger = [...ends].find((id) => tokens[id] === undefined);
  if (stranger !== undefined) fail(`eos_token_id is ${stranger}, but the ids are 0 to ${tokens.length - 1}`);
  const [endOfText] = ends;
  if (endOfText === undefined) {
    fail(
      "no token ends a text; name one as eos_token in tokenizer_config.json or as eos_token_id in config.json",
    );
  }
  function* encodeParts(text: string, { addSpecialTokens = true }: EncodeOptions = {}): Generator<number[]> {
    if (addSpecialTokens) yield before;
    yield* encode(text);
    if (addSpecialTokens) yield after;
  }
  return {
    vocabSize: tokens.length,
    endOfText,
    endTokens: [...ends],
    encode: (text, options) => [...encodeParts(text, options)].flat(),
    encodeParts,
    decoder: (options) =>
      textStream(rules, { ...options, tokenOf: (id) => silent.has(id) ? null : tokens[id] ?? null }),
  };
}

/**
 * What the files of a folder in Hugging Face's layout say: `tokenizer.json`, and as far as they exist
 * `tokenizer_config.json`, `special_tokens_map.json`, `generation_config.json` and `chat_template.jinja`.
 *
 * @param name Of the tokenizer.json, if it has another.
 * @param eosTokenId `eos_token_id` of `config.json`, as it stands there.
 * @throws CheckpointError for a missing `tokenizer.json`, or a file that is not JSON or has fields of wrong types.
 */
export async function readTokenizerFiles(
  folder: string,
  { name = "tokenizer.json", eosTokenId }: { name?: string; eosTokenId?: unknown } = {},
): Promise<TokenizerFiles> {
  const path = join(folder, name);
  const tokenizer = await readJson(path);
  if (tokenizer === undefined) {
    throw new CheckpointError(
      `Cannot load ${path}: no such file; a tokenizer in another form becomes one by save_pretrained of transformers`,
    );
  }
  const named = await readSettings(join(folder, "special_tokens_map.json"), tokensSchema);
  const config = await readSettings(join(folder, "tokenizer_config.json"), configSchema);
  const generation = await readSettings(join(folder, "generation_config.json"), generationSchema);
  const template = await readTextIfThere(join(folder, "chat_template.jinja"));
  const endIds = check(endIdsSchema, eosTokenId, `${join(folder, "config.json")}: field "eos_token_id"`);
  return {
    tokenizer,
    config: {
      ...config,
      bos_token: config?.bos_token ?? named?.bos_token,
      eos_token: config?.eos_token ?? named?.eos_token,
      chat_template: template ?? config?.chat_template,
    },
    endTokens: [endIds ?? [], generation?.eos_token_id ?? []].flat(),
    source: path,
  };
}

/** @throws CheckpointError as `readTokenizerFiles` and `jsonTokenizer`. */
export async function readTokenizer(
  folder: string,
  options: { eosTokenId?: unknown } = {},
): Promise<Tokenizer> {
  return jsonTokenizer(await readTokenizerFiles(folder, options));
}

/** Undefined where there is no such file. */
async function readTextIfThere(path: string): Promise<string | undefined> {
  return await readTextFile(path).catch((error) => {
    if (error.cause instanceof Deno.errors.NotFound) return undefined;
    throw error;
  });
}

/** Undefined where there is no such file. */
async function readJson(path: string): Promise<unknown> {
  const text = await readTextIfThere(path);
  return text === undefined ? undefined : parseJson(text, (problem) => {
    throw new CheckpointError(`Cannot load ${path}: it ${problem}`);
  });
}

/** The fields of a file of settings; undefined where there is no such file. */
async function readSettings<T extends object>(
  path: string,
  schema: z.ZodType<T> & { readonly shape: object },
): Promise<T | undefined> {
  const json = await readJson(path);
  if (json === undefined) return undefined;
  const settings = check(schema, json, path);
  const found = misspelledName(Object.keys(settings), Object.keys(schema.shape));
  if (found === null) return settings;
  throw new CheckpointError(
    `Cannot load ${path}: unknown field "${found.name}"; correct its name if it is ${found.meant}`,
  );
}

function check<T>(schema: z.ZodType<T>, value: unknown, source: string): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0]!;
  const field = issue.path.length === 0 ? "" : `field "${issue.path.join(".")}": `;
  throw new CheckpointError(`Cannot load ${source}: ${field}${issue.message}`);
}
