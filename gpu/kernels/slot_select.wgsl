// Chooses up to `most` slots that are in phase PHASE_WANTED, in turn from the first that the last choice had no room for;
// where it had room for all, from where that one began. Slots whose new entries need pages get them in the same turn,
// also beyond `most`; those for which none are left are passed over: they stall.
//   records[i] = (slot, position, its table, its entry there), of row i, see cache_pages.wgsl;  rows[0] = rows chosen
// Keys and values have tables by cached layer, by group and by slot. A group is a recursion step with entries of its own;
// the layers around the recursion are the last group. counts (2 GROUPS, S): entries that count, then pages, of each group
// and slot. free (banks, free_stride): pages of a pool that nobody has, their number in front; layer u has its pages in
// bank u % banks. tables (layers, layer_stride).
// ENTERING: more[i] = the token. RECURRING, IS_SHARED: more[4 i ..] = the record, NO_TABLE as its table where the row makes
// no keys and values. LEAVING: nobody is chosen while fewer than `due` wait and `full` others can run the recursion.
// One workgroup for all slots.

override PHASE_WANTED: u32;
override IS_COUNTED: bool; // entries of a recursion step are the tokens that ran it; otherwise every token has one
override PAGE_ROWS: u32;
override IS_SHARED: bool;  // all recursion steps read the keys and values of the first

struct Settings {
  most: u32,
  due: u32,
  full: u32,
  groups: u32,
  first_layer: u32, // cached layers whose pages the rows need: from this one
  end_layer: u32,   // to the one before this
  banks: u32,
  free_stride: u32,
  layer_stride: u32,
  table_length: u32,
}

@group(0) @binding(0) var<storage, read_write> slots: array<u32>;
@group(0) @binding(1) var<storage, read_write> counts: array<u32>;
@group(0) @binding(2) var<storage, read_write> free: array<u32>;
@group(0) @binding(3) var<storage, read_write> tables: array<u32>;
@group(0) @binding(4) var<storage, read_write> rows: array<u32>;
@group(0) @binding(5) var<storage, read_write> records: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read_write> more: array<u32>;
@group(0) @binding(7) var<storage, read_write> tallies: array<u32>;
@group(0) @binding(8) var<uniform> settings: Settings;

const NO_TABLE = 0xffffffffu;
const NO_PAGES = 0xffffffffu;

var<workgroup> totals: vec3<u32>;
var<workgroup> next_turn: u32; // the first slot that there is no room for

// The group in which a slot's row has its entry; whether it makes one; which.
struct Place {
  group: u32,
  makes: bool,
  entry: u32,
}

fn place_of(slot: u32) -> Place {
  let position = slots[field(POSITION, slot)];
  if (PHASE_WANTED != RECURRING) {
    return Place(settings.groups - 1u, PHASE_WANTED == ENTERING, position);
  }
  let step = slots[field(STEP, slot)];
  if (IS_SHARED) {
    return Place(0u, step == 0u, position);
  }
  if (IS_COUNTED) {
    return Place(step, true, counts[step * slot_count() + slot]);
  }
  return Place(step, true, position);
}

fn pages_index(group: u32, slot: u32) -> u32 {
  return (settings.groups + group) * slot_count() + slot;
}

fn needs_pages(slot: u32) -> bool {
  let place = place_of(slot);
  return settings.first_layer < settings.end_layer && place.makes &&
    place.entry / PAGE_ROWS >= counts[pages_index(place.group, slot)];
}

// Layers before `layer` whose pages are in the bank.
fn layers_before(layer: u32, bank: u32) -> u32 {
  return (layer + settings.banks - 1u - bank) / settings.banks;
}

fn needed_of(bank: u32) -> u32 {
  return layers_before(settings.end_layer, bank) - layers_before(settings.first_layer, bank);
}

// Slots that can have a page for each layer.
fn affordable() -> u32 {
  var slots_with_pages = NO_PAGES;
  for (var bank = 0u; bank < settings.banks; bank++) {
    let needed = needed_of(bank);
    if (needed > 0u) {
      slots_with_pages = min(slots_with_pages, free[bank * settings.free_stride] / needed);
    }
  }
  return slots_with_pages;
}

