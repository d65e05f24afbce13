// out[s] = a * x[s] + b * z[i] with s = packing[i].x; w = gates[i] chooses a and b, see gating.wgsl.
// grad_z[i] = b * g,  grad_gates[i] = sum of g * (z | 0 | 0 | z - x),  grad_x[s] = a * g,  g = grad_state[s]
// x, out, grad_state (state rows, DIM); z, grad_z (rows, DIM); gates, grad_gates (rows);
// packing (rows, 4) u32 with different rows of the state in x. grad_state is the gradient of out and becomes that of x.
// copy_rows (out = x for the whole state) and forward: one vec4 per invocation. backward: LANES invocations per row.

override DIM: u32;
const GROUP = 64u;

@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read> packing: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> z: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> gates: array<f32>;
@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> grad_state: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> grad_z: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read_write> grad_gates: array<f32>;

@compute @workgroup_size(GROUP)
fn copy_rows(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let i = (group.x + group.y * groups.x) * GROUP + local.x;
  if (i < arrayLength(&x)) {
    out[i] = x[i];
  }
}

@compute @workgroup_size(GROUP)
fn forward(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let width = DIM / 4u;
  let i = (group.x + group.y * groups.x) * GROUP + local.x;
  let row = i / width;
  if (row < rows[0]) {
    let s = packing[row].x * width + i % width;
    let part = gating_parts(gates[row]);
    out[s] = part.x * x[s] + part.y * z[i];
  }
}

@compute @workgroup_size(LANES, ROWS)
fn backward(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let row = (group.x + group.y * groups.x) * ROWS + local.y;
  let width = DIM / 4u;
  let end = select(0u, width, row < rows[0]); // rows past the end still meet the barriers
  let s = packing[row].x * width;
  let part = gating_parts(gates[row]);
  var products = 0.0;
  for (var c = local.x; c < end; c += LANES) {
    let gradient = grad_state[s + c];
    if (GATING == WEIGHTED) {
      products += dot(gradient, z[row * width + c]);
    }
    if (GATING == DELTA) {
      products += dot(gradient, z[row * width + c] - x[s + c]);
    }
    grad_z[row * width + c] = part.y * gradient;
    grad_state[s + c] = part.x * gradient;
  }
  let sum = row_sum(local, products);
  if (local.x < end) {
    grad_gates[row] = sum;
  }
}
