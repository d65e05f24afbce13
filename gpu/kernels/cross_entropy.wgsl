// losses[first + r] = logsumexp(logits[r]) - logits[r][targets[first + r]]
// logits[r][v] = (softmax(logits[r])[v] - [v == targets[first + r]]) * gradient_scale, in place, by forward_backward
// logits (rows, STRIDE), of which the first VOCAB columns count and the others get gradient 0; targets, losses
// (first + rows).
// A row whose target is IGNORED has loss 0 and gradient 0. LANES invocations per row.

override VOCAB: u32;
override STRIDE: u32; // a multiple of 4

const IGNORED = 0xffffffffu;
const LOWEST = -3.4028234e38;

struct Settings {
  first: u32,
  gradient_scale: f32,
}

@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read_write> logits: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> targets: array<u32>;
@group(0) @binding(3) var<storage, read_write> losses: array<f32>;
@group(0) @binding(4) var<uniform> settings: Settings;

// Largest logit of a row and the sum of exp(logit - largest), so that nothing overflows.
struct Normalizer {
  largest: f32,
  sum: f32,
}

// Columns v..v + 3 of which some may be padding: there the lowest number, whose exponential is 0.
fn load_logits(first: u32, v: u32) -> vec4<f32> {
  let columns = vec4<u32>(v) + vec4<u32>(0u, 1u, 2u, 3u);
  return select(vec4<f32>(LOWEST), logits[first + v / 4u], columns < vec4<u32>(VOCAB));
}

// Writes the loss of a row; every invocation of the workgroup must call it, those past the end with is_row false.
fn row_loss(local: vec3<u32>, row: u32, is_row: bool) -> Normalizer {
  let first = row * (STRIDE / 4u);
  let place = settings.first + row;
  var target_logit = 0.0;
  var end = 0u;
  if (is_row && targets[place] != IGNORED) {
    // Read before the barriers of the sums: after them the row may be overwritten.
    target_logit = logits[first + targets[place] / 4u][targets[place] % 4u];
    end = VOCAB;
  }
  var largest = LOWEST;
  var sums = vec4<f32>();
  for (var v = local.x * 4u; v < end; v += LANES * 4u) {
    let values = load_logits(first, v);
    let peak = max(max(values.x, values.y), max(values.z, values.w));
    if (peak > largest) {
      sums *= exp(largest - peak);
      largest = peak;
    }
    sums += exp(values - largest);
  }
  let row_largest = row_max(local, largest);
  let sum = row_sum(local, dot(sums, vec4<f32>(1.0)) * exp(largest - row_largest));
  if (is_row && local.x == 0u) {
    losses[place] = select((row_largest - target_logit) + log(sum), 0.0, end == 0u);
  }
  return Normalizer(row_largest, sum);
}

@compute @workgroup_size(LANES, ROWS)
fn forward(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let row = (group.x + group.y * groups.x) * ROWS + local.y;
  row_loss(local, row, row < rows[0]);
}

@compute @workgroup_size(LANES, ROWS)
fn forward_backward(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let row = (group.x + group.y * groups.x) * ROWS + local.y;
  let is_row = row < rows[0];
  let normalizer = row_loss(local, row, is_row);
  if (!is_row) {
    return;
  }
  let first = row * (STRIDE / 4u);
  let wanted = targets[settings.first + row];
  let scale = settings.gradient_scale / normalizer.sum;
  for (var v = local.x * 4u; v < STRIDE; v += LANES * 4u) {
    var gradient = vec4<f32>();
    if (wanted != IGNORED) {
      gradient = exp(load_logits(first, v) - normalizer.largest) * scale;
      let columns = vec4<u32>(v) + vec4<u32>(0u, 1u, 2u, 3u);
      gradient -= select(vec4<f32>(), vec4<f32>(settings.gradient_scale), columns == vec4<u32>(wanted));
    }
    logits[first + v / 4u] = gradient;
  }
}
