// Part of the attention kernels: what they read, and steps on tiles of scores.
// q (rows, Q_STRIDE vec4), head h from column h * WIDTH; kv (key rows, KV_STRIDE vec4), in a part: key head g from
// column K_OFFSET + g * WIDTH, value head g from V_OFFSET + g * WIDTH; grad_out (rows, HEADS, WIDTH vec4); packing.
// Row i sees the key rows first_key(i) to end_key(i) - 1; both never descend from row to row.
// An invocation has 4 rows of its own; the 8 invocations of a block of 32 rows meet the same other rows in a turn: 8, or
// more, in parts of 8 (attention_turn_8.wgsl, attention_turn_32.wgsl).
// Tiles are matrices because their products need no loops: a software adapter keeps them in registers, which it does
// not do for arrays that nested loops index.

override HEADS: u32;
override GROUP_HEADS: u32; // query heads that share a key/value head
override WIDTH: u32; // vec4 of a head
override Q_STRIDE: u32;
override KV_STRIDE: u32;
override K_OFFSET: u32;
override V_OFFSET: u32;
override LANES: u32; // a multiple of 8
override SCALE: f32;
override KEYS: u32; // which rows the key rows are:
const PACKED_KEYS = 0u; // the packed rows: row i sees those of its sequence up to itself
const STATE_KEYS = 1u; // the state's rows: row i sees its sequence up to its own position
const CACHED_KEYS = 2u; // a cache's, of one text: row i sees its entries 0 to packing[i].w, table in z

struct Settings {
  first: u32, // keys (backward_keys: queries) of a block that earlier dispatches have done
  count: u32, // how many this one does: a multiple of TURN
}

@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read> packing: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> grad_out: array<vec4<f32>>;
@group(0) @binding(10) var<uniform> settings: Settings;

fn first_key(row: u32) -> u32 {
  let record = packing[row];
  if (KEYS == CACHED_KEYS) {
    return 0u;
  }
  return select(record.z, record.x - record.y, KEYS == STATE_KEYS);
}

fn end_key(row: u32) -> u32 {
  if (KEYS == PACKED_KEYS) {
    return row + 1u;
  }
  let record = packing[row];
  return select(record.w, record.x, KEYS == STATE_KEYS) + 1u;
}

fn first_keys(row: vec4<u32>) -> vec4<u32> {
  return vec4<u32>(first_key(row.x), first_key(row.y), first_key(row.z), first_key(row.w));
}

fn end_keys(row: vec4<u32>) -> vec4<u32> {
  return vec4<u32>(end_key(row.x), end_key(row.y), end_key(row.z), end_key(row.w));
}

const BLOCK_ROWS = 32u;
const NEXT_4 = vec4<u32>(0u, 1u, 2u, 3u);
const LOWEST = -1e30; // score of a masked key: finite, so that the difference of two is a number

// Eight key rows from the one that `first` is in a table of pages, see key_row: the last before `end` in place of those past it.
fn eight_from(table: u32, first: u32, end: u32, lane: u32) -> Eight {
  let start = min(first, end - 1u);
  let place = key_row(table, start);
  return eight_rows(place, place + (end - 1u - start), lane);
}

// Columns: four places of q, or of kv.
fn q_tile(place: vec4<u32>) -> mat4x4<f32> {
  return mat4x4<f32>(q[place.x], q[place.y], q[place.z], q[place.w]);
}

fn kv_tile(place: vec4<u32>) -> mat4x4<f32> {
  return mat4x4<f32>(kv_at(place.x), kv_at(place.y), kv_at(place.z), kv_at(place.w));
}

// Eight of something: vectors of the eight others as columns, or for each of the own rows (columns) eight scores.
struct Tiles {
  near: mat4x4<f32>,
  far: mat4x4<f32>,
}

// scores + the part of dot(own, other) that these four columns of the tensors make up.
fn add_tiles_products(scores: Tiles, others: Tiles, own: mat4x4<f32>) -> Tiles {
  return Tiles(scores.near + transpose(others.near) * own, scores.far + transpose(others.far) * own);
}

// Sum of the other rows, weighted for each own row.
fn tiles_sum(others: Tiles, weights: Tiles) -> mat4x4<f32> {
  return others.near * weights.near + others.far * weights.far;
}

// Products to scores: own row r keeps the others, numbered from `other`, that are in [first[r], end[r]).
fn mask_tiles(products: Tiles, other: u32, first: vec4<u32>, end: vec4<u32>) -> Tiles {
  return Tiles(
    mask_columns(products.near, other + NEXT_4, first, end),
    mask_columns(products.far, other + 4u + NEXT_4, first, end),
  );
}

fn mask_columns(products: mat4x4<f32>, other: vec4<u32>, first: vec4<u32>, end: vec4<u32>) -> mat4x4<f32> {
  return mat4x4<f32>(
    mask(products[0], other, first.x, end.x),
    mask(products[1], other, first.y, end.y),
    mask(products[2], other, first.z, end.z),
    mask(products[3], other, first.w, end.w),
  );
}

fn mask(products: vec4<f32>, other: vec4<u32>, first: u32, end: u32) -> vec4<f32> {
  return select(vec4<f32>(LOWEST), products * SCALE, (other >= vec4<u32>(first)) & (other < vec4<u32>(end)));
}

fn multiply_columns(tile: mat4x4<f32>, factors: vec4<f32>) -> mat4x4<f32> {
  return mat4x4<f32>(tile[0] * factors.x, tile[1] * factors.y, tile[2] * factors.z, tile[3] * factors.w);
}

// The largest of each own row's eight.
fn tiles_maxima(tiles: Tiles) -> vec4<f32> {
  return max(column_maxima(tiles.near), column_maxima(tiles.far));
}

fn column_maxima(tile: mat4x4<f32>) -> vec4<f32> {
  let turned = transpose(tile);
  return max(max(turned[0], turned[1]), max(turned[2], turned[3]));
}

// The sum of each own row's eight.
fn tiles_total(tiles: Tiles) -> vec4<f32> {
  return vec4<f32>(1.0) * (tiles.near + tiles.far);
}

// exp of each own row's scores less its own shift.
fn exp_tiles(scores: Tiles, shift: vec4<f32>) -> Tiles {
  return Tiles(exp_columns(scores.near, shift), exp_columns(scores.far, shift));
}

fn exp_columns(scores: mat4x4<f32>, shift: vec4<f32>) -> mat4x4<f32> {
  return mat4x4<f32>(
    exp(scores[0] - shift.x),
    exp(scores[1] - shift.y),
    exp(scores[2] - shift.z),
    exp(scores[3] - shift.w),
  );
}
