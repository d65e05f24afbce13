// Part of the kernels that read packed weights: what the numbers of a packet are; layout in gpu/packed_matrix.ts.
// A quad is four consecutive numbers of a row; a block of 32 numbers has 8.

override FORMAT: u32; // of weight_format.ts
const F32 = 0u;
const F16 = 1u;
const Q8_0 = 2u;
const Q4_0 = 3u;

const PANEL_ROWS = 32u;

// Packets of a row's block.
fn row_packets() -> u32 {
  return select(select(2u, 1u, FORMAT == Q4_0), 4u, FORMAT == F16);
}

// Packets of a panel's block: those of its rows, and 4 of scales.
fn block_packets() -> u32 {
  return row_packets() * PANEL_ROWS + select(4u, 0u, FORMAT == F16);
}

// Quads of a packet.
fn packet_quads() -> u32 {
  return 8u / row_packets();
}

// Signed numbers, though none is negative: processors convert those to f32 in one instruction, unsigned ones in six.
fn four_bytes(word: u32) -> vec4<i32> {
  return vec4<i32>((vec4<u32>(word) >> vec4<u32>(0u, 8u, 16u, 24u)) & vec4<u32>(15u));
}

// Four signed bytes: shifted to the top and back, which keeps the sign.
fn four_signed_bytes(word: u32) -> vec4<i32> {
  return vec4<i32>(vec4<u32>(word) << vec4<u32>(24u, 16u, 8u, 0u)) >> vec4<u32>(24u);
}

// A quad without the scale of its block: `low` and `high` are its words, `high` of f16 alone.
fn unscaled_quad(low: u32, high: u32) -> vec4<f32> {
  if (FORMAT == F16) {
    return vec4<f32>(unpack2x16float(low), unpack2x16float(high));
  }
  if (FORMAT == Q8_0) {
    return vec4<f32>(four_signed_bytes(low));
  }
  return vec4<f32>(four_bytes(low)) - 8.0;
}

// Quad i of a packet.
fn packet_quad(packet: vec4<u32>, i: u32) -> vec4<f32> {
  if (FORMAT == F16) {
    return unscaled_quad(packet[2u * i % 4u], packet[(2u * i + 1u) % 4u]);
  }
  if (FORMAT == Q8_0) {
    return unscaled_quad(packet[i % 4u], 0u);
  }
  return unscaled_quad(packet[i % 4u] >> (i & 4u), 0u); // the second half of a block is in the high nibbles
}
