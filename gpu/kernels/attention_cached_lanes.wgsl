// Part of attention_cached.wgsl: what the lanes of a workgroup have from each other. Each reads the whole query.

var<workgroup> weights: array<vec4<f32>, LANES>;

// Lets every lane see the weights of the others. All invocations of the workgroup must call it.
fn share_weights(lane: u32, own: vec4<f32>) {
  weights[lane] = own;
  workgroupBarrier();
}

fn weights_of(lane: u32, own: vec4<f32>) -> vec4<f32> {
  return weights[lane];
}

// A lane's part of the eight columns of the query from `place` on, and column `i` of them.
fn query_part(place: u32, lane: u32) -> vec4<f32> {
  return vec4<f32>();
}

fn query_column(part: vec4<f32>, place: u32, i: u32) -> vec4<f32> {
  return q[place + i];
}
