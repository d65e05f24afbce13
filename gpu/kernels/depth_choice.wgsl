// probabilities[i][j] = p_j = ALPHA * f(z)_j,  z = logits[i],  f = softmax, sigmoid or identity by FUNCTION
// depths[i] = d = 1 + argmax over j of (p_j + bias[j]), ties to the lowest j; forced[0] where that is not 0
// gates[i] = p_(d-1), the bias left out;  squares[i] = logsumexp(z)^2, the z-loss                    (Bae et al. 2025)
// grad_logits[i][k] = sum over j of g_j * dp_j / dz_k + z_coefficient / rows * 2 * logsumexp(z) * softmax(z)_k,
//   g_j = (j == d - 1 ? grad_gates[i] : 0) + balancing_coefficient * f_j / rows,  f_j = RECURSIONS * load[j] / rows
// logits, probabilities, grad_logits (rows, RECURSIONS); bias, load (RECURSIONS); forced (1);
// depths (1..RECURSIONS as f32), gates, squares, grad_gates (rows). One invocation per row.

const SOFTMAX = 0u;
const SIGMOID = 1u;
const LOWEST = -3.4028234e38;

override RECURSIONS: u32;
override FUNCTION: u32;
override ALPHA: f32;

struct Settings {
  balancing_coefficient: f32,
  z_coefficient: f32,
}

@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> bias: array<f32>;
@group(0) @binding(3) var<storage, read> forced: array<u32>;
@group(0) @binding(4) var<storage, read_write> probabilities: array<f32>;
@group(0) @binding(5) var<storage, read_write> depths: array<f32>;
@group(0) @binding(6) var<storage, read_write> gates: array<f32>;
@group(0) @binding(7) var<storage, read_write> squares: array<f32>;
@group(0) @binding(8) var<storage, read> grad_gates: array<f32>;
@group(0) @binding(9) var<storage, read> load: array<u32>;
@group(0) @binding(10) var<storage, read_write> grad_logits: array<f32>;
@group(0) @binding(11) var<uniform> settings: Settings;

// Largest logit of a row and the sum of exp(logit - largest), so that nothing overflows.
struct Normalizer {
  largest: f32,
  sum: f32,
}

fn normalizer_of(first: u32) -> Normalizer {
  var largest = logits[first];
  for (var j = 1u; j < RECURSIONS; j++) {
    largest = max(largest, logits[first + j]);
  }
  var sum = 0.0;
  for (var j = 0u; j < RECURSIONS; j++) {
    sum += exp(logits[first + j] - largest);
  }
  return Normalizer(largest, sum);
}

fn log_sum_exp(normalizer: Normalizer) -> f32 {
  return normalizer.largest + log(normalizer.sum);
}

fn softmax(logit: f32, normalizer: Normalizer) -> f32 {
  return exp(logit - normalizer.largest) / normalizer.sum;
}

fn probability(logit: f32, normalizer: Normalizer) -> f32 {
  if (FUNCTION == SOFTMAX) {
    return ALPHA * softmax(logit, normalizer);
  }
  if (FUNCTION == SIGMOID) {
    let small = exp(-abs(logit)); // never overflows
    return ALPHA * select(small, 1.0, logit >= 0.0) / (1.0 + small);
  }
  return ALPHA * logit;
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
  let first = row * RECURSIONS;
  let normalizer = normalizer_of(first);
  var chosen = 0u;
  var best = LOWEST;
  for (var j = 0u; j < RECURSIONS; j++) {
    let p = probability(logits[first + j], normalizer);
    probabilities[first + j] = p;
    let score = p + bias[j];
    if (score > best) {
      best = score;
      chosen = j;
    }
  }
  if (forced[0] != 0u) {
    chosen = min(forced[0], RECURSIONS) - 1u;
  }
  depths[row] = f32(chosen + 1u);
  gates[row] = probabilities[first + chosen];
  let exponent = log_sum_exp(normalizer);
  squares[row] = exponent * exponent;
}

// g_j of the first lines.
fn grad_probability(row: u32, j: u32) -> f32 {
  let count = f32(rows[0]);
  let balance = settings.balancing_coefficient * f32(RECURSIONS * load[j]) / (count * count);
  return balance + select(0.0, grad_gates[row], depths[row] == f32(j + 1u));
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
  let first = row * RECURSIONS;
  let normalizer = normalizer_of(first);
  let z_slope = settings.z_coefficient / f32(rows[0]) * 2.0 * log_sum_exp(normalizer);
  var mean = 0.0; // of g by softmax(z): its derivative is p_j * ([j == k] - softmax(z)_k)
  if (FUNCTION == SOFTMAX) {
    for (var j = 0u; j < RECURSIONS; j++) {
      mean += grad_probability(row, j) * probabilities[first + j] / ALPHA;
    }
  }
  for (var k = 0u; k < RECURSIONS; k++) {
    let p = probabilities[first + k];
    var slope = ALPHA;
    if (FUNCTION == SOFTMAX) {
      slope = p;
    } else if (FUNCTION == SIGMOID) {
      slope = p * (1.0 - p / ALPHA);
    }
    let share = softmax(logits[first + k], normalizer);
    grad_logits[first + k] = slope * (grad_probability(row, k) - mean) + z_slope * share;
  }
}
