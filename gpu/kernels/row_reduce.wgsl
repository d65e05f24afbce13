// Part of kernels that reduce rows: LANES invocations share a row, ROWS rows share a workgroup.
// With LANES = 1 the barriers are compiled away.

override LANES: u32;
override ROWS: u32;
override GROUP_SIZE: u32 = LANES * ROWS;

var<workgroup> partial: array<f32, GROUP_SIZE>;

// Sum over the lanes of a row, in every lane. All invocations of the workgroup must call it.
fn row_sum(local: vec3<u32>, value: f32) -> f32 {
  if (LANES == 1u) {
    return value;
  }
  let first = local.y * LANES;
  partial[first + local.x] = value;
  for (var stride = LANES / 2u; stride > 0u; stride /= 2u) {
    workgroupBarrier();
    if (local.x < stride) {
      partial[first + local.x] += partial[first + local.x + stride];
    }
  }
  workgroupBarrier();
  let sum = partial[first];
  workgroupBarrier(); // the next call writes where others may still read
  return sum;
}

// Largest value over the lanes of a row, in every lane. All invocations of the workgroup must call it.
fn row_max(local: vec3<u32>, value: f32) -> f32 {
  if (LANES == 1u) {
    return value;
  }
  let first = local.y * LANES;
  partial[first + local.x] = value;
  for (var stride = LANES / 2u; stride > 0u; stride /= 2u) {
    workgroupBarrier();
    if (local.x < stride) {
      partial[first + local.x] = max(partial[first + local.x], partial[first + local.x + stride]);
    }
  }
  workgroupBarrier();
  let largest = partial[first];
  workgroupBarrier();
  return largest;
}
