/** Prompts in a JSONL file: an object a line, with a prompt and what is special about its text. */
import { z } from "zod";
import { misspelledName } from "../files/misspelled_name.ts";
import { isDeeper, parseJson } from "../files/json_text.ts";
import { oneLine } from "../files/one_line.ts";
import { toCamelCase, toSnakeCase } from "../snake_case.ts";
import { DataError, readLines } from "./documents.ts";

/** What a line may say of its text; what it does not say is the flags' to decide. */
const SETTINGS = {
  prompt: z.string(),
  system: z.string().optional(),
  count: z.int().min(0).optional(),
  temperature: z.number().min(0).optional(),
  topK: z.int().min(0).optional(),
  topP: z.number().gt(0).max(1).optional(),
  minP: z.number().min(0).max(1).optional(),
  repeatPenalty: z.number().gt(0).optional(),
  stop: z.union([z.string().min(1), z.array(z.string().min(1))]).optional(),
  seed: z.int().min(0).max(2 ** 32 - 1).optional(),
};

const SCHEMA = z.object(SETTINGS);

/** A prompt with its settings. */
export interface PromptLine extends Readonly<z.infer<typeof SCHEMA>> {
  /** Place among the prompts, from 0. */
  readonly index: number;
  /** Fields that are not settings: they go with the prompt's result. */
  readonly extra: Readonly<Record<string, unknown>>;
}

/** Levels of records in records. */
const MAX_DEPTH = 100;

/** Fields of a result that a line must not bring with it. */
const RESULT_FIELDS = ["index", "text", "finish_reason", "tokens", "mean_depth"];

/**
 * The prompts of a JSONL file; empty lines are none.
 *
 * @param path `-` for stdin.
 * @throws DataError for a file without prompts, or a line that is not an object with a prompt and settings that can be
 * meant.
 */
export async function readPromptLines(path: string): Promise<PromptLine[]> {
  const prompts: PromptLine[] = [];
  let number = 0;
  for await (const line of readLines(path)) {
    number++;
    if (line.trim() === "") continue;
    prompts.push(parsePromptLine(line, { index: prompts.length, where: `${path}:${number}` }));
  }
  if (prompts.length === 0) throw new DataError(`Cannot use ${path}: there is no prompt in it`);
  return prompts;
}

function parsePromptLine(line: string, { index, where }: { index: number; where: string }): PromptLine {
  const fail = (problem: string): never => {
    throw new DataError(`Cannot use ${where}: ${oneLine(problem, { most: 300 })}`);
  };
  const value = parseJson(line.replace(/^\uFEFF/, ""), (problem) => fail(`the line ${problem}`));
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return fail('the line is not an object, such as {"prompt": "Call me"}');
  }
  // What is no setting is written with the result.
  if (isDeeper(value, MAX_DEPTH)) fail(`the line is nested deeper than ${MAX_DEPTH} levels`);
  const known = Object.keys(toSnakeCase(SETTINGS));
  const names = Object.keys(value);
  const slip = misspelledName(names, known);
  if (slip) fail(`"${slip.name}" is no setting; "${slip.meant}" is one`);
  const taken = names.find((name) => RESULT_FIELDS.includes(name));
  if (taken) fail(`"${taken}" is a field of the results; give it another name`);
  const settings = Object.fromEntries(Object.entries(value).filter(([name]) => known.includes(name)));
  const parsed = SCHEMA.safeParse(toCamelCase(settings));
  if (!parsed.success) {
    const { path: [name], message } = parsed.error.issues[0]!;
    const field = Object.keys(toSnakeCase({ [String(name)]: null }))[0]!;
    const met = JSON.stringify((value as Record<string, unknown>)[field]) ?? "missing";
    return fail(`"${field}" is ${met}: ${message}`);
  }
  const extra = Object.fromEntries(Object.entries(value).filter(([name]) => !known.includes(name)));
  return { ...parsed.data, index, extra };
}
