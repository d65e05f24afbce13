// What the rows of a depth-wise batch leave in the states of their slots s = records[i].x:
// replace_state: states[s] = z[i];  replace_both: starts[s] = z[i] as well
// join_state: states[s] = a states[s] + b z[i], with a and b from GATING and gates[s] as in scatter_rows.wgsl
// join_start: at the last step of the slot's token states[s] = a starts[s] + b z[i], before that states[s] = z[i]
// states, starts (S, DIM); z (rows, DIM); gates (S); records (rows, 4). One vec4 per invocation.

override DIM: u32;
const GROUP = 64u;

@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read> records: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> slots: array<u32>;
@group(0) @binding(3) var<storage, read> z: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> gates: array<f32>;
@group(0) @binding(5) var<storage, read_write> states: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> starts: array<vec4<f32>>;

// A vec4 of a row, where it is in z and in the slot's state.
struct Place {
  is_row: bool,
  slot: u32,
  row: u32,
  state: u32,
}

fn place_of(group: vec3<u32>, groups: vec3<u32>, local: vec3<u32>) -> Place {
  let width = DIM / 4u;
  let i = (group.x + group.y * groups.x) * GROUP + local.x;
  let row = i / width;
  if (row >= rows[0]) {
    return Place();
  }
  let slot = records[row].x;
  return Place(true, slot, i, slot * width + i % width);
}

@compute @workgroup_size(GROUP)
fn replace_state(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let place = place_of(group, groups, local);
  if (place.is_row) {
    states[place.state] = z[place.row];
  }
}

@compute @workgroup_size(GROUP)
fn replace_both(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let place = place_of(group, groups, local);
  if (place.is_row) {
    states[place.state] = z[place.row];
    starts[place.state] = z[place.row];
  }
}

@compute @workgroup_size(GROUP)
fn join_state(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let place = place_of(group, groups, local);
  if (place.is_row) {
    let parts = gating_parts(gates[place.slot]);
    states[place.state] = parts.x * states[place.state] + parts.y * z[place.row];
  }
}

@compute @workgroup_size(GROUP)
fn join_start(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let place = place_of(group, groups, local);
  if (place.is_row) {
    var state = z[place.row];
    if (slots[field(STEP, place.slot)] + 1u == slots[field(DEPTH, place.slot)]) {
      let parts = gating_parts(gates[place.slot]);
      state = parts.x * starts[place.state] + parts.y * state;
    }
    states[place.state] = state;
  }
}
