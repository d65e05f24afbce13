// total: out[slot] = sum of values^2, added to out[slot] if accumulate is not 0, in two stages:
// partials: one sum for every LANES * TURNS vec4 of values, one workgroup each; total: one workgroup adds them.
// clip: norm = (n, c) with n = sqrt(squares), c = min(1, MAX_NORM / n), 1 if MAX_NORM = 0;     (Pascanu et al. 2013)
// c = 0 marks an n that is not finite: whoever uses c must then leave everything as it is.

override MAX_NORM: f32 = 0.0;
const TURNS = 16u;

struct Settings {
  count: u32, // of partials
  slot: u32,
  accumulate: u32,
}

@group(0) @binding(0) var<storage, read> values: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read_write> partials: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(0) @binding(3) var<storage, read> squares: array<f32>;
@group(0) @binding(4) var<storage, read_write> norm: array<f32>;
@group(0) @binding(5) var<uniform> settings: Settings;

@compute @workgroup_size(LANES, ROWS)
fn partial_sums(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let part = group.x + group.y * groups.x;
  let first = part * LANES * TURNS + local.x;
  var sum = 0.0;
  for (var turn = 0u; turn < TURNS; turn++) {
    let i = first + turn * LANES;
    if (i < arrayLength(&values)) {
      sum += dot(values[i], values[i]);
    }
  }
  sum = row_sum(local, sum);
  if (local.x == 0u && part < arrayLength(&partials)) {
    partials[part] = sum;
  }
}

@compute @workgroup_size(LANES, ROWS)
fn total(@builtin(local_invocation_id) local: vec3<u32>) {
  var sum = 0.0;
  for (var i = local.x; i < settings.count; i += LANES) {
    sum += partials[i];
  }
  sum = row_sum(local, sum);
  if (local.x == 0u) {
    out[settings.slot] = sum + select(0.0, out[settings.slot], settings.accumulate != 0u);
  }
}

@compute @workgroup_size(1)
fn clip() {
  let length = sqrt(squares[0]);
  var coefficient = 1.0;
  if (MAX_NORM > 0.0 && length > MAX_NORM) {
    coefficient = MAX_NORM / length;
  }
  // By the bits: compilers may assume that floats are finite.
  let exponent = bitcast<u32>(squares[0]) & 0x7f800000u;
  norm[0] = length;
  norm[1] = select(coefficient, 0.0, exponent == 0x7f800000u);
}
