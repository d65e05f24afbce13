/** Seeded randomness. Streams are addressed by what they are for, so that nothing depends on the order of draws. */

/** Uniform numbers in [0, 1) with 32 random bits (sfc32 by C. Doty-Humphrey, public domain). */
export type Uniform = () => number;

/** The stream of a seed and a purpose: `uniform(7, "batches", epoch)`. */
export function uniform(seed: number, ...purpose: readonly (string | number)[]): Uniform {
  const key = [seed, ...purpose].join("\u0000");
  let [a, b, c, d] = [hash(key, 1), hash(key, 2), hash(key, 3), 1];
  function next(): number {
    const t = (a + b + d) | 0;
    d = (d + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (c << 21) | (c >>> 11);
    c = (c + t) | 0;
    return (t >>> 0) / 4294967296;
  }
  for (let warmUp = 0; warmUp < 12; warmUp++) next();
  return next;
}

/** A 32-bit hash of a string: FNV-1a with a final avalanche (murmur3's). */
export function hash(text: string, salt = 0): number {
  let h = (0x811c9dc5 ^ salt) >>> 0;
  for (let i = 0; i < text.length; i++) h = Math.imul(h ^ text.charCodeAt(i), 0x01000193);
  h = Math.imul(h ^ (h >>> 16), 0x85ebca6b);
  h = Math.imul(h ^ (h >>> 13), 0xc2b2ae35);
  return (h ^ (h >>> 16)) >>> 0;
}

/** Independent N(0, 1) numbers (Box and Muller 1958). */
export function fillNormal(out: Float32Array, { next, scale }: { next: Uniform; scale: number }): void {
  for (let i = 0; i < out.length; i += 2) {
    // 1 - u is never zero.
    const radius = scale * Math.sqrt(-2 * Math.log(1 - next()));
    const angle = 2 * Math.PI * next();
    out[i] = radius * Math.cos(angle);
    if (i + 1 < out.length) out[i + 1] = radius * Math.sin(angle);
  }
}

/** 0..count-1 in random order (Fisher and Yates). */
export function permutation(count: number, next: Uniform): Uint32Array {
  const order = Uint32Array.from({ length: count }, (_, i) => i);
  for (let i = count - 1; i > 0; i--) {
    const j = Math.floor(next() * (i + 1));
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return order;
}
