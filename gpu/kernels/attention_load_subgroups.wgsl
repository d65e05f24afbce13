// In place of attention_load.wgsl where a workgroup is one subgroup of 8 invocations: each reads one of the eight rows
// and they exchange. On a software adapter a load costs as much as dozens of products, an exchange next to nothing.

struct Eight {
  mine: u32,
}

// Rows first to first + 7. Past the last row it is the last row, which the caller masks.
fn eight_rows(first: u32, last_row: u32, lane: u32) -> Eight {
  return Eight(min(first + lane, last_row));
}

fn load_q_eight(eight: Eight, column: u32) -> Tiles {
  return exchange(q[eight.mine * Q_STRIDE + column]);
}

fn load_kv_eight(eight: Eight, column: u32) -> Tiles {
  return exchange(kv_at(eight.mine * KV_STRIDE + column));
}

fn load_grad_out_eight(eight: Eight, column: u32) -> Tiles {
  return exchange(grad_out[eight.mine * (HEADS * WIDTH) + column]);
}

// All invocations of the subgroup must call it.
fn exchange(mine: vec4<f32>) -> Tiles {
  return Tiles(
    mat4x4<f32>(
      subgroupBroadcast(mine, 0u),
      subgroupBroadcast(mine, 1u),
      subgroupBroadcast(mine, 2u),
      subgroupBroadcast(mine, 3u),
    ),
    mat4x4<f32>(
      subgroupBroadcast(mine, 4u),
      subgroupBroadcast(mine, 5u),
      subgroupBroadcast(mine, 6u),
      subgroupBroadcast(mine, 7u),
    ),
  );
}
