// In place of attention_kv.wgsl for keys and values in f16, two to a word. Unpacking is exact and needs no feature of
// the adapter. On lavapipe a row takes 0.6 to 0.8 of its time with f32, with native f16 0.7 to 1.

@group(0) @binding(3) var<storage, read> kv: array<vec2<u32>>;

fn kv_at(place: u32) -> vec4<f32> {
  let words = kv[place];
  return vec4<f32>(unpack2x16float(words.x), unpack2x16float(words.y));
}
