// losses[i] = max(l, 0) - l * y + log(1 + exp(-|l|)),  l = logits[i], y = labels[i]: -log of sigmoid(l) or of its rest
// squares[i] = l^2: the z-loss of a router with one output
// agreements[i] = 1 where (l > 0) = y, else 0: their mean is the paper's sampling accuracy           (Bae et al. 2025)
// grad_logits[i] = (coefficient * (sigmoid(l) - y) + z_coefficient * 2 * l) / rows, by forward_backward
// All (rows). One invocation per candidate.

struct Settings {
  coefficient: f32,
  z_coefficient: f32,
}

@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> labels: array<f32>;
@group(0) @binding(3) var<storage, read_write> losses: array<f32>;
@group(0) @binding(4) var<storage, read_write> squares: array<f32>;
@group(0) @binding(5) var<storage, read_write> agreements: array<f32>;
@group(0) @binding(6) var<storage, read_write> grad_logits: array<f32>;
@group(0) @binding(7) var<uniform> settings: Settings;

// log(1 + x) for x in [0, 1]: 1 + x drops the digits of a small x, its series does not.
fn log1p(x: f32) -> f32 {
  return select(log(1.0 + x), x * (1.0 - x * (0.5 - x / 3.0)), x < 0.008);
}

fn write_losses(row: u32) {
  let logit = logits[row];
  let label = labels[row];
  losses[row] = max(logit, 0.0) - logit * label + log1p(exp(-abs(logit)));
  squares[row] = logit * logit;
  agreements[row] = select(0.0, 1.0, (logit > 0.0) == (label > 0.0));
}

@compute @workgroup_size(64)
fn forward(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = (group.x + group.y * groups.x) * 64u + lane;
  if (row < rows[0]) {
    write_losses(row);
  }
}

@compute @workgroup_size(64)
fn forward_backward(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let row = (group.x + group.y * groups.x) * 64u + lane;
  let count = rows[0];
  if (row >= count) {
    return;
  }
  write_losses(row);
  let logit = logits[row];
  let small = exp(-abs(logit)); // never overflows
  let probability = select(small, 1.0, logit >= 0.0) / (1.0 + small);
  let slope = settings.coefficient * (probability - labels[row]) + settings.z_coefficient * 2.0 * logit;
  grad_logits[row] = slope / f32(count);
}
