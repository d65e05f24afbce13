import { assertEquals } from "@std/assert";
import { assertClose } from "../support/close.ts";

/**
 * Checks a gradient against central differences (f(x + h) - f(x - h)) / 2h with h = 1e-5 and returns the
 * relative deviation.
 *
 * In float64 the difference is good to about 1e-10 of the loss: rounding 1e-16 / h, truncation h^2. Hence the
 * tolerance of 1e-7.
 *
 * @param gradient what a backward computed for x, of x's length
 */
export function assertGradient(
  gradient: Float64Array,
  { loss, x, label, entries = Array.from(x.keys()) }: {
    /** Reads x anew at every call. */
    loss: () => number;
    /** Changed entry by entry, and restored. */
    x: Float64Array;
    label: string;
    /** Entries to check, all by default. */
    entries?: readonly number[];
  },
): number {
  assertEquals(gradient.length, x.length, `length of the gradient of ${label}`);
  const step = 1e-5;
  const differences = entries.map((i) => {
    const value = x[i]!;
    x[i] = value + step;
    const above = loss();
    x[i] = value - step;
    const below = loss();
    x[i] = value;
    return (above - below) / (2 * step);
  });
  const checked = entries.map((i) => gradient[i]!);
  const magnitude = gradient.reduce((largest, value) => Math.max(largest, Math.abs(value)), 0);
  return assertClose(checked, differences, {
    // Some of the checked entries may be far smaller than the tensor's largest gradient.
    absolute: 1e-9 + 1e-7 * magnitude,
    relative: 1e-7,
    label: `gradient of ${label}`,
  });
}
