// Part of cache_append.wgsl: a cache of f32. A place counts vec2.

@group(0) @binding(4) var<storage, read_write> pool: array<vec2<f32>>;

fn store_pair(place: u32, values: vec2<f32>) {
  pool[place] = values;
}
