// out = x * rrms * weight,  rrms = 1 / sqrt(mean(x^2) + EPS)                                 (Zhang & Sennrich 2019)
// grad_x = rrms * (g - x * rrms^2 * mean(g * x)),  g = grad_out * weight
// grad_weight += sum over rows of grad_out * x * rrms
// x, out, grad_x, grad_out (rows, DIM); weight, grad_weight (DIM); rrms (rows).
// forward, backward_input: LANES invocations per row. backward_weight: one column of vec4 per invocation in x,
// SLICES interleaved parts of the rows in y.

override DIM: u32;
override EPS: f32 = 0.0;
override ACCUMULATE: bool = false; // backward_input adds to grad_x
override COLUMNS: u32 = 8;
override SLICES: u32 = 8;
override COLUMN_GROUP: u32 = COLUMNS * SLICES;

@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> rrms: array<f32>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(5) var<storage, read> grad_out: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> grad_x: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> grad_weight: array<vec4<f32>>;

@compute @workgroup_size(LANES, ROWS)
fn forward(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let row = (group.x + group.y * groups.x) * ROWS + local.y;
  let width = DIM / 4u;
  let end = select(0u, width, row < rows[0]); // rows past the end still meet the barriers
  var squares = 0.0;
  for (var c = local.x; c < end; c += LANES) {
    let value = x[row * width + c];
    squares += dot(value, value);
  }
  let scale = inverseSqrt(row_sum(local, squares) / f32(DIM) + EPS);
  for (var c = local.x; c < end; c += LANES) {
    out[row * width + c] = x[row * width + c] * scale * weight[c];
  }
  if (local.x < end) {
    rrms[row] = scale;
  }
}

@compute @workgroup_size(LANES, ROWS)
fn backward_input(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let row = (group.x + group.y * groups.x) * ROWS + local.y;
  let width = DIM / 4u;
  let end = select(0u, width, row < rows[0]);
  var products = 0.0;
  for (var c = local.x; c < end; c += LANES) {
    products += dot(grad_out[row * width + c] * weight[c], x[row * width + c]);
  }
  let mean = row_sum(local, products) / f32(DIM);
  for (var c = local.x; c < end; c += LANES) {
    let i = row * width + c;
    let scale = rrms[row];
    let gradient = scale * (grad_out[i] * weight[c] - x[i] * (scale * scale * mean));
    grad_x[i] = gradient + select(vec4<f32>(), grad_x[i], ACCUMULATE);
  }
}

var<workgroup> slices: array<vec4<f32>, COLUMN_GROUP>;

@compute @workgroup_size(COLUMNS, SLICES)
fn backward_weight(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let width = DIM / 4u;
  let c = group.x * COLUMNS + local.x;
  var sum = vec4<f32>();
  if (c < width) {
    for (var row = local.y; row < rows[0]; row += SLICES) {
      sum += grad_out[row * width + c] * x[row * width + c] * rrms[row];
    }
  }
  slices[local.y * COLUMNS + local.x] = sum;
  workgroupBarrier();
  if (local.y == 0u && c < width) {
    for (var slice = 1u; slice < SLICES; slice++) {
      sum += slices[slice * COLUMNS + local.x];
    }
    grad_weight[c] += sum;
  }
}
