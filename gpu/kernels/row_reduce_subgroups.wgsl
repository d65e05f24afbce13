// In place of row_reduce.wgsl where a workgroup is one subgroup of 8 invocations that share a row: no barriers, no memory.

override LANES: u32; // 8
override ROWS: u32; // 1

fn row_sum(local: vec3<u32>, value: f32) -> f32 {
  return subgroupAdd(value);
}

fn row_max(local: vec3<u32>, value: f32) -> f32 {
  return subgroupMax(value);
}
