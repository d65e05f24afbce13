// Part of the attention kernels: what they read, and steps on tiles of scores.
// q (rows, Q_STRIDE vec4), head h from column h * WIDTH; kv (rows, KV_STRIDE vec4), key head g from column
// K_OFFSET + g * WIDTH, value head g from V_OFFSET + g * WIDTH; packing (rows).
// grad_out (rows, HEADS, WIDTH vec4) is read by the backward kernels only.
// An invocation has 4 rows; 8 neighbours (a block of 32 rows) meet the same 8 others per turn, see attention_load.wgsl.
// Tiles are matrices because their products need no loops: a software adapter keeps them in registers, which it does
// not do for arrays that nested loops index.

override HEADS: u32;
override GROUP_HEADS: u32; // query heads that share a key/value head
override WIDTH: u32; // vec4 of a head
override Q_STRIDE: u32;
override KV_STRIDE: u32;
override K_OFFSET: u32;
override V_OFFSET: u32;
override LANES: u32;
override SCALE: f32;

struct Settings {
  first: u32, // keys (backward_keys: queries) of a block that earlier dispatches have done
  count: u32, // how many this one does: a multiple of 8
}

@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read> packing: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> kv: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> grad_out: array<vec4<f32>>;
@group(0) @binding(10) var<uniform> settings: Settings;

const LOWEST = -1e30; // score of a masked key: finite, so that the difference of two is a number
const BLOCK_ROWS = 32u;
const NEXT_4 = vec4<u32>(0u, 1u, 2u, 3u);

// Eight columns.
struct Tiles {
  near: mat4x4<f32>,
  far: mat4x4<f32>,
}

// Columns multiplied by the factors, one by one.
fn scale_columns(tile: mat4x4<f32>, factors: vec4<f32>) -> mat4x4<f32> {
  return mat4x4<f32>(tile[0] * factors.x, tile[1] * factors.y, tile[2] * factors.z, tile[3] * factors.w);
}

// exp of each column less its shift.
fn exp_columns(tile: mat4x4<f32>, shift: vec4<f32>) -> mat4x4<f32> {
  return mat4x4<f32>(
    exp(tile[0] - shift.x),
    exp(tile[1] - shift.y),
    exp(tile[2] - shift.z),
    exp(tile[3] - shift.w),
  );
}

// Products of queries and keys to scores: column c keeps the entries whose `place` is in [first[c], last[c]].
fn mask_columns(tile: mat4x4<f32>, place: vec4<u32>, first: vec4<u32>, last: vec4<u32>) -> mat4x4<f32> {
  return mat4x4<f32>(
    mask(tile[0], place, first.x, last.x),
    mask(tile[1], place, first.y, last.y),
    mask(tile[2], place, first.z, last.z),
    mask(tile[3], place, first.w, last.w),
  );
}

fn mask(products: vec4<f32>, place: vec4<u32>, first: u32, last: u32) -> vec4<f32> {
  return select(vec4<f32>(LOWEST), products * SCALE, (place >= vec4<u32>(first)) & (place <= vec4<u32>(last)));
}
