// Entry i < HEAD_DIM / 2 of a head is paired with entry i + HEAD_DIM / 2 and turned by position * theta^(-2i / HEAD_DIM),
// or what a scaling makes of it:
// x_i = x_i cos - x_j sin,  x_j = x_j cos + x_i sin                  (Su et al. 2021, pairs as in Hugging Face's Llama)
// INVERSE turns by the negative angle, which is the gradient.
// x (rows, STRIDE), its first HEADS heads in place; packing (rows, 4) u32: position in y;
// table (positions, HEAD_DIM / 2, 2): cos, sin, made in float64 by ropeTable.
// Two pairs of a head per invocation.

override HEADS: u32;
override HEAD_DIM: u32;
override STRIDE: u32;
override INVERSE: bool = false;
const GROUP = 64u;

@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read> packing: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> table: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> x: array<vec2<f32>>;

@compute @workgroup_size(GROUP)
fn rotate(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let half = HEAD_DIM / 4u; // of a head, in vec2
  let unit = (group.x + group.y * groups.x) * GROUP + local.x;
  let row = unit / (HEADS * half);
  if (row >= rows[0]) {
    return;
  }
  let head = unit / half % HEADS;
  let i = unit % half;
  let entry = table[packing[row].y * half + i];
  let cosine = entry.xz;
  let sine = select(entry.yw, -entry.yw, INVERSE);
  let first = row * (STRIDE / 2u) + head * 2u * half + i;
  let a = x[first];
  let b = x[first + half];
  x[first] = a * cosine - b * sine;
  x[first + half] = b * cosine + a * sine;
}
