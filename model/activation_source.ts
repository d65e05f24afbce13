/** Where each layer of a pass finds room for its activations: in buffers of its own, or in a set that all share. */
import { HALVES_PER_WORD } from "../gpu/kernels/cast.ts";
import type { Allocator } from "../gpu/memory.ts";
import { createTensor, type Tensor, viewTensor } from "../gpu/tensor.ts";
import type { ModelConfig } from "./config.ts";
import { type ActivationDtype, allocateLayerActivations, type LayerActivations } from "./layer_buffers.ts";

/** How a pass keeps what its layers make. */
export interface ActivationSettings {
  readonly config: ModelConfig;
  /** Whether a backward pass follows. */
  readonly backward: boolean;
  /** Whether it runs layers again. */
  readonly recompute: boolean;
  readonly activationDtype: ActivationDtype;
}

/** What a layer asks for. */
export interface ActivationsWanted {
  readonly rows: number;
  /** What it keeps of its projection: all of it, all for later steps too, or its queries. */
  readonly projection: "all" | "shared keys" | "queries";
  /**
   * Who reads its output: the next layer of its run; the recursion, as a state; or the head, which is done with it
   * before the layers' gradients begin.
   */
  readonly output: "next layer" | "state" | "head";
}

/**
 * Activations for the next layer: new ones each time for backward. Otherwise one set serves all layers, but for the
 * projections that later recursion steps read: a layer has read its input for the last time when it writes its output.
 * It does so for backward too where that begins with little: with recomputation from the outputs, which are each
 * layer's own, or from what is stored in f16. What others than the next layer read stays f32: states, and the keys of
 * later steps.
 */
export function activationSource(
  device: Allocator,
  { config, backward, recompute, activationDtype }: ActivationSettings,
): (wanted: ActivationsWanted) => LayerActivations {
  const hasCommon = !backward || recompute || activationDtype === "f16";
  const isStored = backward && activationDtype === "f16";
  let common: LayerActivations | null = null;
  return ({ rows, projection, output }) => {
    if (!hasCommon) {
      return allocateLayerActivations(device, { config, rows, makesKeys: projection !== "queries" });
    }
    const isFirst = common === null;
    // The first layer asks for the most rows, so later ones fit.
    common ??= allocateLayerActivations(device, { config, rows, makesKeys: true });
    const { qkv, attended, logSumExp, mid, gateUp, out } = common;
    const tensor = ({ label, shape: [, columns] }: Tensor): Tensor =>
      createTensor(device, { shape: [rows, columns!], label });
    const halves = ({ label, shape: [, columns] }: Tensor): Tensor => {
      const shape = [rows, columns! / HALVES_PER_WORD];
      return createTensor(device, { shape, dtype: "u32", label: `${label} in f16` });
    };
    // The rows of a projection count as keys of the layer.
    const projected = viewTensor(qkv, {
      shape: [rows, (projection === "queries" ? attended : qkv).shape[1]!],
    });
    const isForLater = projection === "shared keys";
    const isOutputKept = isStored ? output === "state" : recompute && !isFirst;
    const own = {
      ...common,
      qkv: isForLater ? tensor(qkv) : projected,
      out: isOutputKept ? tensor(out) : out,
    };
    if (!isStored) return own;
    const storedOut = output === "next layer" ? { out: halves(out) } : {};
    if (recompute) return { ...own, stored: storedOut };
    return {
      ...own,
      logSumExp: tensor(logSumExp),
      stored: {
        ...isForLater ? {} : { qkv: halves(projected) },
        attended: halves(attended),
        mid: halves(mid),
        gateUp: halves(gateUp),
        ...storedOut,
      },
    };
  };
}
