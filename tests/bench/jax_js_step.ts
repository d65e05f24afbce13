/** A training step in jax-js: loss, gradients, clipping by their norm and AdamW, compiled into one function. */
import type { OptimizerSettings } from "../../model/optimizer.ts";
import type { Jax, JaxArray, JaxArrays } from "./jax_js_library.ts";
import { crossEntropy, type ModelInputs, type ModelShape } from "./jax_js_model.ts";

/** What a step changes. */
export interface JaxState {
  readonly weights: JaxArrays;
  readonly firstMoments: JaxArrays;
  readonly secondMoments: JaxArrays;
}

/** Scalars that change from step to step. */
export interface Schedule {
  readonly learningRate: JaxArray;
  /** 1 / (1 - beta^step). */
  readonly correction1: JaxArray;
  readonly correction2: JaxArray;
}

/** What a step makes; the state takes the place of the one that it was given. */
export interface JaxStep {
  readonly loss: JaxArray;
  readonly gradNorm: JaxArray;
  readonly state: JaxState;
}

/** Weights and moments of zero. */
export function initialState(jax: Jax, weights: JaxArrays): JaxState {
  const zeros = (): JaxArrays => mapArrays(weights, ({ shape }) => jax.numpy.zeros(shape));
  return { weights, firstMoments: zeros(), secondMoments: zeros() };
}

/** The schedule of a step, counted from 0. */
export function scheduleOf(
  jax: Jax,
  { step, learningRate, betas: [beta1, beta2] }: {
    step: number;
    learningRate: number;
    betas: OptimizerSettings["betas"];
  },
): Schedule {
  const scalar = (value: number): JaxArray => jax.numpy.array(Float32Array.of(value), { shape: [] });
  return {
    learningRate: scalar(learningRate),
    correction1: scalar(1 / (1 - beta1 ** (step + 1))),
    correction2: scalar(1 / (1 - beta2 ** (step + 1))),
  };
}

/**
 * The compiled step, which takes over what it is given.
 *
 * @param optimizer Its largest gradient norm is above 0: gradients are always clipped.
 */
export function trainingStep(
  jax: Jax,
  { optimizer, ...model }: ModelShape & { looksUp: boolean; optimizer: OptimizerSettings },
): (state: JaxState, inputs: ModelInputs, schedule: Schedule) => JaxStep {
  const { numpy: np } = jax;
  const { betas: [beta1, beta2], eps, weightDecay, maxGradNorm } = optimizer;
  const lossAndGradients = jax.valueAndGrad(crossEntropy(jax, model));

  /** One array after AdamW; its gradient is clipped already. */
  function update(
    { weight, gradient, first, second }: Record<"weight" | "gradient" | "first" | "second", JaxArray>,
    { learningRate, correction1, correction2 }: Schedule,
  ): { weight: JaxArray; first: JaxArray; second: JaxArray } {
    const newFirst = first.mul(beta1).add(gradient.ref.mul(1 - beta1));
    const newSecond = second.mul(beta2).add(np.square(gradient).mul(1 - beta2));
    const root = np.sqrt(newSecond.ref.mul(correction2.ref)).add(eps);
    const direction = newFirst.ref.mul(correction1.ref).div(root);
    // Norm weights, which are no matrices, do not decay.
    const change = weight.ndim === 1 ? direction : direction.add(weight.ref.mul(weightDecay));
    return { weight: weight.sub(learningRate.ref.mul(change)), first: newFirst, second: newSecond };
  }

  return jax.jit(({ weights, firstMoments, secondMoments }, inputs, schedule) => {
    const [loss, gradients] = lossAndGradients(mapArrays(weights, ({ ref }) => ref), inputs);
    const squares = Object.values(gradients).map((gradient) => np.square(gradient.ref).sum());
    const gradNorm = np.sqrt(squares.reduce((sum, part) => sum.add(part)));
    const clip = np.minimum(1, np.reciprocal(gradNorm.ref).mul(maxGradNorm));
    const updated = Object.keys(weights).map((name) => ({
      name,
      ...update({
        weight: weights[name]!,
        gradient: gradients[name]!.mul(clip.ref),
        first: firstMoments[name]!,
        second: secondMoments[name]!,
      }, schedule),
    }));
    for (const scalar of [clip, ...Object.values(schedule)]) scalar.dispose();
    const named = (part: "weight" | "first" | "second"): JaxArrays =>
      Object.fromEntries(updated.map(({ name, [part]: array }) => [name, array]));
    return {
      loss,
      gradNorm,
      state: { weights: named("weight"), firstMoments: named("first"), secondMoments: named("second") },
    };
  });
}

/** Arrays made of arrays, under the same names. */
function mapArrays(arrays: JaxArrays, make: (array: JaxArray) => JaxArray): JaxArrays {
  return Object.fromEntries(Object.entries(arrays).map(([name, array]) => [name, make(array)]));
}
