// logits[i][o] = dot(x[packing[i].x], weight[o]) / TEMPERATURE                         (linear router, Bae et al. 2025)
// grad_x[packing[i].x] += sum over o of grad_logits[i][o] * weight[o] / TEMPERATURE
// grad_weight[o] += sum over i of grad_logits[i][o] * x[packing[i].x] / TEMPERATURE
// x, grad_x (state rows, DIM); weight, grad_weight (OUTPUTS, DIM); packing (rows, 4);
// logits, grad_logits (rows, OUTPUTS).
// forward, backward_input: LANES invocations per packed row. backward_weight: one column of vec4 per invocation in x,
// SLICES interleaved parts of the rows in y; one output per workgroup in y.

override DIM: u32;
override OUTPUTS: u32;
override TEMPERATURE: f32;
override COLUMNS: u32 = 8;
override SLICES: u32 = 8;
override COLUMN_GROUP: u32 = COLUMNS * SLICES;

@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read> packing: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> logits: array<f32>;
@group(0) @binding(5) var<storage, read> grad_logits: array<f32>;
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
  let is_row = row < rows[0]; // rows past the end still meet the barriers
  for (var o = 0u; o < OUTPUTS; o++) {
    var products = 0.0;
    if (is_row) {
      let first = packing[row].x * width;
      for (var c = local.x; c < width; c += LANES) {
        products += dot(x[first + c], weight[o * width + c]);
      }
    }
    let logit = row_sum(local, products) / TEMPERATURE;
    if (is_row && local.x == 0u) {
      logits[row * OUTPUTS + o] = logit;
    }
  }
}

@compute @workgroup_size(LANES, ROWS)
fn backward_input(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let row = (group.x + group.y * groups.x) * ROWS + local.y;
  if (row >= rows[0]) {
    return;
  }
  let width = DIM / 4u;
  let first = packing[row].x * width; // no two packed rows share a state row, so the additions cannot collide
  for (var o = 0u; o < OUTPUTS; o++) {
    let gradient = grad_logits[row * OUTPUTS + o] / TEMPERATURE;
    for (var c = local.x; c < width; c += LANES) {
      grad_x[first + c] += gradient * weight[o * width + c];
    }
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
      sum += grad_logits[row * OUTPUTS + group.y] * x[packing[row].x * width + c];
    }
  }
  slices[local.y * COLUMNS + local.x] = sum;
  workgroupBarrier();
  if (local.y == 0u && c < width) {
    for (var slice = 1u; slice < SLICES; slice++) {
      sum += slices[slice * COLUMNS + local.x];
    }
    grad_weight[group.y * width + c] += sum / TEMPERATURE;
  }
}
