// out = silu(gate) * up,  silu(g) = g * sigmoid(g)                                                     (Shazeer 2020)
// grad_gate = grad_out * up * s * (1 + gate * (1 - s)),  grad_up = grad_out * gate * s,  s = sigmoid(gate)
// gate_up, grad_gate_up (rows, 2 * DIM): [gate | up]; out, grad_out (rows, DIM).
// One vec4 of out per invocation.

override DIM: u32;
const GROUP = 64u;

@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read> gate_up: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> grad_out: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> grad_gate_up: array<vec4<f32>>;

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
    let first = i + row * width;
    let gate = gate_up[first];
    out[i] = gate * sigmoid(gate) * gate_up[first + width];
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
    let first = i + row * width;
    let gate = gate_up[first];
    let s = sigmoid(gate);
    let gradient = grad_out[i] * s;
    grad_gate_up[first] = gradient * gate_up[first + width] * (1.0 + gate * (1.0 - s));
    grad_gate_up[first + width] = gradient * gate;
  }
}

// exp is clamped below infinity, whose handling drivers may leave out: sigmoid(-88) is 6e-39.
fn sigmoid(x: vec4<f32>) -> vec4<f32> {
  return 1.0 / (1.0 + exp(min(-x, vec4<f32>(88.0))));
}
