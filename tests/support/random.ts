/** A seeded source of numbers for tests; the same seed gives the same sequence everywhere. */
export interface Random {
  /** Uniform in [0, 1). */
  uniform(): number;
  /** Standard normal. */
  normal(): number;
  /** Uniform integer in [0, below). */
  integer(below: number): number;
  /** `length` normal values with the given standard deviation. */
  normals(length: number, deviation?: number): Float64Array;
}

/** Creates a generator (mulberry32 by T. Ettinger, public domain: 32 bits of state, enough for tests). */
export function createRandom(seed: number): Random {
  let state = seed >>> 0;
  function uniform(): number {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  }
  function normal(): number {
    // Box-Muller; 1 - u lies in (0, 1], so the logarithm is finite.
    return Math.sqrt(-2 * Math.log(1 - uniform())) * Math.cos(2 * Math.PI * uniform());
  }
  return {
    uniform,
    normal,
    integer: (below) => Math.floor(uniform() * below),
    normals: (length, deviation = 1) => Float64Array.from({ length }, () => deviation * normal()),
  };
}
