/** Texts to measure a model on, and how they are cut. */
import { ConfigError } from "../model/config.ts";
import { readTrainingState } from "../model/files/checkpoint.ts";
import type { CheckpointSource } from "../model/files/checkpoint_source.ts";
import { readTokens } from "../model/text/dataset.ts";
import { DataError } from "../model/text/documents.ts";
import type { Tokenizer } from "../model/text/tokenizer.ts";
import type { Terminal } from "./terminal.ts";
import { inheritedFlags } from "./train_flags.ts";

/** Length of a window where the checkpoint does not say what the model was trained with. */
export const SEQUENCE_LENGTH = 512;

/** @throws DataError for a text in which there is nothing to predict. */
export async function readHeldOut(
  paths: readonly string[],
  { tokenizer, textField }: { tokenizer: Tokenizer; textField: string },
): Promise<Uint32Array<ArrayBuffer>> {
  // What parts documents is predicted; after the last one there is no other to part it from.
  const tokens = (await readTokens(paths, { tokenizer, textField })).subarray(0, -1);
  if (tokens.length < 2) {
    throw new DataError(`Cannot evaluate on ${paths.join(", ")}: ${tokens.length} tokens, wanted 2 or more`);
  }
  return tokens;
}

/**
 * Tokens of a window: what `--sequence-length` says, or as in training, since longer windows need positions that the
 * model has not learned.
 *
 * @throws ConfigError for more than the model has positions.
 */
export async function windowLength(
  { path, config: { maxPositionEmbeddings } }: CheckpointSource,
  { flag, terminal }: { flag: number | undefined; terminal: Terminal },
): Promise<number> {
  if (flag !== undefined && flag > maxPositionEmbeddings) {
    throw new ConfigError(
      `Cannot use windows of ${flag} tokens: the model has ${maxPositionEmbeddings} positions ` +
        "(max_position_embeddings); lower --sequence-length",
    );
  }
  if (flag !== undefined) return flag;
  const state = await readTrainingState(path).catch(() => null);
  const trained = state && inheritedFlags(state.flags).sequence_length;
  if (trained) {
    terminal.note(`windows of ${trained} tokens, as in training; --sequence-length takes others`);
    return trained;
  }
  const length = Math.min(SEQUENCE_LENGTH, maxPositionEmbeddings);
  terminal.note(
    `windows of ${length} tokens: the checkpoint does not tell its training's length; ` +
      "--sequence-length takes others",
  );
  return length;
}
