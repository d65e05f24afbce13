// Part of the kernels that multiply by, or gather, rows of weights: where a row's numbers lie and what they are, for
// f32 and for the packed formats of gpu/packed_matrix.ts. The kernel's file gives fn weight_word(i: u32) -> u32.
// A quad is four consecutive numbers of a row; quad q has the numbers 4 q .. 4 q + 3.

override FORMAT: u32; // of WeightFormat in weight_format.ts
const F32 = 0u;
const F16 = 1u;
const Q8_0 = 2u;
const Q4_0 = 3u;

// Four bytes below 128, as signed numbers: processors convert those to f32 in one instruction, unsigned ones in six.
fn four_bytes(word: u32) -> vec4<i32> {
  return vec4<i32>((vec4<u32>(word) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(127u));
}

// Four signed bytes: shifted to the top and back, which keeps the sign.
fn four_signed_bytes(word: u32) -> vec4<i32> {
  return vec4<i32>(vec4<u32>(word) << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u);
}

fn two_halves(low: u32, high: u32) -> vec4<f32> {
  return vec4<f32>(unpack2x16float(low), unpack2x16float(high));
}

// The scale of a block of 32 whose row begins at word `row`.
fn block_scale(row: u32, block: u32) -> f32 {
  return unpack2x16float(weight_word(row + block / 2u) >> (16u * (block % 2u))).x;
}

// A quad of a packed row that begins at word `row` and has `scale_words` words of scales.
fn packed_quad(row: u32, scale_words: u32, q: u32) -> vec4<f32> {
  let first = row + scale_words;
  if (FORMAT == F16) {
    return two_halves(weight_word(first + 2u * q), weight_word(first + 2u * q + 1u));
  }
  let block = q / 8u;
  let scale = block_scale(row, block);
  if (FORMAT == Q8_0) {
    return scale * vec4<f32>(four_signed_bytes(weight_word(first + q)));
  }
  let word = weight_word(first + block * 4u + q % 4u) >> (q & 4u); // the second half of a block is in the high nibbles
  return scale * (vec4<f32>(four_bytes(word & 0x0f0f0f0fu)) - 8.0);
}
