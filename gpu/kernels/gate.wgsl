// gates[i] = ALPHA * f(logits[chosen[i]]),  f = sigmoid, tanh or identity by FUNCTION                (Bae et al. 2025)
// grad_logits[chosen[i]] += grad_gates[i] * ALPHA * f'(logits[chosen[i]])
// chosen, gates, grad_gates (rows); logits, grad_logits (candidates). One invocation per kept row.

@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> chosen: array<u32>;
@group(0) @binding(3) var<storage, read_write> gates: array<f32>;
@group(0) @binding(4) var<storage, read> grad_gates: array<f32>;
@group(0) @binding(5) var<storage, read_write> grad_logits: array<f32>;

@compute @workgroup_size(64)
fn forward(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = (group.x + group.y * groups.x) * 64u + lane;
  if (row >= rows[0]) {
    return;
  }
  gates[row] = gate_of(logits[chosen[row]]);
}

@compute @workgroup_size(64)
fn backward(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = (group.x + group.y * groups.x) * 64u + lane;
  if (row >= rows[0]) {
    return;
  }
  let candidate = chosen[row]; // no two rows chose the same candidate, so the additions cannot collide
  let logit = logits[candidate];
  var slope = 1.0;
  if (FUNCTION == SIGMOID) {
    let small = exp(-abs(logit));
    slope = small / ((1.0 + small) * (1.0 + small));
  } else if (FUNCTION == TANH) {
    let value = bounded_tanh(logit);
    slope = 1.0 - value * value;
  }
  grad_logits[candidate] += grad_gates[row] * ALPHA * slope;
}
