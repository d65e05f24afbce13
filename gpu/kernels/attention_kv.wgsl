// Part of the attention kernels: keys and values in f32. A place counts vec4.

@group(0) @binding(3) var<storage, read> kv: array<vec4<f32>>;

fn kv_at(place: u32) -> vec4<f32> {
  return kv[place];
}
