// divergences[first + r] = KL(P || Q) = sum over v of p_v * (log p_v - log q_v),
//   P = softmax(reference_logits[r]), Q = softmax(logits[r])
// agreements[first + r] = 1 where both have the same largest column, ties to the lowest, else 0
// reference_logits, logits (rows, STRIDE), of which the first VOCAB columns count; divergences, agreements
// (first + rows).
// Both are NaN for a row with a logit that is NaN or infinite. LANES invocations per row.
//
// As P and Q both sum to 1, the divergence is sum p_v * g(t_v) with t_v = log p_v - log q_v and
// g(t) = t - 1 + exp(-t) >= 0: nothing cancels between columns, and an error of the normalizers enters squared.

override VOCAB: u32;
override STRIDE: u32; // a multiple of 4

const LOWEST = -3.4028234e38;
const EXPONENT = 0x7f800000u; // all of its bits are set in a NaN and in an infinity
const NAN = 0x7fc00000u;
const DAMAGED = 1.0; // in place of -column

struct Settings {
  first: u32,
}

@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read> reference_logits: array<vec4<u32>>; // f32, looked at by their bits too
@group(0) @binding(2) var<storage, read> logits: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> divergences: array<u32>; // f32, so that a NaN can be written
@group(0) @binding(4) var<storage, read_write> agreements: array<u32>;
@group(0) @binding(5) var<uniform> settings: Settings;

// What one invocation, then the whole row, has met of a distribution.
struct Peak {
  largest: f32,
  column: f32, // of the first largest, negative: what is larger comes first. Exact, rows are shorter than 2^24.
  sums: vec4<f32>, // of exp(logit - largest), so that nothing overflows
}

// Columns v..v + 3 of which some may be padding: there the lowest number, whose exponential is 0.
fn used_columns(bits: vec4<u32>, v: u32) -> vec4<u32> {
  let columns = vec4<u32>(v) + vec4<u32>(0u, 1u, 2u, 3u);
  return select(vec4<u32>(bitcast<u32>(LOWEST)), bits, columns < vec4<u32>(VOCAB));
}

fn with_columns(before: Peak, bits: vec4<u32>, v: u32) -> Peak {
  var peak = before;
  let values = bitcast<vec4<f32>>(bits);
  let largest = max(max(values.x, values.y), max(values.z, values.w));
  if (largest > peak.largest) {
    let is_largest = values == vec4<f32>(largest);
    let place = select(select(select(3u, 2u, is_largest.z), 1u, is_largest.y), 0u, is_largest.x);
    peak.column = select(-f32(v + place), DAMAGED, peak.column == DAMAGED);
    peak.sums *= exp(peak.largest - largest);
    peak.largest = largest;
  }
  if (any((bits & vec4<u32>(EXPONENT)) == vec4<u32>(EXPONENT))) {
    peak.column = DAMAGED;
  }
  peak.sums += exp(values - peak.largest);
  return peak;
}

// Of the whole row, in every lane, with the sum in sums.x. All invocations of the workgroup must call it.
fn row_peak(local: vec3<u32>, lane: Peak) -> Peak {
  let largest = row_max(local, lane.largest);
  let sum = row_sum(local, dot(lane.sums, vec4<f32>(1.0)) * exp(lane.largest - largest));
  let is_candidate = lane.column == DAMAGED || lane.largest == largest;
  let column = row_max(local, select(LOWEST, lane.column, is_candidate));
  return Peak(largest, column, vec4<f32>(sum, 0.0, 0.0, 0.0));
}

// p * g(t): by its series near 0, where the terms of the closed form, in which q = p * exp(-t), cancel.
fn divergence_terms(p: vec4<f32>, q: vec4<f32>, t: vec4<f32>) -> vec4<f32> {
  let series = 1.0 / 2.0 + t * (-1.0 / 6.0 + t * (1.0 / 24.0 + t * (-1.0 / 120.0 + t * (1.0 / 720.0))));
  return select(p * (t - 1.0) + q, p * t * t * series, abs(t) < vec4<f32>(0.25));
}

@compute @workgroup_size(LANES, ROWS)
fn divergence(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let row = (group.x + group.y * groups.x) * ROWS + local.y;
  let first = row * (STRIDE / 4u);
  let end = select(0u, VOCAB, row < rows[0]);
  var p_peak = Peak(LOWEST, 0.0, vec4<f32>());
  var q_peak = p_peak;
  for (var v = local.x * 4u; v < end; v += LANES * 4u) {
    p_peak = with_columns(p_peak, used_columns(reference_logits[first + v / 4u], v), v);
    q_peak = with_columns(q_peak, used_columns(logits[first + v / 4u], v), v);
  }
  p_peak = row_peak(local, p_peak);
  q_peak = row_peak(local, q_peak);
  let p_scale = 1.0 / p_peak.sums.x;
  let q_scale = 1.0 / q_peak.sums.x;
  let shift = (p_peak.largest - q_peak.largest) + (log(p_peak.sums.x) - log(q_peak.sums.x));
  var terms = vec4<f32>();
  for (var v = local.x * 4u; v < end; v += LANES * 4u) {
    let p_logits = bitcast<vec4<f32>>(used_columns(reference_logits[first + v / 4u], v));
    let q_logits = bitcast<vec4<f32>>(used_columns(logits[first + v / 4u], v));
    let p = exp(p_logits - p_peak.largest) * p_scale;
    let q = exp(q_logits - q_peak.largest) * q_scale;
    terms += divergence_terms(p, q, (p_logits - q_logits) - shift);
  }
  let sum = row_sum(local, dot(terms, vec4<f32>(1.0)));
  if (local.x == 0u && end > 0u) {
    let is_damaged = p_peak.column == DAMAGED || q_peak.column == DAMAGED;
    let agreement = select(0.0, 1.0, p_peak.column == q_peak.column);
    divergences[settings.first + row] = select(bitcast<u32>(sum), NAN, is_damaged);
    agreements[settings.first + row] = select(bitcast<u32>(agreement), NAN, is_damaged);
  }
}
