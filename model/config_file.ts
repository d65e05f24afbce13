/**
 * config.json: the one place where it is read, checked and written.
 *
 * In TypeScript the fields are camelCase, in JSON snake_case with Hugging Face's names; the mapping is one to one, but
 * for RoPE (rope_config.ts).
 */
import { ConfigError, type ModelConfig } from "./config.ts";
import { checkComputation, checkNames, checkSizes } from "./config_checks.ts";
import { firstIssue, modelFields, modelSchema } from "./config_schema.ts";
import { isDeeper, parseJson } from "./files/json_text.ts";
import { oneLine } from "./files/one_line.ts";
import { parseRope, ropeScalingToJson } from "./rope_config.ts";
import { toCamelCase, toSnakeCase } from "./snake_case.ts";

/** Levels of records in records: a real file has three, and what is nested without end could not be written again. */
const MAX_DEPTH = 32;

/** Characters of a message; what is longer quotes a damaged file. */
const MAX_MESSAGE = 400;

/**
 * Reads the text of a `config.json`.
 *
 * @throws ConfigError when it is not JSON or has a field twice, and as `parseModelConfig`.
 */
export function parseModelConfigText(text: string, { source }: { source: string }): ModelConfig {
  const json = parseJson(text, (problem) => {
    throw configError(`it ${problem}`, { source });
  });
  return parseModelConfig(json, { source });
}

/**
 * Checks a parsed `config.json` and gives it types.
 *
 * @throws ConfigError for a missing or ill-typed field, an unknown field inside `recursion`, `router` or `rope_scaling`,
 * sizes that are absurd or do not fit each other, or a model that computes something else than this program.
 */
export function parseModelConfig(json: unknown, { source }: { source: string }): ModelConfig {
  function fail(text: string): never {
    throw configError(text, { source });
  }
  if (isDeeper(json, MAX_DEPTH)) fail(`it is nested deeper than ${MAX_DEPTH} levels`);
  const parsed = modelSchema.safeParse(json);
  if (!parsed.success) fail(firstIssue(parsed.error, { json }));
  const { data } = parsed;
  checkNames(json as object, fail);
  checkComputation(data, { json: json as object, fail });
  const { recursion, router, rope_scaling: _, rope_parameters: __, ...rest } = data;
  const headDim = rest.head_dim ?? rest.hidden_size / rest.num_attention_heads;
  const isOwn = ([key]: [string, unknown]): boolean => Object.hasOwn(modelFields, key);
  const config = {
    ...toCamelCase(Object.fromEntries(Object.entries(rest).filter(isOwn))),
    numKeyValueHeads: rest.num_key_value_heads ?? rest.num_attention_heads,
    headDim,
    ...parseRope(data, { headDim, fail }),
    recursion: recursion && toCamelCase(recursion),
    router: router && toCamelCase(router),
    extra: Object.fromEntries(
      Object.entries(json as object).filter((entry) => !isOwn(entry) && !isImplied(entry)),
    ),
  } as unknown as ModelConfig;
  checkSizes(config, fail);
  return config;
}

/** Whether a field follows from others: `model_type` from the recursion, but for a Mistral model, which stays one. */
function isImplied([key, value]: [string, unknown]): boolean {
  return key === "model_type" && value !== "mistral";
}

/** The inverse of `parseModelConfig`. */
export function modelConfigToJson(config: ModelConfig): Record<string, unknown> {
  const { extra, recursion, router, ropeScaling, tokenizer, ...fields } = config;
  return {
    model_type: recursion ? "mor_llama" : "llama",
    ...toSnakeCase(fields),
    ...(ropeScaling && { rope_scaling: ropeScalingToJson(ropeScaling) }),
    recursion: recursion && toSnakeCase(recursion),
    router: router && toSnakeCase(router),
    ...(tokenizer && { tokenizer }),
    ...extra,
  };
}

/** An error of one line, whatever names and values the file has put into its text. */
function configError(text: string, { source }: { source: string }): ConfigError {
  return new ConfigError(`Cannot use config ${source}: ${oneLine(text, { most: MAX_MESSAGE })}`);
}
