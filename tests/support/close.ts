import { AssertionError } from "@std/assert";

/** How far two tensors may differ. */
export interface Tolerance {
  /** Allowed deviation as a fraction of the expected tensor's magnitude. */
  readonly relative: number;
  /** Allowed on top of that, in the tensor's own units; needed where the expected tensor is zero. */
  readonly absolute?: number;
  /**
   * `largest` (default) compares the largest deviation with the largest magnitude, `norm` the L2 norm of all
   * deviations with the L2 norm of the expected tensor.
   */
  readonly measure?: "largest" | "norm";
  /** Name of the tensor in the message. */
  readonly label: string;
}

/**
 * Checks that two tensors agree and returns their relative deviation (0 where both are zero).
 *
 * @throws AssertionError for different lengths, a value that is not finite or a deviation beyond the
 * tolerance; the message names the worst index and both values there.
 */
export function assertClose(
  actual: ArrayLike<number>,
  expected: ArrayLike<number>,
  { relative, absolute = 0, measure = "largest", label }: Tolerance,
): number {
  if (actual.length !== expected.length) {
    throw new AssertionError(`${label}: ${actual.length} values, expected ${expected.length}`);
  }
  let worst = 0;
  let largest = { deviation: 0, magnitude: 0 };
  const squares = { deviation: 0, magnitude: 0 };
  for (let i = 0; i < expected.length; i++) {
    const deviation = Math.abs(actual[i]! - expected[i]!);
    if (!Number.isFinite(deviation)) {
      throw new AssertionError(`${label}: at index ${i} met ${actual[i]}, expected ${expected[i]}`);
    }
    if (deviation > largest.deviation) worst = i;
    largest = {
      deviation: Math.max(largest.deviation, deviation),
      magnitude: Math.max(largest.magnitude, Math.abs(expected[i]!)),
    };
    squares.deviation += deviation ** 2;
    squares.magnitude += expected[i]! ** 2;
  }
  const { deviation, magnitude } = measure === "largest"
    ? largest
    : { deviation: Math.sqrt(squares.deviation), magnitude: Math.sqrt(squares.magnitude) };
  if (deviation > relative * magnitude + absolute) {
    throw new AssertionError(
      `${label}: deviation ${deviation.toExponential(2)} (${measure}) of magnitude ${
        magnitude.toExponential(2)
      }, ` +
        `allowed ${relative} relative + ${absolute} absolute; ` +
        `worst at index ${worst} of ${expected.length}: met ${actual[worst]}, expected ${expected[worst]}`,
    );
  }
  return deviation === 0 ? 0 : deviation / magnitude;
}