// The pages of the slot that is `rank`th in need.
fn give_pages(slot: u32, rank: u32) {
  let place = place_of(slot);
  let given = counts[pages_index(place.group, slot)];
  for (var layer = settings.first_layer; layer < settings.end_layer; layer++) {
    let bank = layer % settings.banks;
    let nth = rank * needed_of(bank) + layers_before(layer, bank) - layers_before(settings.first_layer, bank);
    let start = bank * settings.free_stride;
    let page = free[start + free[start] - nth];
    tables[layer * settings.layer_stride + table_of(place.group, slot) + given] = page;
  }
  counts[pages_index(place.group, slot)] = given + 1u;
}

// Where a slot's table begins in those of a layer.
fn table_of(group: u32, slot: u32) -> u32 {
  let first = select(0u, group * slot_count(), PHASE_WANTED == RECURRING);
  return (first + slot) * settings.table_length;
}

fn write_row(row: u32, slot: u32) {
  let place = place_of(slot);
  let record = vec4<u32>(slot, slots[field(POSITION, slot)], table_of(place.group, slot), place.entry);
  records[row] = record;
  if (PHASE_WANTED == ENTERING) {
    more[row] = slots[field(TOKEN, slot)];
  }
  if (PHASE_WANTED == RECURRING && IS_COUNTED) {
    counts[place.group * slot_count() + slot] += 1u;
  }
  if (PHASE_WANTED == RECURRING && IS_SHARED) {
    more[4u * row] = slot;
    more[4u * row + 1u] = record.y;
    more[4u * row + 2u] = select(NO_TABLE, record.z, place.makes);
    more[4u * row + 3u] = place.entry;
  }
}

@compute @workgroup_size(WIDTH)
fn select_slots(@builtin(local_invocation_index) lane: u32) {
  let count = slot_count();
  let first_turn = tallies[TURN + PHASE_WANTED];
  // Each invocation takes a run of neighbours, so that a scan gives every slot its rank.
  let run = (count + WIDTH - 1u) / WIDTH;
  let start = min(lane * run, count);
  let end = min(start + run, count);
  var wanting = 0u;
  var needing = 0u;
  var recurring = 0u;
  for (var turn = start; turn < end; turn++) {
    let slot = (first_turn + turn) % count;
    let phase = slots[field(PHASE, slot)];
    recurring += u32(phase == RECURRING);
    if (phase == PHASE_WANTED) {
      wanting += 1u;
      needing += u32(needs_pages(slot));
    }
  }
  let before = scan_before(lane, vec2<u32>(wanting, needing));
  let all_before = scan_before(lane, vec2<u32>(recurring, 0u));
  if (lane == WIDTH - 1u) {
    totals = vec3<u32>(before.x + wanting, before.y + needing, all_before.x + recurring);
    next_turn = first_turn;
  }
  let total = workgroupUniformLoad(&totals);
  let able = affordable();
  let given = min(total.y, able); // the first of those in need
  var chosen = min(total.x - (total.y - given), settings.most);
  if (PHASE_WANTED == LEAVING && total.x < settings.due) {
    let is_full = total.z - min(total.z, tallies[STALLED + RECURRING]) >= settings.full;
    chosen = select(chosen, 0u, is_full);
  }

  var rank = before.y;
  var row = before.x - (before.y - min(before.y, able));
  for (var turn = start; turn < end; turn++) {
    let slot = (first_turn + turn) % count;
    if (slots[field(PHASE, slot)] != PHASE_WANTED) {
      continue;
    }
    if (needs_pages(slot)) {
      rank += 1u;
      if (rank > given) {
        continue;
      }
      give_pages(slot, rank - 1u);
    }
    if (row < chosen) {
      write_row(row, slot);
    } else if (row == chosen) {
      next_turn = slot;
    }
    row += 1u;
  }

  storageBarrier(); // all have read the free pages
  workgroupBarrier();
  if (lane == 0u) {
    for (var bank = 0u; bank < settings.banks; bank++) {
      free[bank * settings.free_stride] -= given * needed_of(bank);
    }
    rows[0] = chosen;
    tallies[TURN + PHASE_WANTED] = next_turn;
    tallies[ROWS_NOW + PHASE_WANTED] = chosen;
    tallies[ROWS + PHASE_WANTED] += chosen;
    tallies[RUNS + PHASE_WANTED] += u32(chosen > 0u);
    tallies[STALLED + PHASE_WANTED] = total.y - given;
  }
}
