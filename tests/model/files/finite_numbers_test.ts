import { assertEquals } from "@std/assert";
import { firstNonFinite } from "../../../model/files/finite_numbers.ts";
import {
  blockLength,
  decodeNumbers,
  type NumberFormat,
  rowBytes,
} from "../../../model/files/number_formats.ts";
import { createRandom } from "../../support/random.ts";

const FORMATS: readonly NumberFormat[] = ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_1", "q4_k", "q6_k"];

for (const format of FORMATS) {
  Deno.test(`firstNonFinite finds what decoding ${format} gives`, () => {
    const random = createRandom(FORMATS.indexOf(format));
    const block = blockLength(format);
    let found = 0;
    for (let trial = 0; trial < 3000; trial++) {
      const blocks = random.integer(block === 1 ? 70 : 12);
      const bytes = Uint8Array.from({ length: rowBytes(format, blocks * block) }, () => random.integer(256));
      // All exponents but a few are small: else nearly every trial would find one at the start.
      if (random.uniform() < 0.7) { for (let i = 0; i < bytes.length; i++) bytes[i]! &= 0x3f; }
      if (bytes.length > 0 && random.uniform() < 0.5) {
        bytes[random.integer(bytes.length)] = 0x7f + random.integer(2) * 0x80;
      }
      const place = decodeNumbers(format, bytes.slice()).findIndex((value) => !Number.isFinite(value));
      const wanted = place < 0 ? null : Math.floor(place / block) * block;
      assertEquals(firstNonFinite(format, bytes), wanted, `trial ${trial}`);
      if (wanted !== null && wanted > 0) found++;
    }
    assertEquals(found > 100, true, `${found} behind the first block`);
  });
}

Deno.test("firstNonFinite finds one wherever it stands, and nothing among the largest numbers", () => {
  const largest = {
    f32: Float32Array.of(3.4028234663852886e38),
    f16: Uint16Array.of(0x7bff),
    bf16: Uint16Array.of(0x7f7f),
  };
  for (const format of ["f32", "f16", "bf16"] as const) {
    for (const length of [0, 1, 2, 3, 7, 8, 1001]) {
      const one = new Uint8Array(largest[format].buffer);
      const bytes = new Uint8Array(length * one.length);
      for (let i = 0; i < length; i++) bytes.set(one, i * one.length);
      assertEquals(firstNonFinite(format, bytes), null);
      for (let i = 0; i < length; i++) {
        const damaged = bytes.slice();
        // One more is infinity.
        if (format === "f32") new Uint32Array(damaged.buffer)[i] = 0xff800000;
        else new Uint16Array(damaged.buffer)[i]!++;
        assertEquals(firstNonFinite(format, damaged), i, `${format} ${i} of ${length}`);
      }
    }
  }
});
