// gates[i] = ALPHA * f(logits[chosen[i]]),  f = sigmoid, tanh or identity by FUNCTION                (Bae et al. 2025)
// grad_logits[chosen[i]] += grad_gates[i] * ALPHA * f'(logits[chosen[i]])
// chosen, gates, grad_gates (rows); logits, grad_logits (candidates). One invocation per kept row.

const SIGMOID = 0u;
const TANH = 1u;

override FUNCTION: u32;
override ALPHA: f32;

@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> chosen: array<u32>;
@group(0) @binding(3) var<storage, read_write> gates: array<f32>;
@group(0) @binding(4) var<storage, read> grad_gates: array<f32>;
@group(0) @binding(5) var<storage, read_write> grad_logits: array<f32>;

// 1 - tanh(10) is below half the last place of 1, and some drivers overflow for larger arguments.
fn bounded_tanh(x: f32) -> f32 {
  return tanh(clamp(x, -10.0, 10.0));
}

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
  let logit = logits[chosen[row]];
  var value = logit;
  if (FUNCTION == SIGMOID) {
    let small = exp(-abs(logit)); // never overflows
    value = select(small, 1.0, logit >= 0.0) / (1.0 + small);
  } else if (FUNCTION == TANH) {
    value = bounded_tanh(logit);
  }
  gates[row] = ALPHA * value;
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
