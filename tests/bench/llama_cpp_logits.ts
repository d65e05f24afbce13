/** Files of logits: rows of f32, one for each position of a text. */
import {
  type Agreement,
  compareRows,
  crossEntropy,
  mean,
  type RowDistance,
  summarize,
} from "./llama_cpp_distance.ts";

/** Rows in order, each in the place of the one before. */
async function* rowsOf(
  path: string,
  { vocabSize }: { vocabSize: number },
): AsyncGenerator<Float32Array, void> {
  using file = await Deno.open(path);
  const row = new Float32Array(vocabSize);
  const bytes = new Uint8Array(row.buffer);
  for (;;) {
    for (let filled = 0; filled < bytes.length;) {
      const read = await file.read(bytes.subarray(filled));
      if (read === null) return;
      filled += read;
    }
    yield row;
  }
}

/** Compares two files of the same text. */
export async function compareLogits(
  reference: string,
  { other, vocabSize }: { other: string; vocabSize: number },
): Promise<Agreement> {
  const distances: RowDistance[] = [];
  const others = rowsOf(other, { vocabSize });
  for await (const row of rowsOf(reference, { vocabSize })) {
    distances.push(compareRows(row, (await others.next()).value!));
  }
  await others.return();
  return summarize(distances);
}

/** Nats per token of the text that the logits are of. */
export async function meanCrossEntropy(
  path: string,
  { ids, vocabSize }: { ids: readonly number[]; vocabSize: number },
): Promise<number> {
  const losses: number[] = [];
  for await (const row of rowsOf(path, { vocabSize })) {
    losses.push(crossEntropy(row, ids[losses.length + 1]!));
  }
  return mean(losses);
}
