// What a decoding step of texts, one token each, does before and after the model:
// next_rows: ids[i] = tokens[s] and packing[i] = (i, positions[s], i, i + 1) with s = slots[i]
// advance: history[cursor * SLOTS + s] = (tokens[s], bits of log_probabilities[s], depths[last row of s], positions[s]);
//   positions[s] += 1;  cursor += 1, once
// slots (rows) u32; tokens, positions, log_probabilities (SLOTS); depths (state rows); history (steps, SLOTS, 4).
// next_rows: one invocation per row. advance: one workgroup for all rows.

override SLOTS: u32;
override LAST_ROW: bool = false; // all rows are one text's, and its last row decides
override WIDTH: u32;

@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read> slots: array<u32>;
@group(0) @binding(2) var<storage, read> tokens: array<u32>;
@group(0) @binding(3) var<storage, read_write> positions: array<u32>;
@group(0) @binding(4) var<storage, read_write> ids: array<u32>;
@group(0) @binding(5) var<storage, read_write> packing: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read> log_probabilities: array<u32>; // f32, handed on by their bits
@group(0) @binding(7) var<storage, read> depths: array<u32>;
@group(0) @binding(8) var<storage, read_write> history: array<vec4<u32>>;
@group(0) @binding(9) var<storage, read_write> cursor: array<u32>;

@compute @workgroup_size(WIDTH)
fn next_rows(@builtin(global_invocation_id) id: vec3<u32>) {
  let row = id.x;
  if (row >= rows[0]) {
    return;
  }
  let slot = slots[row];
  ids[row] = tokens[slot];
  packing[row] = vec4<u32>(row, positions[slot], row, row + 1u);
}

@compute @workgroup_size(WIDTH)
fn advance(@builtin(local_invocation_index) lane: u32) {
  let step = cursor[0];
  let count = select(rows[0], 1u, LAST_ROW);
  for (var i = lane; i < count; i += WIDTH) {
    let row = select(i, rows[0] - 1u, LAST_ROW);
    let slot = slots[row];
    history[step * SLOTS + slot] = vec4<u32>(tokens[slot], log_probabilities[slot], depths[row], positions[slot]);
    positions[slot] += 1u;
  }
  storageBarrier(); // all have read the cursor
  if (lane == 0u) {
    cursor[0] = step + 1u;
  }
}
