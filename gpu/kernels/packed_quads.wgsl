// Part of the kernels that read packed weights a quad at a time. The kernel's file gives fn weight_word(i: u32) -> u32.

// Quad q of a row of a matrix with `blocks` blocks a row.
fn packed_quad(row: u32, blocks: u32, q: u32) -> vec4<f32> {
  let in_panel = row % PANEL_ROWS;
  let block = (row / PANEL_ROWS * blocks + q / 8u) * block_packets();
  let i = q % 8u;
  let packet = (block + i / packet_quads() * PANEL_ROWS + in_panel) * 4u;
  if (FORMAT == F16) {
    return unscaled_quad(weight_word(packet + 2u * (i % 2u)), weight_word(packet + 2u * (i % 2u) + 1u));
  }
  // The scales of rows 0, 8, 16, 24, 1, 9, ...: two to a word.
  let at = in_panel % 8u * 4u + in_panel / 8u;
  let scales = weight_word((block + row_packets() * PANEL_ROWS) * 4u + at / 2u);
  let scale = unpack2x16float(scales >> (16u * (at % 2u))).x;
  if (FORMAT == Q8_0) {
    return scale * unscaled_quad(weight_word(packet + i % 4u), 0u);
  }
  return scale * unscaled_quad(weight_word(packet + i % 4u) >> (i & 4u), 0u);
}
