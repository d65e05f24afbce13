// p_ij = exp(s_ij - log_sum_exp_i),  delta_i = dot(grad_out_i, out_i)                (Dao et al. 2022, appendix B.4)
// grad_s_ij = SCALE * p_ij * (dot(grad_out_i, v_j) - delta_i),  grad_q_i = sum over j of grad_s_ij * k_j
// grad_k_j = sum over i of grad_s_ij * q_i,  grad_v_j = sum over i of p_ij * grad_out_i, both also over the query
// heads that share the key/value head
// out, grad_out (rows, HEADS, WIDTH vec4); log_sum_exp, delta (rows, HEADS); grad_q like q, grad_kv like kv. No cached keys.
// backward_delta: one invocation per row and head. backward_queries: one per 4 rows of a head, TURN keys a turn.
// backward_keys: one per 4 rows of a key/value head, TURN queries a turn. Heads in z. Sums stay in grad_q and grad_kv.

@group(0) @binding(5) var<storage, read> out: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> log_sum_exp: array<f32>;
@group(0) @binding(7) var<storage, read_write> delta: array<f32>;
@group(0) @binding(8) var<storage, read_write> grad_q: array<vec4<f32>>;
@group(0) @binding(9) var<storage, read_write> grad_kv: array<vec4<f32>>;

override KEY_ROWS: u32 = 0u; // with STATE_KEYS: rows of the state,
override SEQUENCE: u32 = 1u; // and of one sequence
override ACCUMULATE_KV: bool = false; // add to grad_kv instead of overwriting it

// The queries that see a key row are first_query to end_query - 1.
fn first_query(key: u32) -> u32 {
  if (KEYS == STATE_KEYS) {
    return packed_rows_before(key);
  }
  return key;
}

fn end_query(key: u32) -> u32 {
  if (KEYS == STATE_KEYS) {
    return packed_rows_before((key / SEQUENCE + 1u) * SEQUENCE);
  }
  return packing[key].w;
}

// How many packed rows stand for rows of the state before this one: packed rows ascend there.
fn packed_rows_before(state_row: u32) -> u32 {
  var low = 0u;
  var high = rows[0];
  while (low < high) {
    let middle = (low + high) / 2u;
    if (packing[middle].x < state_row) {
      low = middle + 1u;
    } else {
      high = middle;
    }
  }
  return low;
}

@compute @workgroup_size(LANES)
fn backward_delta(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let i = (group.x + group.y * groups.x) * LANES + local;
  if (i >= rows[0] * HEADS) {
    return;
  }
  var sum = 0.0;
  for (var c = i * WIDTH; c < (i + 1u) * WIDTH; c++) {
    sum += dot(grad_out[c], out[c]);
  }
  delta[i] = sum;
}

@compute @workgroup_size(LANES)
fn backward_queries(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let first_row = ((group.x + group.y * groups.x) * LANES + local) * 4u;
  let block = first_row / BLOCK_ROWS * BLOCK_ROWS;
  if (block >= rows[0]) {
    return;
  }
  let head = group.z;
  let last_row = rows[0] - 1u;
  let row = min(first_row + NEXT_4, vec4<u32>(last_row)); // past the end: the last row again, with the same result
  let is_row = first_row <= last_row; // the others only load for their neighbours
  let block_first = first_key(block) + settings.first;
  let block_end = end_key(min(block + BLOCK_ROWS - 1u, last_row));
  let window_end = min(block_first + settings.count, block_end);
  let first = first_keys(row);
  let end = end_keys(row);
  let shift = load_log_sum_exp(row * HEADS + head);
  let row_delta = load_delta(row * HEADS + head);
  let q_place = row * Q_STRIDE + head * WIDTH;
  let out_place = (row * HEADS + head) * WIDTH;
  let k_column = K_OFFSET + head / GROUP_HEADS * WIDTH;
  let v_column = V_OFFSET + head / GROUP_HEADS * WIDTH;
  if (settings.first == 0u && is_row) {
    for (var c = 0u; c < WIDTH; c++) {
      store_grad_q(q_place + c, mat4x4<f32>());
    }
  }

  for (var key = block_first; key < window_end; key += TURN) {
    let keys = others_from(0u, key, block_end, local % 8u);
    var products = Turn();
    for (var c = 0u; c < WIDTH; c++) {
      products = add_products(products, load_kv(keys, k_column + c), q_tile(q_place + c));
    }
    var grad_p = Turn();
    for (var c = 0u; c < WIDTH; c++) {
      grad_p = add_products(grad_p, load_kv(keys, v_column + c), grad_out_tile(out_place + c));
    }
    let scores = mask_scores(products, key, first, end);
    let grad_scores = key_gradients(exp_scores(scores, shift), grad_p, row_delta);
    for (var c = 0u; c < WIDTH; c++) {
      let added = weighted_sum(load_kv(keys, k_column + c), grad_scores);
      if (is_row) {
        store_grad_q(q_place + c, grad_q_tile(q_place + c) + added);
      }
    }
  }
}

