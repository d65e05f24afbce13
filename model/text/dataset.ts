/** Texts to token streams, token streams to seeded batches. */
import { DataError, readDocuments } from "./documents.ts";
import { permutation, uniform } from "../random.ts";
import type { Tokenizer } from "./tokenizer.ts";

/** B windows of T tokens and, for each token, the next one. Row-major (B, T). */
export interface Batch {
  readonly ids: Uint32Array<ArrayBuffer>;
  readonly targets: Uint32Array<ArrayBuffer>;
}

/** One stream of tokens, split into a part to learn from and a part to measure on. */
export interface Dataset {
  readonly training: Uint16Array | Uint32Array;
  readonly validation: Uint16Array | Uint32Array;
  /** Identifies the tokens: a resumed run must have the same. */
  readonly fingerprint: string;
}

/** Tokens that there is room for before any are read. */
const LEAST_ROOM = 65_536;

/**
 * Reads text files, JSONL files (one document a line, its text under `textField`) and folders of both, in name order.
 * Documents are joined by the end-of-text token.
 *
 * @throws DataError as `readDocuments` does, and for a text that the tokenizer cannot take.
 */
export async function readTokens(
  paths: readonly string[],
  { tokenizer, textField }: { tokenizer: Tokenizer; textField: string },
): Promise<Uint32Array<ArrayBuffer>> {
  let tokens = new Uint32Array(LEAST_ROOM);
  let count = 0;
  function add(part: ArrayLike<number>): void {
    const end = count + part.length;
    if (end > tokens.length) {
      const room = Math.max(end, 2 * tokens.length);
      tokens = new Uint32Array(tokens.buffer.transfer(room * tokens.BYTES_PER_ELEMENT));
    }
    tokens.set(part, count);
    count = end;
  }
  for await (const { text } of readDocuments(paths, { textField })) {
    for (const part of tokenizer.encodeParts(text)) add(part);
    add([tokenizer.endOfText]);
  }
  return tokens.subarray(0, count);
}

/**
 * Holds out the last `validationFraction` of the tokens.
 *
 * @throws DataError when a part is shorter than one sequence and its target.
 */
export async function splitTokens(
  tokens: ArrayLike<number>,
  { validationFraction, sequenceLength, vocabSize }: {
    validationFraction: number;
    sequenceLength: number;
    vocabSize: number;
  },
): Promise<Dataset> {
  const Store = vocabSize <= 65536 ? Uint16Array : Uint32Array;
  const all = new Store(tokens);
  const held = Math.floor(all.length * validationFraction);
  const training = all.subarray(0, all.length - held);
  const validation = all.subarray(all.length - held);
  for (const [part, { length }] of Object.entries({ training, validation })) {
    if (part === "validation" && held === 0) continue;
    if (length < sequenceLength + 1) {
      throw new DataError(
        `Cannot train: the ${part} part of the text has ${length} tokens, one sequence needs ${
          sequenceLength + 1
        }; ` +
          "give more text or lower --sequence-length",
      );
    }
  }
  const digest = await crypto.subtle.digest("SHA-256", all);
  const fingerprint = [...new Uint8Array(digest, 0, 16)].map((byte) => byte.toString(16).padStart(2, "0"))
    .join("");
  return { training, validation, fingerprint };
}

/**
 * Training batch number `index`, counted from 0: windows without overlap, each visited once an epoch in random order.
 * A pure function of its arguments, so that a resumed run needs no data cursor.
 */
export function trainingBatch(
  tokens: Uint16Array | Uint32Array,
  { index, batchSize, sequenceLength, seed }: {
    index: number;
    batchSize: number;
    sequenceLength: number;
    seed: number;
  },
): Batch {
  const windows = windowCount(tokens, sequenceLength);
  const starts = Array.from({ length: batchSize }, (_, row) => {
    const visit = index * batchSize + row;
    const epoch = epochOrder({ epoch: Math.floor(visit / windows), windows, seed });
    // Epochs cut the text at different places.
    const slack = tokens.length - 1 - windows * sequenceLength;
    const shift = Math.floor(epoch.shift * (slack + 1));
    return epoch.order[visit % windows]! * sequenceLength + shift;
  });
  return windowsAt(tokens, { starts, sequenceLength });
}

/** The order of one epoch. The last ones are kept: consecutive batches ask for the same. */
const epochs = new Map<string, { order: Uint32Array; shift: number }>();

function epochOrder({ epoch, windows, seed }: { epoch: number; windows: number; seed: number }): {
  order: Uint32Array;
  shift: number;
} {
  const key = `${seed} ${epoch} ${windows}`;
  const known = epochs.get(key);
  if (known) return known;
  const next = uniform(seed, "epoch", epoch);
  const made = { shift: next(), order: permutation(windows, next) };
  if (epochs.size >= 2) epochs.delete(epochs.keys().next().value!);
  epochs.set(key, made);
  return made;
}

/** Full batches of windows for evaluation, in text order, at most `maximumBatches` of them spread evenly. */
export function* evaluationBatches(
  tokens: Uint16Array | Uint32Array,
  { batchSize, sequenceLength, maximumBatches }: {
    batchSize: number;
    sequenceLength: number;
    maximumBatches: number;
  },
): Generator<Batch> {
  const windows = windowCount(tokens, sequenceLength);
  const batches = Math.min(Math.floor(windows / batchSize), maximumBatches);
  const wanted = batches * batchSize;
  const starts = Array.from(
    { length: wanted },
    (_, i) => Math.floor((i * windows) / wanted) * sequenceLength,
  );
  for (let first = 0; first < wanted; first += batchSize) {
    yield windowsAt(tokens, { starts: starts.slice(first, first + batchSize), sequenceLength });
  }
}

/** Windows of `sequenceLength` tokens and their targets that a text holds without overlap. */
export function windowCount({ length }: ArrayLike<number>, sequenceLength: number): number {
  return Math.floor((length - 1) / sequenceLength);
}

function windowsAt(
  tokens: Uint16Array | Uint32Array,
  { starts, sequenceLength }: { starts: readonly number[]; sequenceLength: number },
): Batch {
  const ids = new Uint32Array(starts.length * sequenceLength);
  const targets = new Uint32Array(starts.length * sequenceLength);
  starts.forEach((start, row) => {
    ids.set(tokens.subarray(start, start + sequenceLength), row * sequenceLength);
    targets.set(tokens.subarray(start + 1, start + sequenceLength + 1), row * sequenceLength);
  });
  return { ids, targets };
}
