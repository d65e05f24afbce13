import { addScaled, row } from "./rows.ts";

/** out_t = weight[ids_t]; ids (T), weight (V, C), out (T, C). */
export function embedding(
  { ids, weight }: { ids: ArrayLike<number>; weight: Float64Array },
  { hiddenSize: width }: { hiddenSize: number },
): Float64Array {
  const out = new Float64Array(ids.length * width);
  for (let t = 0; t < ids.length; t++) out.set(row(weight, { index: ids[t]!, width }), t * width);
  return out;
}

/** gradWeight[v] = sum of gradOut_t over the t with ids_t = v; gradOut (T, C), gradWeight (V, C). */
export function embeddingBackward(
  { ids, gradOut }: { ids: ArrayLike<number>; gradOut: Float64Array },
  { hiddenSize: width, vocabSize }: { hiddenSize: number; vocabSize: number },
): Float64Array {
  const gradWeight = new Float64Array(vocabSize * width);
  for (let t = 0; t < ids.length; t++) {
    addScaled(row(gradWeight, { index: ids[t]!, width }), { source: row(gradOut, { index: t, width }) });
  }
  return gradWeight;
}
