// places[i] = (x and y of packing[i], first, own): the cache rows that packed row i sees, its own last
// by_position: first = slot * capacity, own = first + position;  by_length: own = first + lengths[slot] + rank of row i
// among the slot's packed rows, and lengths[slot] += packed rows of the slot.  Both: depths[x of packing[i]] = depth
// packing, places (rows, 4) u32; slots (state rows): whose text a row belongs to; lengths (slots); depths (state rows).
// One workgroup for all rows.

override WIDTH: u32;

struct Settings {
  capacity: u32, // cache rows of a slot
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
    let first = slots[record.x] * settings.capacity;
    places[row] = vec4<u32>(record.xy, first, first + record.y);
    depths[record.x] = settings.depth;
  }
}

@compute @workgroup_size(WIDTH)
fn by_length(@builtin(local_invocation_index) lane: u32) {
  for (var row = lane; row < rows[0]; row += WIDTH) {
    let record = packing[row];
    let slot = slots[record.x];
    let first = slot * settings.capacity;
    places[row] = vec4<u32>(record.xy, first, first + lengths[slot] + row - record.z);
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
