// out[t] = weight[ids[t]]
// grad_weight[v] += sum of grad_out[t] over the rows t with ids[t] = v, always in the same order.
// ids (rows) u32; weight (V, DIM) in any FORMAT; grad_weight (V, DIM); out, grad_out (rows, DIM).
// Of a large weight, or its gradient, the `count` ids from `first` on are bound: other rows are left to other dispatches.
// order (rows): row numbers sorted by id; starts (rows): where the run of equal ids that holds this place begins.
// One vec4 of a row per invocation. A run is cut into chunks of CHUNK places: backward_chunks leaves the sum of each
// chunk in the grad_out row of its first place, backward_weight adds the chunks. No loop grows with a common id.

override DIM: u32;
struct Settings {
  first: u32,
  count: u32,
}

const GROUP = 64u;
const CHUNK = 64u;

@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> order: array<u32>;
@group(0) @binding(5) var<storage, read> starts: array<u32>;
@group(0) @binding(6) var<storage, read_write> grad_out: array<vec4<f32>>;
@group(0) @binding(7) var<storage, read_write> grad_weight: array<vec4<f32>>;
@group(0) @binding(8) var<storage, read> weight_words: array<u32>; // the same tensor as weight
@group(0) @binding(9) var<uniform> settings: Settings;

fn weight_word(i: u32) -> u32 {
  return weight_words[i];
}

fn weight_quad(id: u32, q: u32) -> vec4<f32> {
  if (FORMAT != F32) {
    return packed_quad(id, DIM / 32u, q);
  }
  return weight[id * (DIM / 4u) + q];
}

@compute @workgroup_size(GROUP)
fn forward(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let width = DIM / 4u;
  let i = (group.x + group.y * groups.x) * GROUP + local.x;
  let row = i / width;
  if (row >= rows[0]) {
    return;
  }
  let id = ids[row] - settings.first; // wraps round to a large number for an id before the window
  if (id < settings.count) {
    out[i] = weight_quad(id, i % width);
  }
}

@compute @workgroup_size(GROUP)
fn backward_chunks(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let width = DIM / 4u;
  let i = (group.x + group.y * groups.x) * GROUP + local.x;
  let place = i / width;
  let c = i % width;
  if (place >= rows[0]) {
    return;
  }
  let start = starts[place];
  if ((place - start) % CHUNK != 0u) {
    return; // another place adds this row
  }
  let end = min(place + CHUNK, rows[0]);
  var sum = grad_out[order[place] * width + c];
  for (var p = place + 1u; p < end && starts[p] == start; p++) {
    sum += grad_out[order[p] * width + c];
  }
  grad_out[order[place] * width + c] = sum;
}

@compute @workgroup_size(GROUP)
fn backward_weight(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let width = DIM / 4u;
  let i = (group.x + group.y * groups.x) * GROUP + local.x;
  let place = i / width;
  let c = i % width;
  if (place >= rows[0]) {
    return;
  }
  if (starts[place] != place) {
    return; // not the first of its id
  }
  let id = ids[order[place]] - settings.first;
  if (id >= settings.count) {
    return;
  }
  var sum = vec4<f32>();
  for (var p = place; p < rows[0] && starts[p] == place; p += CHUNK) {
    sum += grad_out[order[p] * width + c];
  }
  grad_weight[id * width + c] += sum;
}
