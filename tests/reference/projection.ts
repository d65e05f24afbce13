/** Linear maps by the name of their weight; the rows of the weight say how many outputs there are. */
import { linear, linearInputGradient, type LinearSizes, linearWeightGradient } from "./linear.ts";
import { addGradient, type Model, weightOf, type Weights } from "./weights.ts";

function sizesOf(weight: Float64Array, { inFeatures }: { inFeatures: number }): LinearSizes {
  return { inFeatures, outFeatures: weight.length / inFeatures };
}

/** x W^T with the model's weight of that name; x (rows, inFeatures), out (rows, outFeatures). */
export function project(
  model: Model,
  { name, x, inFeatures }: { name: string; x: Float64Array; inFeatures: number },
): Float64Array {
  const weight = weightOf(model, name);
  return linear({ x, weight }, sizesOf(weight, { inFeatures }));
}

/** Gradient of x, (rows, inFeatures); adds the weight's to `gradients`. gradOut (rows, outFeatures). */
export function projectBackward(
  model: Model,
  { name, gradOut, x, inFeatures, gradients }: {
    name: string;
    gradOut: Float64Array;
    x: Float64Array;
    inFeatures: number;
    gradients: Weights;
  },
): Float64Array {
  const weight = weightOf(model, name);
  const sizes = sizesOf(weight, { inFeatures });
  addGradient(gradients, { name, value: linearWeightGradient({ gradOut, x }, sizes) });
  return linearInputGradient({ gradOut, weight }, sizes);
}
