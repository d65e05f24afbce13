// Part of the kernels that join a row z with gate w to a state x: a x + b z, by GATING
//   weighted x + w z | additive x + z | replace z | delta x + w (z - x)     (0, 1, 2, 3)

override GATING: u32 = 0;
const WEIGHTED = 0u;
const ADDITIVE = 1u;
const DELTA = 3u;

// a and b.
fn gating_parts(w: f32) -> vec2<f32> {
  if (GATING == WEIGHTED) {
    return vec2<f32>(1.0, w);
  }
  if (GATING == ADDITIVE) {
    return vec2<f32>(1.0, 1.0);
  }
  if (GATING == DELTA) {
    return vec2<f32>(1.0 - w, w);
  }
  return vec2<f32>(0.0, 1.0);
}
