import { layerBackward, layerForward, type LayerTape, type Packing } from "./layer.ts";
import type { Model, Weights } from "./weights.ts";

/** Layers that were run one after the other. */
export interface StackTape {
  readonly tapes: readonly LayerTape[];
  /** Output of the last layer, or the input where there is no layer; (rows, C). */
  readonly out: Float64Array;
}

/** Runs layers, given by their unique indices, one after the other; x (rows, C). */
export function stackForward(
  model: Model,
  { x, layers, packing }: { x: Float64Array; layers: readonly number[]; packing: Packing },
): StackTape {
  const tapes: LayerTape[] = [];
  let out = x;
  for (const layer of layers) {
    const tape = layerForward(model, { x: out, layer, packing });
    tapes.push(tape);
    out = tape.out;
  }
  return { tapes, out };
}

/** Gradient of the stack's input, (rows, C); adds the gradients of the layers' weights to `gradients`. */
export function stackBackward(
  model: Model,
  { stack, gradOut, gradients }: { stack: StackTape; gradOut: Float64Array; gradients: Weights },
): Float64Array {
  return stack.tapes.toReversed().reduce(
    (gradient, tape) => layerBackward(model, { tape, gradOut: gradient, gradients }),
    gradOut,
  );
}