@compute @workgroup_size(LANES)
fn backward_keys(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) local: u32,
) {
  let first_row = ((group.x + group.y * groups.x) * LANES + local) * 4u;
  let block = first_row / BLOCK_ROWS * BLOCK_ROWS;
  let count = select(rows[0], KEY_ROWS, KEYS == STATE_KEYS);
  if (block >= count) {
    return;
  }
  let row = min(first_row + NEXT_4, vec4<u32>(count - 1u));
  let is_row = first_row < count;
  let block_first = first_query(block) + settings.first;
  let block_end = end_query(min(block + BLOCK_ROWS - 1u, count - 1u));
  let window_end = min(block_first + settings.count, block_end);
  let first = vec4<u32>(first_query(row.x), first_query(row.y), first_query(row.z), first_query(row.w));
  let end = vec4<u32>(end_query(row.x), end_query(row.y), end_query(row.z), end_query(row.w));
  let k_place = row * KV_STRIDE + (K_OFFSET + group.z * WIDTH);
  let v_place = row * KV_STRIDE + (V_OFFSET + group.z * WIDTH);
  if (settings.first == 0u && !ACCUMULATE_KV && is_row) {
    for (var c = 0u; c < WIDTH; c++) {
      store_grad_kv(k_place + c, mat4x4<f32>());
      store_grad_kv(v_place + c, mat4x4<f32>());
    }
  }

  for (var head = group.z * GROUP_HEADS; head < (group.z + 1u) * GROUP_HEADS; head++) {
    let column = head * WIDTH;
    for (var query = block_first; query < window_end; query += TURN) {
      let queries = others_from(0u, query, block_end, local % 8u);
      var products = Turn();
      for (var c = 0u; c < WIDTH; c++) {
        products = add_products(products, load_q(queries, column + c), kv_tile(k_place + c));
      }
      var grad_p = Turn();
      for (var c = 0u; c < WIDTH; c++) {
        grad_p = add_products(grad_p, load_grad_out(queries, column + c), kv_tile(v_place + c));
      }
      let scores = mask_scores(products, query, first, end);
      let of_queries = QueryRows(query, block_end - 1u, head);
      let p = query_weights(scores, of_queries);
      let grad_scores = query_gradients(p, grad_p, of_queries);
      for (var c = 0u; c < WIDTH; c++) {
        let added_k = weighted_sum(load_q(queries, column + c), grad_scores);
        let added_v = weighted_sum(load_grad_out(queries, column + c), p);
        if (is_row) {
          store_grad_kv(k_place + c, grad_kv_tile(k_place + c) + added_k);
          store_grad_kv(v_place + c, grad_kv_tile(v_place + c) + added_v);
        }
      }
    }
  }
}

