/** Student's t distribution, for intervals from few values. */

/**
 * The t that a value of Student's distribution with `degrees` (1, 2, ...) degrees of freedom stays within, to both
 * sides, with the given probability: 2.447 for 6 degrees and 0.95.
 *
 * Found by bisection from the finite sums for the probability in Abramowitz and Stegun, Handbook of Mathematical
 * Functions, 26.7.3 and 26.7.4, to nearly all digits of a number.
 */
export function studentT(degrees: number, { probability }: { probability: number }): number {
  let [low, high] = [0, Math.PI / 2];
  // Every turn gains a bit.
  for (let turn = 0; turn < 60; turn++) {
    const middle = (low + high) / 2;
    if (probabilityWithin(middle, degrees) < probability) low = middle;
    else high = middle;
  }
  return Math.sqrt(degrees) * Math.tan((low + high) / 2);
}

/** P(|T| < t) for t = sqrt(degrees) tan(theta): odd degrees by 26.7.3, even ones by 26.7.4. */
function probabilityWithin(theta: number, degrees: number): number {
  const isOdd = degrees % 2 === 1;
  const [sine, cosine] = [Math.sin(theta), Math.cos(theta)];
  let [sum, term] = [0, isOdd ? cosine : 1];
  for (let power = isOdd ? 1 : 0; power <= degrees - 2; power += 2) {
    sum += term;
    term *= ((power + 1) / (power + 2)) * cosine ** 2;
  }
  return isOdd ? (2 / Math.PI) * (theta + sine * sum) : sine * sum;
}
