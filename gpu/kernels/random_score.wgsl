// logits[i, j] = uniform in (0, 1), a hash of (seed, STREAM + j, place of row i): a router that sees no token, for
// control runs. The place is packing[i].x, the row in the state, or BY_POSITION packing[i].y, the position.
// packing (rows, 4); seed (1); logits (rows, OUTPUTS). One invocation per entry of logits.

override STREAM: u32;
override OUTPUTS: u32 = 1u;
override BY_POSITION: bool = false;

@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read> packing: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> seed: array<u32>;
@group(0) @binding(3) var<storage, read_write> logits: array<f32>;

// pcg3d of Jarzynski & Olano 2020, "Hash Functions for GPU Rendering".
fn hash(input: vec3<u32>) -> u32 {
  var v = input * 1664525u + 1013904223u;
  v.x += v.y * v.z;
  v.y += v.z * v.x;
  v.z += v.x * v.y;
  v ^= v >> vec3<u32>(16u);
  v.x += v.y * v.z;
  return v.x;
}

@compute @workgroup_size(64)
fn random_score(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let i = (group.x + group.y * groups.x) * 64u + lane;
  let row = i / OUTPUTS;
  if (row >= rows[0]) {
    return;
  }
  let place = select(packing[row].x, packing[row].y, BY_POSITION);
  // 23 bits and a half: exact in f32, never 0 nor 1.
  let bits = hash(vec3<u32>(place, STREAM + i % OUTPUTS, seed[0])) >> 9u;
  logits[i] = (f32(bits) + 0.5) / 8388608.0;
}
