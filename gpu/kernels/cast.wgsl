// halves = x in f16, two columns to a word, the first in its low half; x = halves in f32, which is exact.
// x (rows, DIM) f32; halves (rows, DIM / 2) u32. One vec4 of x per invocation.

override DIM: u32;
const GROUP = 64u;

@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> halves: array<vec2<u32>>;
@group(0) @binding(3) var<storage, read> packed: array<vec2<u32>>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;

@compute @workgroup_size(GROUP)
fn to_f16(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let i = (group.x + group.y * groups.x) * GROUP + local.x;
  if (i < rows[0] * (DIM / 4u)) {
    halves[i] = vec2<u32>(word(x[i].xy), word(x[i].zw));
  }
}

@compute @workgroup_size(GROUP)
fn to_f32(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let i = (group.x + group.y * groups.x) * GROUP + local.x;
  if (i < rows[0] * (DIM / 4u)) {
    out[i] = vec4<f32>(unpack2x16float(packed[i].x), unpack2x16float(packed[i].y));
  }
}

// Magnitudes as bits of f32.
const SMALLEST_NORMAL = vec2<u32>(0x38800000u); // of f16: 2^-14
const LARGEST = vec2<u32>(0x477fe000u); // of f16: 65504
const INFINITE = vec2<u32>(0x7f800000u);

// Two numbers as f16, rounded to nearest even. WGSL leaves to the adapter how pack2x16float rounds, and what becomes of
// numbers beyond its range: so numbers are cut to the eleven bits that f16 has before (but for subnormal ones, which
// have fewer), and those beyond become infinite and NaN stays NaN by their bits.
fn word(values: vec2<f32>) -> u32 {
  let bits = bitcast<vec2<u32>>(values);
  let magnitude = bits & vec2<u32>(0x7fffffffu);
  let sign = bits & vec2<u32>(0x80000000u);
  let nearest = (magnitude + 0xfffu + ((magnitude >> vec2<u32>(13u)) & vec2<u32>(1u))) & vec2<u32>(0xffffe000u);
  let rounded = select(magnitude, nearest, magnitude >= SMALLEST_NORMAL);
  let is_beyond = rounded > LARGEST;
  let finite = pack2x16float(bitcast<vec2<f32>>(select(rounded | sign, vec2<u32>(0u), is_beyond)));
  let special = select(vec2<u32>(0x7c00u), vec2<u32>(0x7e00u), magnitude > INFINITE) | (sign >> vec2<u32>(16u));
  let beyond = select(vec2<u32>(0u), special, is_beyond);
  return finite | beyond.x | (beyond.y << 16u);
}
