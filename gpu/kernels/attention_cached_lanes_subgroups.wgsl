// In place of attention_cached_lanes.wgsl where a workgroup is one subgroup of 8 invocations: each reads an eighth of the
// query and they exchange. On lavapipe that is 1.6 times faster, with row_reduce_subgroups.wgsl.

fn share_weights(lane: u32, own: vec4<f32>) {
}

fn weights_of(lane: u32, own: vec4<f32>) -> vec4<f32> {
  return subgroupShuffle(own, lane);
}

fn query_part(place: u32, lane: u32) -> vec4<f32> {
  return q[place + lane]; // past the head's end it is read in vain
}

fn query_column(part: vec4<f32>, place: u32, i: u32) -> vec4<f32> {
  return subgroupShuffle(part, i);
}
