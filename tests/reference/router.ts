/**
 * Routers: scores of candidate rows, O a row (1 for expert choice, N depths for token choice).
 *
 * linear: x W^T / temperature. mlp: gelu(x W1^T / temperature) W2^T with 2C hidden features. No biases.
 */
import type { RouterConfig } from "../../model/config.ts";
import { gelu, geluBackward } from "./gelu.ts";
import { project, projectBackward } from "./projection.ts";
import { routerScore, routerScoreBackward, type RouterScoreSettings } from "./router_score.ts";
import { addGradient, type Model, weightOf, type Weights } from "./weights.ts";

/** What a router computed for some rows of the state. */
export interface RouterTape {
  /** What the names of its weights begin with. */
  readonly prefix: string;
  /** The state, (rows, C). */
  readonly x: Float64Array;
  /** Rows that were scored, ascending; (n). */
  readonly candidates: Int32Array;
  /** Hidden features of an mlp router before and after their activation, (n, 2C) each; null of a linear one. */
  readonly hidden: { readonly x: Float64Array; readonly out: Float64Array } | null;
  /** Raw logits, (n, O). */
  readonly logits: Float64Array;
}

function scoreSettings(
  { config: { hiddenSize, router } }: Model,
  weight: Float64Array,
): RouterScoreSettings {
  return { temperature: router!.temperature, outputs: weight.length / hiddenSize };
}

/** Name of the weight that reads the state. */
function firstName(prefix: string, { architecture }: RouterConfig): string {
  return architecture === "linear" ? `${prefix}.weight` : `${prefix}.hidden.weight`;
}

/** Scores the candidates with the router whose weights' names begin with `prefix`; x (rows, C). */
export function routerForward(
  model: Model,
  { prefix, x, candidates }: { prefix: string; x: Float64Array; candidates: Int32Array },
): RouterTape {
  const weight = weightOf(model, firstName(prefix, model.config.router!));
  const scores = routerScore({ x, weight, indices: candidates }, scoreSettings(model, weight));
  if (model.config.router!.architecture === "linear") {
    return { prefix, x, candidates, hidden: null, logits: scores };
  }
  const out = gelu({ x: scores }, { scale: 1 });
  const inFeatures = 2 * model.config.hiddenSize;
  const logits = project(model, { name: `${prefix}.output.weight`, x: out, inFeatures });
  return { prefix, x, candidates, hidden: { x: scores, out }, logits };
}

/** Gradient of the state, (rows, C); adds the gradients of the weights to `gradients`. gradLogits (n, O). */
export function routerBackward(
  model: Model,
  { tape: { prefix, x, candidates, hidden }, gradLogits, gradients }: {
    tape: RouterTape;
    gradLogits: Float64Array;
    gradients: Weights;
  },
): Float64Array {
  let gradScores = gradLogits;
  if (hidden) {
    const name = `${prefix}.output.weight`;
    const inFeatures = 2 * model.config.hiddenSize;
    const gradOut = projectBackward(model, {
      name,
      gradOut: gradLogits,
      x: hidden.out,
      inFeatures,
      gradients,
    });
    gradScores = geluBackward({ gradOut, x: hidden.x }, { scale: 1 });
  }
  const name = firstName(prefix, model.config.router!);
  const weight = weightOf(model, name);
  const { gradX, gradWeight } = routerScoreBackward(
    { gradLogits: gradScores, x, weight, indices: candidates },
    scoreSettings(model, weight),
  );
  addGradient(gradients, { name, value: gradWeight });
  return gradX;
}
