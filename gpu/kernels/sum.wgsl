// out[slot] = scale * sum of values, over rows[0] if mean is not 0, added to out[slot] if accumulate is not 0.
// values (rows), the first rows[0] of it; no rows give 0.
// One workgroup of LANES invocations; the order of the additions is fixed.

struct Settings {
  slot: u32,
  scale: f32,
  accumulate: u32,
  mean: u32,
}

@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read> values: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(0) @binding(3) var<uniform> settings: Settings;

@compute @workgroup_size(LANES, ROWS)
fn forward(@builtin(local_invocation_id) local: vec3<u32>) {
  var part = 0.0;
  let count = rows[0];
  for (var i = local.x; i < count; i += LANES) {
    part += values[i];
  }
  let sum = settings.scale * row_sum(local, part);
  if (local.x == 0u) {
    let divisor = select(1u, max(count, 1u), settings.mean != 0u);
    out[settings.slot] = sum / f32(divisor) + select(0.0, out[settings.slot], settings.accumulate != 0u);
  }
}
