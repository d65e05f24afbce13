// out[slot] = scale * sum of values, added to out[slot] if accumulate is not 0. values (rows), the first rows[0] of it.
// One workgroup of LANES invocations; the order of the additions is fixed.

struct Settings {
  slot: u32,
  scale: f32,
  accumulate: u32,
}

@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read> values: array<f32>;
@group(0) @binding(2) var<storage, read_write> out: array<f32>;
@group(0) @binding(3) var<uniform> settings: Settings;

@compute @workgroup_size(LANES, ROWS)
fn forward(@builtin(local_invocation_id) local: vec3<u32>) {
  var part = 0.0;
  for (var i = local.x; i < rows[0]; i += LANES) {
    part += values[i];
  }
  let sum = settings.scale * row_sum(local, part);
  if (local.x == 0u) {
    out[settings.slot] = sum + select(0.0, out[settings.slot], settings.accumulate != 0u);
  }
}
