// places[i] = (x and y of packing[i], slot * table_length, own): where the table of row i's text begins among the cache's
// pages, and its own entry there
// by_position: own = position;  by_length: own = lengths[slot] + rank of row i among the slot's packed rows, and
// lengths[slot] += packed rows of the slot.  Both: depths[x of packing[i]] = depth
// packing, places (rows, 4) u32; slots (state rows): whose text a row belongs to; lengths (slots); depths (state rows).
// One workgroup for all rows.

override WIDTH: u32;

struct Settings {
  table_length: u32,
  depth: u32,
}

@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read> packing: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> slots: array<u32>;
@group(0) @binding(3) var<storage, read_write> lengths: array<u32>;
@group(0) @binding(4) var<storage, read_write> depths: array<u32>;
@group(0) @binding(5) var<storage, read_write> places: array<vec4<u32>>;
@group(0) @binding(6) var<uniform> settings: Settings;

@compute @workgroup_size(WIDTH)
fn by_position(@builtin(local_invocation_index) lane: u32) {
  for (var row = lane; row < rows[0]; row += WIDTH) {
    let record = packing[row];
    places[row] = vec4<u32>(record.xy, slots[record.x] * settings.table_length, record.y);
    depths[record.x] = settings.depth;
  }
}

@compute @workgroup_size(WIDTH)
fn by_length(@builtin(local_invocation_index) lane: u32) {
  for (var row = lane; row < rows[0]; row += WIDTH) {
    let record = packing[row];
    let slot = slots[record.x];
    places[row] = vec4<u32>(record.xy, slot * settings.table_length, lengths[slot] + row - record.z);
    depths[record.x] = settings.depth;
  }
  storageBarrier(); // all have read the lengths
  for (var row = lane; row < rows[0]; row += WIDTH) {
    let record = packing[row];
    if (row == record.z) {
      lengths[slots[record.x]] += record.w - record.z;
    }
  }
}
