// out = GELU(s) = s * P(s),  s = SCALE * x,  P(s) = (1 + erf(s / sqrt(2))) / 2                 (Hendrycks & Gimpel 2016)
// grad_x = grad_out * SCALE * (P(s) + s * Z(s)),  Z(s) = exp(-s^2 / 2) / sqrt(2 pi), the slope of P
// x, out, grad_out, grad_x (rows, DIM). One vec4 of a row per invocation.

override DIM: u32;
override SCALE: f32;
const GROUP = 64u;

@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> grad_out: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> grad_x: array<vec4<f32>>;

@compute @workgroup_size(GROUP)
fn forward(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let i = (group.x + group.y * groups.x) * GROUP + local.x;
  if (i / (DIM / 4u) < rows[0]) {
    let s = SCALE * x[i];
    out[i] = s * distribution(s, density(s));
  }
}

@compute @workgroup_size(GROUP)
fn backward(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let i = (group.x + group.y * groups.x) * GROUP + local.x;
  if (i / (DIM / 4u) < rows[0]) {
    let s = SCALE * x[i];
    let slope = density(s);
    grad_x[i] = SCALE * grad_out[i] * (distribution(s, slope) + s * slope);
  }
}

// Z(s). Beyond 13 it is no normal f32 and the square may overflow: 0 there, by a choice and not by the exponential,
// whose smallest results differ between drivers and would be multiplied by s.
fn density(s: vec4<f32>) -> vec4<f32> {
  let bounded = min(abs(s), vec4<f32>(13.0));
  let value = 0.3989422804 * exp(-0.5 * bounded * bounded);
  return select(value, vec4<f32>(), abs(s) > vec4<f32>(13.0));
}

// P(s) by formula 26.2.17 of Abramowitz & Stegun 1964, off by less than 7.5e-8: P(-|s|) = Z(s) * polynomial(t).
fn distribution(s: vec4<f32>, slope: vec4<f32>) -> vec4<f32> {
  let t = 1.0 / (1.0 + 0.2316419 * abs(s));
  let sum = 0.319381530 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429)));
  let tail = slope * t * sum;
  return select(1.0 - tail, tail, s < vec4<f32>());
}
