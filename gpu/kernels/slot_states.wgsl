// What the rows of a depth-wise batch leave in the states of their slots s = records[i].x:
// entered: states[s] = z[i], and starts[s] = z[i] where HAS_START
// recurred: states[s] = a x + b z[i], with a and b from GATING and gates[s] as in scatter_rows.wgsl. BASE says what x is:
//   nothing (a = 0, b = 1), the slot's state, or its state before the recursion, which joins at the token's last step only.
// states, starts (S, DIM); z (rows, DIM); gates (S); records (rows, 4). One vec4 per invocation.

override DIM: u32;
override BASE: u32 = 0u;
override HAS_START: bool = false;
const FROM_STATE = 1u;
const FROM_START = 2u;
const GROUP = 64u;

@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read> records: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> slots: array<u32>;
@group(0) @binding(3) var<storage, read> z: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> gates: array<f32>;
@group(0) @binding(5) var<storage, read_write> states: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> starts: array<vec4<f32>>;

@compute @workgroup_size(GROUP)
fn entered(
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
  let place = records[row].x * width + i % width;
  states[place] = z[i];
  if (HAS_START) {
    starts[place] = z[i];
  }
}

@compute @workgroup_size(GROUP)
fn recurred(
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
  let slot = records[row].x;
  let place = slot * width + i % width;
  let parts = gating_parts(gates[slot]);
  var state = z[i];
  if (BASE == FROM_STATE) {
    state = parts.x * states[place] + parts.y * state;
  } else if (BASE == FROM_START && slots[field(STEP, slot)] + 1u == slots[field(DEPTH, slot)]) {
    state = parts.x * starts[place] + parts.y * state;
  }
  states[place] = state;
}