// Gradients of the scores of keys, whose weights are p: an own row has one delta.
fn tiles_key_gradients(p: Tiles, grad_p: Tiles, delta: vec4<f32>) -> Tiles {
  let deltas = transpose(four_columns(delta));
  return Tiles(
    SCALE * multiply_entries(p.near, grad_p.near - deltas),
    SCALE * multiply_entries(p.far, grad_p.far - deltas),
  );
}

// Queries of a head from a row on; past the last one it is the last one.
struct QueryRows {
  first: u32,
  last: u32,
  head: u32,
}

fn later(queries: QueryRows, by: u32) -> QueryRows {
  return QueryRows(queries.first + by, queries.last, queries.head);
}

fn four_places(queries: QueryRows) -> vec4<u32> {
  return min(queries.first + NEXT_4, vec4<u32>(queries.last)) * HEADS + queries.head;
}

// Weights of the own keys for eight queries, each of which has its own log-sum-exp.
fn tiles_query_weights(scores: Tiles, queries: QueryRows) -> Tiles {
  return Tiles(
    exp_entries(scores.near - four_columns(load_log_sum_exp(four_places(queries)))),
    exp_entries(scores.far - four_columns(load_log_sum_exp(four_places(later(queries, 4u))))),
  );
}

// Gradients of the scores of eight queries, whose weights are p: each has its own delta.
fn tiles_query_gradients(p: Tiles, grad_p: Tiles, queries: QueryRows) -> Tiles {
  return Tiles(
    SCALE * multiply_entries(p.near, grad_p.near - four_columns(load_delta(four_places(queries)))),
    SCALE * multiply_entries(p.far, grad_p.far - four_columns(load_delta(four_places(later(queries, 4u))))),
  );
}

fn four_columns(column: vec4<f32>) -> mat4x4<f32> {
  return mat4x4<f32>(column, column, column, column);
}

fn multiply_entries(a: mat4x4<f32>, b: mat4x4<f32>) -> mat4x4<f32> {
  return mat4x4<f32>(a[0] * b[0], a[1] * b[1], a[2] * b[2], a[3] * b[3]);
}

fn exp_entries(a: mat4x4<f32>) -> mat4x4<f32> {
  return mat4x4<f32>(exp(a[0]), exp(a[1]), exp(a[2]), exp(a[3]));
}

fn load_log_sum_exp(place: vec4<u32>) -> vec4<f32> {
  return vec4<f32>(log_sum_exp[place.x], log_sum_exp[place.y], log_sum_exp[place.z], log_sum_exp[place.w]);
}

fn load_delta(place: vec4<u32>) -> vec4<f32> {
  return vec4<f32>(delta[place.x], delta[place.y], delta[place.z], delta[place.w]);
}

fn grad_out_tile(place: vec4<u32>) -> mat4x4<f32> {
  return mat4x4<f32>(grad_out[place.x], grad_out[place.y], grad_out[place.z], grad_out[place.w]);
}

fn grad_q_tile(place: vec4<u32>) -> mat4x4<f32> {
  return mat4x4<f32>(grad_q[place.x], grad_q[place.y], grad_q[place.z], grad_q[place.w]);
}

fn grad_kv_tile(place: vec4<u32>) -> mat4x4<f32> {
  return mat4x4<f32>(grad_kv[place.x], grad_kv[place.y], grad_kv[place.z], grad_kv[place.w]);
}

fn store_grad_q(place: vec4<u32>, tile: mat4x4<f32>) {
  grad_q[place.x] = tile[0];
  grad_q[place.y] = tile[1];
  grad_q[place.z] = tile[2];
  grad_q[place.w] = tile[3];
}

fn store_grad_kv(place: vec4<u32>, tile: mat4x4<f32>) {
  grad_kv[place.x] = tile[0];
  grad_kv[place.y] = tile[1];
  grad_kv[place.z] = tile[2];
  grad_kv[place.w] = tile[3];
}
