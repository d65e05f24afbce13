// In place of cache_append_pool.wgsl for a cache of f16, two to a word.

@group(0) @binding(4) var<storage, read_write> pool: array<u32>;

const LARGEST = vec2<f32>(65504.0);
const NOT_NUMBERS = 0x7e007e00u;

// What f16 cannot hold becomes NaN, which reaches the logits and is noticed there. WGSL leaves it to the adapter; an
// infinite key, say, would go unnoticed wherever its score is -infinity and its weight 0.
fn store_pair(place: u32, values: vec2<f32>) {
  pool[place] = select(NOT_NUMBERS, pack2x16float(values), all(abs(values) <= LARGEST));
}
