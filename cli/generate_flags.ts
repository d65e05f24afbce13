/** The flags of `mor generate`, and which of them go together. */
import { ValidationError } from "@cliffy/command";
import { BATCH_SIZE, type PromptsFlags } from "./generate_prompts.ts";

export interface GenerateFlags {
  readonly prompt?: string | undefined;
  readonly file?: string | undefined;
  readonly prompts?: string | undefined;
  readonly out?: string | undefined;
  readonly resume?: boolean | undefined;
  readonly inOrder?: boolean | undefined;
  readonly batchSize?: number | undefined;
  readonly kvMemory?: number | undefined;
  readonly count: number;
  readonly temperature: number;
  readonly topK: number;
  readonly topP: number;
  readonly minP: number;
  readonly repeatPenalty: number;
  readonly stop?: string[] | undefined;
  readonly seed?: number | undefined;
  readonly depths?: boolean | undefined;
  readonly raw?: boolean | undefined;
  readonly json?: boolean | undefined;
  readonly logprobs?: number | undefined;
  readonly dtype?: string | undefined;
  readonly kvDtype: string;
  readonly chat?: boolean | undefined;
  readonly system?: string | undefined;
  readonly quiet?: boolean | undefined;
}

/** @throws ValidationError for flags that cannot be meant, or not together. */
export function checkGenerateFlags(
  {
    prompt,
    file,
    prompts,
    out,
    resume,
    inOrder,
    batchSize,
    kvMemory,
    depths,
    chat,
    system,
    seed,
    count,
    temperature,
    topK,
    topP,
    minP,
    repeatPenalty,
    logprobs,
    json,
  }: GenerateFlags,
): void {
  function check(isRight: boolean, text: string): void {
    if (!isRight) throw new ValidationError(text);
  }
  const given = [prompt, file, prompts].filter((source) => source !== undefined);
  check(given.length === 1, "Give the prompt by one of -p, -f and --prompts");
  const needsPrompts = {
    "--out": out,
    "--in-order": inOrder,
    "--batch-size": batchSize,
    "--kv-memory": kvMemory,
  };
  for (const [flag, value] of Object.entries(needsPrompts)) {
    check(value === undefined || prompts !== undefined, `${flag} needs --prompts`);
  }
  check(!resume || out !== undefined, "--resume needs --out");
  const needsOne = { "--json": json, "--depths": depths, "--logprobs": logprobs };
  for (const [flag, value] of Object.entries(needsOne)) {
    check(value === undefined || prompts === undefined, `${flag} does not go with --prompts`);
  }
  check(batchSize === undefined || batchSize >= 1, `--batch-size is ${batchSize}, wanted 1 or more`);
  check(kvMemory === undefined || kvMemory >= 1, `--kv-memory is ${kvMemory}, wanted 1 or more`);
  check(count >= 0, `-n is ${count}, wanted 0 or more`);
  check(temperature >= 0, `--temperature is ${temperature}, wanted 0 or more`);
  check(topK >= 0, `--top-k is ${topK}, wanted 0 or more`);
  check(topP > 0 && topP <= 1, `--top-p is ${topP}, wanted above 0, at most 1`);
  check(minP >= 0 && minP <= 1, `--min-p is ${minP}, wanted 0 to 1`);
  check(repeatPenalty > 0, `--repeat-penalty is ${repeatPenalty}, wanted above 0`);
  check(seed === undefined || seed >= 0 && seed < 2 ** 32, `--seed is ${seed}, wanted 0 to ${2 ** 32 - 1}`);
  check(system === undefined || chat === true, "--system needs --chat");
  check(logprobs === undefined || json === true, "--logprobs needs --json");
  check(logprobs === undefined || logprobs >= 0, `--logprobs is ${logprobs}, wanted 0 or more`);
}

/** The flags of `--prompts`. */
export function promptsFlags(flags: GenerateFlags & { prompts: string }): PromptsFlags {
  const { prompts, out, count, seed, kvMemory, temperature, topK, topP, minP, repeatPenalty } = flags;
  return {
    prompts,
    isChat: flags.chat === true,
    out,
    count,
    seed,
    kvMemory,
    ...{ temperature, topK, topP, minP, repeatPenalty },
    resume: flags.resume === true,
    inOrder: flags.inOrder === true,
    stop: flags.stop ?? [],
    batchSize: flags.batchSize ?? BATCH_SIZE,
  };
}
