/** The small tokenizers of fixtures/tokenizer and what Hugging Face's library makes of nasty lines with them. */
import type { TokenizerConfig, TokenizerFiles } from "../../model/text/tokenizer_json.ts";

const folder = new URL("../../fixtures/tokenizer/", import.meta.url);

export type FixtureForm = "byte_level" | "sentence_piece";

/** A line: its ids with each tokenizer, and what they decode to. */
export interface FixtureLine {
  readonly text: string;
  readonly ids: readonly number[];
  /** Differs from the text where that has special tokens. */
  readonly decoded: string;
}

export function fixtureLines(form: FixtureForm): FixtureLine[] {
  const lines = Deno.readTextFileSync(new URL("lines.jsonl", folder)).trimEnd().split("\n");
  return lines.map((line) => {
    const record = JSON.parse(line);
    return { text: record.text, ids: record[form], decoded: record[`${form}_text`] ?? record.text };
  });
}

/** The text of a tokenizer.json. */
export function fixtureText(form: FixtureForm): string {
  return Deno.readTextFileSync(new URL(`${form}.json`, folder));
}

// deno-lint-ignore no-explicit-any -- JSON that tests damage
export type Change = (json: any) => void;

/** A tokenizer's files, with changes to the parsed tokenizer.json if given. */
export function fixtureFiles(
  form: FixtureForm,
  { change, config = {}, endTokens = [0] }: {
    change?: Change;
    config?: TokenizerConfig;
    endTokens?: readonly number[];
  } = {},
): TokenizerFiles {
  const tokenizer = JSON.parse(fixtureText(form));
  change?.(tokenizer);
  return { tokenizer, config, endTokens, source: "a fixture" };
}
