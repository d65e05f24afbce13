import { layerBackward, layerForward, type LayerTape } from "./layer.ts";
import type { Packing } from "./packing.ts";
import type { SharedKeyValues } from "./self_attention.ts";
import type { Model, Weights } from "./weights.ts";

/** Layers that were run one after the other. */
export interface StackTape {
  readonly tapes: readonly LayerTape[];
  /** Output of the last layer, or the input where there is no layer; (rows, C). */
  readonly out: Float64Array;
}

/**
 * Runs layers, given by their unique indices, one after the other; x (rows, C).
 *
 * @param shared keys and values that all runs of a layer share; by default each run has its own
 */
export function stackForward(
  model: Model,
  { x, layers, packing, shared = null }: {
    x: Float64Array;
    layers: readonly number[];
    packing: Packing;
    shared?: SharedKeyValues | null;
  },
): StackTape {
  const tapes: LayerTape[] = [];
  let out = x;
  for (const layer of layers) {
    const tape = layerForward(model, { x: out, layer, packing, shared });
    tapes.push(tape);
    out = tape.out;
  }
  return { tapes, out };
}

/**
 * Gradient of the stack's input, (rows, C); adds the gradients of the layers' weights to `gradients`.
 *
 * Where keys and values are shared, the runs of a layer must come in the reverse order of the forward.
 */
export function stackBackward(
  model: Model,
  { stack, gradOut, gradients, gradShared }: {
    stack: StackTape;
    gradOut: Float64Array;
    gradients: Weights;
    gradShared: SharedKeyValues | null;
  },
): Float64Array {
  return stack.tapes.toReversed().reduce(
    (gradient, tape) => layerBackward(model, { tape, gradOut: gradient, gradients, gradShared }),
    gradOut,
  );
}
