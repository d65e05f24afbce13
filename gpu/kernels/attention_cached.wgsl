// s_j = SCALE * dot(q, k_j) for 0 <= j <= packing[row].w,  out = sum over j of softmax(s)_j * v_j
// (online softmax: Milakov & Gimelshein 2018, section 3)
// q (rows, Q_STRIDE vec4), head h from column h * WIDTH; kv (pool rows, KV_STRIDE vec4), in a part: key head g from
// column K_OFFSET + g * WIDTH, value head g from V_OFFSET + g * WIDTH; packing (rows): in z the row's table of pages,
// see cache_pages.wgsl; out (rows, HEADS, WIDTH vec4).
// One workgroup per row and head, heads in z: a row's result depends on no other row. It takes tiles of 4 LANES keys:
// first each lane scores 4 keys, then each lane sums one column of their values, or several in turn. A head narrower
// than the lanes has several lanes for a column: each of the SLICES takes its share of the keys.

override HEADS: u32;
override GROUP_HEADS: u32; // query heads that share a key/value head
override WIDTH: u32; // vec4 of a head
override Q_STRIDE: u32;
override KV_STRIDE: u32;
override K_OFFSET: u32;
override V_OFFSET: u32;
override SCALE: f32;
override SLICES: u32; // divides LANES
override COLUMNS: u32 = LANES / SLICES; // at least WIDTH where there is more than one slice
override SUMS: u32 = SLICES * WIDTH;

@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read> packing: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> q: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read_write> out: array<vec4<f32>>;

const LOWEST = -1e30; // score of a key past the last: finite, so that the difference of two is a number
const NEXT_4 = vec4<u32>(0u, 1u, 2u, 3u);

var<workgroup> sums: array<vec4<f32>, SUMS>; // weighted values by slice and column, each touched by one lane

@compute @workgroup_size(LANES)
fn forward(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let row = group.x + group.y * groups.x;
  if (row >= rows[0]) {
    return;
  }
  let lane = local.x;
  let head = group.z;
  let q_place = row * Q_STRIDE + head * WIDTH;
  let k_column = K_OFFSET + head / GROUP_HEADS * WIDTH;
  let v_column = V_OFFSET + head / GROUP_HEADS * WIDTH;
  let table = packing[row].z;
  let last = packing[row].w;
  let slice = lane / COLUMNS;

  var largest = LOWEST;
  var total = 0.0; // of the weights of the lane's own keys
  for (var first = 0u; first <= last; first += 4u * LANES) {
    let key = first + 4u * lane;
    let products = query_products(q_place, lane, four_rows(table, key, last) * KV_STRIDE + k_column);
    let scores = select(vec4<f32>(LOWEST), SCALE * products, key + NEXT_4 <= vec4<u32>(last));
    let next = max(largest, row_max(local, max(max(scores.x, scores.y), max(scores.z, scores.w))));
    let shrink = exp(largest - next);
    let own = exp(scores - next);
    largest = next;
    total = total * shrink + dot(own, vec4<f32>(1.0));
    share_weights(lane, own);

    let filled = min(LANES, (last - first) / 4u + 1u); // lanes whose keys are not all past the last
    for (var block = 0u; block < WIDTH; block += COLUMNS) {
      let c = block + lane % COLUMNS;
      var sum = vec4<f32>();
      for (var i = 0u; i < filled; i += SLICES) {
        let other = i + slice; // all lanes take every turn, because they exchange; spare weights are 0
        let place = four_rows(table, first + 4u * other, last) * KV_STRIDE + (v_column + min(c, WIDTH - 1u));
        sum += kv_tile(place) * weights_of(other, own);
      }
      if (c < WIDTH) {
        sums[slice * WIDTH + c] = sums[slice * WIDTH + c] * shrink + sum;
      }
    }
  }

  let inverse = 1.0 / row_sum(local, total);
  workgroupBarrier();
  for (var c = lane; c < WIDTH; c += LANES) {
    var sum = sums[c];
    for (var i = 1u; i < SLICES; i++) {
      sum += sums[i * WIDTH + c];
    }
    out[(row * HEADS + head) * WIDTH + c] = sum * inverse;
  }
}

// Rows of the pool that hold the keys first to first + 3, which one page holds; past the last key some other one's.
fn four_rows(table: u32, first: u32, last: u32) -> vec4<u32> {
  let start = min(first, last - last % 4u);
  return key_row(table, start) + min(NEXT_4, vec4<u32>(last - start));
}

// dot(q, k) for four keys.
fn query_products(q_place: u32, lane: u32, k_place: vec4<u32>) -> vec4<f32> {
  var products = vec4<f32>();
  for (var block = 0u; block < WIDTH; block += 8u) {
    let part = query_part(q_place + block, lane);
    for (var i = 0u; i < min(8u, WIDTH - block); i++) {
      products += query_column(part, q_place + block, i) * kv_tile(k_place + (block + i));
    }
  }
  return products;
}

fn kv_tile(place: vec4<u32>) -> mat4x4<f32> {
  return mat4x4<f32>(kv_at(place.x), kv_at(place.y), kv_at(place.z), kv_at(place.w));
}
