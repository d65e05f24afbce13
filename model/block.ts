/** Layers applied one after another: the shared block of a recursion, or the layers before and after it. */
import type { Commands } from "../gpu/commands.ts";
import { castToF32 } from "../gpu/kernels/cast.ts";
import type { Packing } from "../gpu/packing.ts";
import type { Tensor } from "../gpu/tensor.ts";
import { layerBackward, layerForward, layerRecompute, layerRestore } from "./layer.ts";
import type { LayerActivations, LayerContext, LayerKeys } from "./layer_buffers.ts";
import type { LayerWeights } from "./model_weights.ts";
import type { LayerViews } from "./parameter_layout.ts";

/** What layers leave for their backward pass, and where their keys come from. */
export interface LayerBuffers {
  readonly activations: readonly LayerActivations[];
  readonly keys: readonly LayerKeys[];
}

/** Layers with their weights. */
export interface LayerRun extends LayerBuffers {
  readonly weights: readonly LayerWeights[];
}

/** Records layers on x for the packed rows and returns the last one's output. */
export function layersForward(
  commands: Commands,
  { x, run }: { x: Tensor; run: LayerRun },
  { context, packing }: { context: LayerContext; packing: Packing },
): Tensor {
  return run.weights.reduce((input, weights, i) => {
    const activations = run.activations[i]!;
    layerForward(commands, { x: input, weights, activations, keys: run.keys[i]! }, { context, packing });
    return activations.out;
  }, x);
}

/** Records the reverse of `layersForward`; gradState turns from the gradient of the output to that of x. */
export function layersBackward(
  commands: Commands,
  { x, run, gradients, gradState }: {
    x: Tensor;
    run: LayerRun;
    gradients: readonly LayerViews[];
    gradState: Tensor;
  },
  { context, packing }: { context: LayerContext; packing: Packing },
): void {
  for (let i = run.weights.length - 1; i >= 0; i--) {
    const before = run.activations[i - 1];
    // Where outputs share a buffer, the layer's own is not needed any more: its input takes its place.
    if (before?.stored.out) {
      castToF32(commands, { halves: before.stored.out, x: before.out }, { rows: packing.rows });
    }
    const application = {
      x: before?.out ?? x,
      weights: run.weights[i]!,
      activations: run.activations[i]!,
      keys: run.keys[i]!,
    };
    if (context.recompute) layerRecompute(commands, application, { context, packing });
    else if (context.activationDtype === "f16") layerRestore(commands, application, { context, packing });
    layerBackward(commands, { ...application, gradients: gradients[i]!, gradState }, { context, packing });
  }
}
