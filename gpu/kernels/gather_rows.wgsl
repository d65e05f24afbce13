// out[i] = x[packing[i].x];  grad_x[packing[i].x] += grad_out[i]
// x, grad_x (state rows, DIM); out, grad_out (rows, DIM); packing (rows, 4) u32 with different rows of the state in x.
// One vec4 per invocation.

override DIM: u32;
const GROUP = 64u;

@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read> packing: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> grad_out: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read_write> grad_x: array<vec4<f32>>;

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
    out[i] = x[packing[row].x * width + i % width];
  }
}

@compute @workgroup_size(GROUP)
fn backward(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let width = DIM / 4u;
  let i = (group.x + group.y * groups.x) * GROUP + local.x;
  let row = i / width;
  if (row < rows[0]) {
    grad_x[packing[row].x * width + i % width] += grad_out[i];
  }
}
