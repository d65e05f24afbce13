import type { DecodeOptions, Tokenizer } from "../../model/text/tokenizer.ts";

/** The text of a list of tokens. */
export function decodeAll(tokenizer: Tokenizer, ids: readonly number[], options?: DecodeOptions): string {
  const decoder = tokenizer.decoder(options);
  return ids.map((id) => decoder.push(id)).join("") + decoder.flush();
}
