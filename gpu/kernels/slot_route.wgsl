// Where the tokens of rows go next, slot s = records[i].x: into recursion step STEP of their slot, or out.
// enter_all: all R = STEPS steps;  enter_by_depth: depths[i] of them, and gates[s] = row_gates[i]
// recur_by_depth: one more step has run, DEPTH are to run
// by_score: one more step has run (IS_ENTRY: none yet); step r is next where deciding[i][r] > thresholds[r], with
//   gates[s] = ALPHA f(logits[i][r])
// logits, deciding (rows, STEPS); thresholds (STEPS); depths (rows, f32), row_gates (rows); gates (S); records (rows, 4).
// One invocation per row.

override STEPS: u32;
override IS_ENTRY: bool = false;

@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read> records: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> slots: array<u32>;
@group(0) @binding(3) var<storage, read_write> gates: array<f32>;
@group(0) @binding(4) var<storage, read> logits: array<f32>;
@group(0) @binding(5) var<storage, read> deciding: array<f32>;
@group(0) @binding(6) var<storage, read> thresholds: array<f32>;
@group(0) @binding(7) var<storage, read> depths: array<f32>;
@group(0) @binding(8) var<storage, read> row_gates: array<f32>;

fn enter(slot: u32, depth: u32) {
  slots[field(STEP, slot)] = 0u;
  slots[field(DEPTH, slot)] = depth;
  slots[field(PHASE, slot)] = RECURRING;
}

@compute @workgroup_size(64)
fn enter_all(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < rows[0]) {
    enter(records[id.x].x, STEPS);
  }
}

@compute @workgroup_size(64)
fn enter_by_depth(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < rows[0]) {
    let slot = records[id.x].x;
    enter(slot, u32(depths[id.x]));
    gates[slot] = row_gates[id.x];
  }
}

@compute @workgroup_size(64)
fn recur_by_depth(@builtin(global_invocation_id) id: vec3<u32>) {
  if (id.x < rows[0]) {
    let slot = records[id.x].x;
    let step = slots[field(STEP, slot)] + 1u;
    slots[field(STEP, slot)] = step;
    slots[field(PHASE, slot)] = select(LEAVING, RECURRING, step < slots[field(DEPTH, slot)]);
  }
}

@compute @workgroup_size(64)
fn by_score(@builtin(global_invocation_id) id: vec3<u32>) {
  let row = id.x;
  if (row >= rows[0]) {
    return;
  }
  let slot = records[row].x;
  var step = 0u;
  if (!IS_ENTRY) {
    step = slots[field(STEP, slot)] + 1u;
  }
  slots[field(STEP, slot)] = step;
  slots[field(PHASE, slot)] = LEAVING;
  if (step < STEPS && deciding[row * STEPS + step] > thresholds[step]) {
    slots[field(PHASE, slot)] = RECURRING;
    gates[slot] = gate_of(logits[row * STEPS + step]);
  }
}
