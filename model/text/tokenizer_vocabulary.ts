/** The words of a tokenizer: every token's id, and which tokens merge into which. */
import type { AddedToken, BpeModel } from "./tokenizer_schema.ts";

/** Tokens and ids; ids run from 0 without gaps. */
export interface Vocabulary {
  /** By id. */
  readonly tokens: readonly string[];
  readonly idOf: ReadonlyMap<string, number>;
}

type Fail = (text: string) => never;

/** Puts a model's vocabulary and its added tokens together; `fail` gets one line if ids or tokens contradict each other. */
export function readVocabulary(
  { model, addedTokens }: { model: BpeModel; addedTokens: readonly AddedToken[] },
  fail: Fail,
): Vocabulary {
  const idOf = new Map<string, number>();
  const byId = new Map<number, string>();

  function add(token: string, id: unknown): void {
    const name = JSON.stringify(token);
    if (typeof id !== "number" || !Number.isSafeInteger(id) || id < 0) {
      fail(`its token ${name} has the id ${JSON.stringify(id)}, wanted a whole number from 0`);
    }
    const [otherId, other] = [idOf.get(token) ?? id, byId.get(id) ?? token];
    if (otherId !== id) fail(`its token ${name} has two ids, ${otherId} and ${id}`);
    if (other !== token) fail(`its tokens ${JSON.stringify(other)} and ${name} have the same id, ${id}`);
    idOf.set(token, id);
    byId.set(id, token);
  }
  for (const [token, id] of Object.entries(model.vocab)) add(token, id);
  for (const { content, id } of addedTokens) add(content, id);
  const tokens = Array.from(
    { length: byId.size },
    (_, id) =>
      byId.get(id) ?? fail(`it has ${byId.size} tokens, but none with the id ${id}; ids must have no gaps`),
  );
  if (tokens.length === 0) fail("its vocabulary is empty");
  return { tokens, idOf };
}

/** Pairs of tokens in the order of their merging, written as "a b" or as ["a", "b"]. */
export function readMerges(
  { model, vocabulary: { idOf } }: { model: BpeModel; vocabulary: Vocabulary },
  fail: Fail,
): [string, string][] {
  const seen = new Set<string>();
  return model.merges.map((merge, index) => {
    const pair = typeof merge === "string" ? merge.split(" ") : merge;
    if (!Array.isArray(pair) || pair.length !== 2 || pair.some((token) => typeof token !== "string")) {
      fail(`its merge ${index} is ${JSON.stringify(merge)?.slice(0, 80)}, wanted two tokens`);
    }
    const [left, right] = pair as [string, string];
    const stranger = [left, right, left + right].find((token) => !idOf.has(token));
    if (stranger !== undefined) {
      fail(`its merge ${index} needs the token ${JSON.stringify(stranger)}, which the vocabulary lacks`);
    }
    const key = JSON.stringify(pair);
    if (seen.has(key)) fail(`its merge ${index}, ${key}, is there twice`);
    seen.add(key);
    return [left, right];
  });
}
