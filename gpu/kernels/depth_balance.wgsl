// load[j] = rows with depths == j + 1;  totals[j] += load[j];  means[j] = mean over the rows of probabilities[.][j]
// losses[slot] += scale * sum over j of f_j * means[j],  f_j = RECURSIONS * load[j] / rows           (Bae et al. 2025)
// bias[j] += RATE * sign(mean(totals) - totals[j]), or 0 where forced[0] is not 0                   (Wang et al. 2024)
// depths (rows); probabilities (rows, RECURSIONS); load, totals, means, bias (RECURSIONS); forced (1).
// depth_load: one workgroup of LANES invocations per depth; the order of the additions is fixed. The others: one
// invocation. Without rows load, means and the loss are 0.

override RECURSIONS: u32;
override RATE: f32 = 0.0;

struct Settings {
  slot: u32,
  scale: f32,
}

@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read> depths: array<f32>;
@group(0) @binding(2) var<storage, read> probabilities: array<f32>;
@group(0) @binding(3) var<storage, read_write> load: array<u32>;
@group(0) @binding(4) var<storage, read_write> totals: array<u32>;
@group(0) @binding(5) var<storage, read_write> means: array<f32>;
@group(0) @binding(6) var<storage, read_write> losses: array<f32>;
@group(0) @binding(7) var<storage, read> forced: array<u32>;
@group(0) @binding(8) var<storage, read_write> bias: array<f32>;
@group(0) @binding(9) var<uniform> settings: Settings;

@compute @workgroup_size(LANES, ROWS)
fn depth_load(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let j = group.x;
  var count = 0.0; // exact: f32 counts to 2^24
  var sum = 0.0;
  for (var row = local.x; row < rows[0]; row += LANES) {
    count += select(0.0, 1.0, depths[row] == f32(j + 1u));
    sum += probabilities[row * RECURSIONS + j];
  }
  count = row_sum(local, count);
  sum = row_sum(local, sum);
  if (local.x == 0u) {
    load[j] = u32(count);
    totals[j] += u32(count);
    means[j] = sum / max(f32(rows[0]), 1.0);
  }
}

@compute @workgroup_size(1)
fn balancing_loss() {
  var loss = 0.0;
  for (var j = 0u; j < RECURSIONS; j++) {
    loss += f32(RECURSIONS * load[j]) / max(f32(rows[0]), 1.0) * means[j];
  }
  losses[settings.slot] += settings.scale * loss;
}

@compute @workgroup_size(1)
fn update_bias() {
  var total = 0u;
  for (var j = 0u; j < RECURSIONS; j++) {
    total += totals[j];
  }
  // In whole numbers: f32 cannot tell neighbours beyond 2^24.
  let mean = total / RECURSIONS;
  let has_rest = total % RECURSIONS != 0u;
  for (var j = 0u; j < RECURSIONS; j++) {
    var direction = 0.0;
    if (totals[j] > mean) {
      direction = -1.0;
    } else if (totals[j] < mean || has_rest) {
      direction = 1.0;
    }
    bias[j] = select(bias[j] + RATE * direction, 0.0, forced[0] != 0u);
  }
}
