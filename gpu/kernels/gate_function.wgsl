// Part of the kernels that make gates of logits: f = sigmoid, tanh or identity by FUNCTION.

const SIGMOID = 0u;
const TANH = 1u;

override FUNCTION: u32;
override ALPHA: f32;

// 1 - tanh(10) is below half the last place of 1, and some drivers overflow for larger arguments.
fn bounded_tanh(x: f32) -> f32 {
  return tanh(clamp(x, -10.0, 10.0));
}

// ALPHA * f(logit)
fn gate_of(logit: f32) -> f32 {
  if (FUNCTION == SIGMOID) {
    let small = exp(-abs(logit)); // never overflows
    return ALPHA * select(small, 1.0, logit >= 0.0) / (1.0 + small);
  }
  if (FUNCTION == TANH) {
    return ALPHA * bounded_tanh(logit);
  }
  return ALPHA * logit;
}
