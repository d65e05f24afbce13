// m += (1 - beta1) * (g - m),  v += (1 - beta2) * (g^2 - v),  g = norm.coefficient * gradient
// weight -= rate * (WEIGHT_DECAY * weight + m / correction1 / (sqrt(v / correction2) + EPS))  (Loshchilov & Hutter 2019)
// weights, gradients, first_moments, second_moments: flat, of one length; norm (2): norm, coefficient;
// step (4): rate, correction1 = 1 - beta1^t, correction2 = 1 - beta2^t, unused.
// One vec4 per invocation. A coefficient of 0 says that the gradient is not finite: nothing is changed then.

override GAIN1: f32; // 1 - beta1, made in float64: the difference of float32 is off by 1e-5 of itself
override GAIN2: f32;
override EPS: f32;
override WEIGHT_DECAY: f32;
const GROUP = 256u;

@group(0) @binding(0) var<storage, read_write> weights: array<vec4<f32>>;
@group(0) @binding(1) var<storage, read> gradients: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> first_moments: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> second_moments: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> norm: array<f32>;
@group(0) @binding(5) var<storage, read> step: array<f32>;

@compute @workgroup_size(GROUP)
fn update(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let i = (group.x + group.y * groups.x) * GROUP + local.x;
  let coefficient = norm[1];
  if (i >= arrayLength(&weights) || coefficient == 0.0) {
    return;
  }
  let gradient = coefficient * gradients[i];
  let first = first_moments[i] + GAIN1 * (gradient - first_moments[i]);
  let second = second_moments[i] + GAIN2 * (gradient * gradient - second_moments[i]);
  first_moments[i] = first;
  second_moments[i] = second;
  let direction = first / step[1] / (sqrt(second / step[2]) + EPS);
  weights[i] -= step[0] * (WEIGHT_DECAY * weights[i] + direction);
}
