/** Damaged versions of a file, one for each seed. */
import { createRandom } from "./random.ts";
import { concat, u64 } from "./gguf_bytes.ts";

/** Lengths, counts and offsets that no file has. */
const HUGE = [2n ** 64n - 1n, 2n ** 63n, 2n ** 53n, 2n ** 40n, 2n ** 32n - 1n, 2n ** 31n, 1_000_000n, 0n];

/**
 * One to three kinds of damage: flipped bits, numbers that are too large, bytes of another place, bytes too many or too
 * few, an early end. Most of it hits the first `headerBytes`.
 */
export function mutatedBytes(
  bytes: Uint8Array<ArrayBuffer>,
  { seed, headerBytes }: { seed: number; headerBytes: number },
): Uint8Array<ArrayBuffer> {
  const random = createRandom(seed);
  let out = bytes.slice();
  const place = (): number =>
    random.integer(Math.min(random.integer(8) === 0 ? out.length : headerBytes, out.length));
  const changes = [
    (at: number) => out[at]! ^= 1 << random.integer(8),
    (at: number) => out[at]! ^= 1 << random.integer(8),
    (at: number) => out[at] = random.integer(256),
    (at: number) => out.set(u64(HUGE[random.integer(HUGE.length)]!).subarray(0, out.length - at), at),
    (at: number) => out.copyWithin(at, place(), place()),
    (at: number) => out = concat(out.subarray(0, at), out.subarray(at + 1 + random.integer(16))),
    (at: number) => out = concat(out.subarray(0, at), out.subarray(place(), place()), out.subarray(at)),
    (at: number) => out = out.slice(0, at),
  ];
  for (let count = 1 + random.integer(3); count > 0 && out.length > 0; count--) {
    changes[random.integer(changes.length)]!(place());
  }
  return out;
}
