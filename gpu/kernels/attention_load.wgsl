// Part of the attention kernels: eight other rows of a turn at a column of a tensor. Each invocation reads all.

struct Eight {
  near: vec4<u32>,
  far: vec4<u32>,
}

// Rows first to first + 7. Past the last row it is the last row, which the caller masks.
fn eight_rows(first: u32, last_row: u32, lane: u32) -> Eight {
  return Eight(min(first + NEXT_4, vec4<u32>(last_row)), min(first + 4u + NEXT_4, vec4<u32>(last_row)));
}

fn load_q_eight(eight: Eight, column: u32) -> Tiles {
  return Tiles(q_tile(eight.near * Q_STRIDE + column), q_tile(eight.far * Q_STRIDE + column));
}

fn load_kv_eight(eight: Eight, column: u32) -> Tiles {
  return Tiles(kv_tile(eight.near * KV_STRIDE + column), kv_tile(eight.far * KV_STRIDE + column));
}

fn load_grad_out_eight(eight: Eight, column: u32) -> Tiles {
  let near = eight.near * (HEADS * WIDTH) + column;
  let far = eight.far * (HEADS * WIDTH) + column;
  return Tiles(
    mat4x4<f32>(grad_out[near.x], grad_out[near.y], grad_out[near.z], grad_out[near.w]),
    mat4x4<f32>(grad_out[far.x], grad_out[far.y], grad_out[far.z], grad_out[far.w]),
  );
}
