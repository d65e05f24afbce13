// Pages that change hands at once, for the slot records[i].x of each row i:
// reserve: the pages of every entry that y more tokens from position z on may make, at every group and layer. There must
//   be enough that are free.
// release: a text that has ENDED gives back all its pages and has no entries any more; another gives back those that its
//   entries leave empty, where entries are counted.
// counts, tables, free and groups as in slot_select.wgsl; block_layers cached layers belong to all groups but the last.
// One workgroup for each row, no slot in two rows.

override PAGE_ROWS: u32;
override IS_COUNTED: bool;

struct Settings {
  groups: u32,
  block_layers: u32,
  layers: u32,
  banks: u32,
  free_stride: u32,
  layer_stride: u32,
  table_length: u32,
}

@group(0) @binding(0) var<storage, read> slots: array<u32>;
@group(0) @binding(1) var<storage, read_write> counts: array<u32>;
@group(0) @binding(2) var<storage, read_write> free: array<atomic<u32>>;
@group(0) @binding(3) var<storage, read_write> tables: array<u32>;
@group(0) @binding(4) var<storage, read> rows: array<u32>;
@group(0) @binding(5) var<storage, read> records: array<vec4<u32>>;
@group(0) @binding(6) var<uniform> settings: Settings;

const WIDTH = 64u;

fn is_last(group: u32) -> bool {
  return group + 1u == settings.groups;
}

fn entries_index(group: u32, slot: u32) -> u32 {
  return group * slot_count() + slot;
}

fn pages_index(group: u32, slot: u32) -> u32 {
  return entries_index(settings.groups + group, slot);
}

fn pages_for(entries: u32) -> u32 {
  return (entries + PAGE_ROWS - 1u) / PAGE_ROWS;
}

// Pages of a slot's text in a group, at each layer: before and after.
struct Change {
  before: u32,
  after: u32,
}

fn reserved(record: vec4<u32>, group: u32) -> Change {
  let before = counts[pages_index(group, record.x)];
  var entries = record.z;
  if (IS_COUNTED && !is_last(group)) {
    entries = counts[entries_index(group, record.x)];
  }
  return Change(before, max(before, pages_for(entries + record.y)));
}

fn released(slot: u32, group: u32) -> Change {
  let before = counts[pages_index(group, slot)];
  if (slots[field(PHASE, slot)] == ENDED) {
    return Change(before, 0u);
  }
  if (IS_COUNTED && !is_last(group)) {
    return Change(before, min(before, pages_for(counts[entries_index(group, slot)])));
  }
  return Change(before, before);
}

// First cached layer of a group, and how many there are.
fn layers_of(group: u32) -> vec2<u32> {
  if (is_last(group)) {
    return vec2<u32>(settings.block_layers, settings.layers - settings.block_layers);
  }
  return vec2<u32>(0u, settings.block_layers);
}

// Place of a page in the tables.
fn table_place(group: u32, slot: u32, layer: u32, page: u32) -> u32 {
  let first = select(group * slot_count(), 0u, is_last(group));
  return layer * settings.layer_stride + (first + slot) * settings.table_length + page;
}

@compute @workgroup_size(WIDTH)
fn reserve(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  if (id.x >= rows[0]) {
    return;
  }
  let record = records[id.x];
  for (var group = 0u; group < settings.groups; group++) {
    let change = reserved(record, group);
    let layers = layers_of(group);
    for (var i = lane; i < (change.after - change.before) * layers.y; i += WIDTH) {
      let layer = layers.x + i % layers.y;
      let start = layer % settings.banks * settings.free_stride;
      let last = atomicSub(&free[start], 1u);
      let place = table_place(group, record.x, layer, change.before + i / layers.y);
      tables[place] = atomicLoad(&free[start + last]);
    }
  }
  storageBarrier(); // all have read the counts
  for (var group = lane; group < settings.groups; group += WIDTH) {
    counts[pages_index(group, record.x)] = reserved(record, group).after;
  }
}

@compute @workgroup_size(WIDTH)
fn release(@builtin(workgroup_id) id: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  if (id.x >= rows[0]) {
    return;
  }
  let slot = records[id.x].x;
  for (var group = 0u; group < settings.groups; group++) {
    let change = released(slot, group);
    let layers = layers_of(group);
    for (var i = lane; i < (change.before - change.after) * layers.y; i += WIDTH) {
      let layer = layers.x + i % layers.y;
      let start = layer % settings.banks * settings.free_stride;
      let page = tables[table_place(group, slot, layer, change.after + i / layers.y)];
      let count = atomicAdd(&free[start], 1u);
      atomicStore(&free[start + count + 1u], page);
    }
  }
  storageBarrier(); // all have read the counts
  for (var group = lane; group < settings.groups; group += WIDTH) {
    counts[pages_index(group, slot)] = released(slot, group).after;
    if (slots[field(PHASE, slot)] == ENDED) {
      counts[entries_index(group, slot)] = 0u;
    }
  }
}
