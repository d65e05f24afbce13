// p_ij = exp(s_ij - log_sum_exp_i),  delta_i = dot(grad_out_i, out_i)                (Dao et al. 2022, appendix B.4)
// grad_s_ij = SCALE * p_ij * (dot(grad_out_i, v_j) - delta_i)
// grad_q_i = sum over j of grad_s_ij * k_j,  grad_k_j = sum over i of grad_s_ij * q_i
// grad_v_j = sum over i of p_ij * grad_out_i, both also over the query heads that share the key/value head
// out, grad_out (rows, HEADS, WIDTH vec4); log_sum_exp, delta (rows, HEADS); grad_q like q, grad_kv like kv.
// backward_delta: one invocation per row and head. backward_queries: one per 4 rows of a head, 8 keys a turn.
// backward_keys: one per 4 rows of a key/value head, 8 queries a turn. Heads in z.

@group(0) @binding(5) var<storage, read> out: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read> log_sum_exp: array<f32>;
@group(0) @binding(7) var<storage, read_write> delta: array<f32>;
@group(0) @binding(8) var<storage, read_write> grad_q: array<vec4<f32>>;
@group(0) @binding(9) var<storage, read_write> grad_kv: array<vec4<f32>>;

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
  let is_row = first_row <= last_row; // the others take part, because their neighbours need them, and store nothing
  let first_key = packing[block].z + settings.first;
  let end_key = min(first_key + settings.count, min(block + BLOCK_ROWS, rows[0]));
  let start = vec4<u32>(packing[row.x].z, packing[row.y].z, packing[row.z].z, packing[row.w].z);
  let q_place = row * Q_STRIDE + head * WIDTH;
  let out_place = (row * HEADS + head) * WIDTH;
  let shift = log_sum_exps(row * HEADS + head);
  let offset = deltas(row * HEADS + head);
  let k_column = K_OFFSET + head / GROUP_HEADS * WIDTH;
  let v_column = V_OFFSET + head / GROUP_HEADS * WIDTH;
  if (settings.first == 0u && is_row) {
    for (var c = 0u; c < WIDTH; c++) {
      store_grad_q(q_place + c, mat4x4<f32>());
    }
  }

  for (var key = first_key; key < end_key; key += 8u) {
    let keys = eight_rows(key, last_row, local % 8u);
    // Column r: row r and the keys.
    var near_s = mat4x4<f32>();
    var far_s = mat4x4<f32>();
    for (var c = 0u; c < WIDTH; c++) {
      let queries = q_tile(q_place + c);
      let k = load_kv(keys, k_column + c);
      near_s += transpose(k.near) * queries;
      far_s += transpose(k.far) * queries;
    }
    var near_g = mat4x4<f32>();
    var far_g = mat4x4<f32>();
    for (var c = 0u; c < WIDTH; c++) {
      let gradients = grad_out_tile(out_place + c);
      let v = load_kv(keys, v_column + c);
      near_g += transpose(v.near) * gradients;
      far_g += transpose(v.far) * gradients;
    }
    let near_p = exp_columns(mask_columns(near_s, key + NEXT_4, start, row), shift);
    let far_p = exp_columns(mask_columns(far_s, key + 4u + NEXT_4, start, row), shift);
    near_g = grad_scores(near_p, near_g, offset);
    far_g = grad_scores(far_p, far_g, offset);
    for (var c = 0u; c < WIDTH; c++) {
      let k = load_kv(keys, k_column + c);
      let added = k.near * near_g + k.far * far_g;
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
  if (block >= rows[0]) {
    return;
  }
  let last_row = rows[0] - 1u;
  let row = min(first_row + NEXT_4, vec4<u32>(last_row));
  let is_row = first_row <= last_row;
  let first_query = block + settings.first;
  let end_query = min(first_query + settings.count, packing[min(block + BLOCK_ROWS - 1u, last_row)].w);
  let last = vec4<u32>(packing[row.x].w, packing[row.y].w, packing[row.z].w, packing[row.w].w) - 1u;
  let k_place = row * KV_STRIDE + (K_OFFSET + group.z * WIDTH);
  let v_place = row * KV_STRIDE + (V_OFFSET + group.z * WIDTH);
  if (settings.first == 0u && is_row) {
    for (var c = 0u; c < WIDTH; c++) {
      store_grad_kv(k_place + c, mat4x4<f32>());
      store_grad_kv(v_place + c, mat4x4<f32>());
    }
  }

  for (var head = group.z * GROUP_HEADS; head < (group.z + 1u) * GROUP_HEADS; head++) {
    for (var query = first_query; query < end_query; query += 8u) {
      let queries = eight_rows(query, last_row, local % 8u);
      let near = query + NEXT_4;
      let far = near + 4u;
      let near_row = min(near, vec4<u32>(last_row)) * HEADS + head;
      let far_row = min(far, vec4<u32>(last_row)) * HEADS + head;
      let column = head * WIDTH;
      // Column r: key row r and the queries.
      var near_s = mat4x4<f32>();
      var far_s = mat4x4<f32>();
      for (var c = 0u; c < WIDTH; c++) {
        let keys = kv_tile(k_place + c);
        let q_tiles = load_q(queries, column + c);
        near_s += transpose(q_tiles.near) * keys;
        far_s += transpose(q_tiles.far) * keys;
      }
      var near_g = mat4x4<f32>();
      var far_g = mat4x4<f32>();
      for (var c = 0u; c < WIDTH; c++) {
        let values = kv_tile(v_place + c);
        let gradients = load_grad_out(queries, column + c);
        near_g += transpose(gradients.near) * values;
        far_g += transpose(gradients.far) * values;
      }
      let near_p = exp_rows(mask_columns(near_s, near, row, last), log_sum_exps(near_row));
      let far_p = exp_rows(mask_columns(far_s, far, row, last), log_sum_exps(far_row));
      near_g = grad_scores_of_rows(near_p, near_g, deltas(near_row));
      far_g = grad_scores_of_rows(far_p, far_g, deltas(far_row));
      for (var c = 0u; c < WIDTH; c++) {
        let q_tiles = load_q(queries, column + c);
        let added = q_tiles.near * near_g + q_tiles.far * far_g;
        if (is_row) {
          store_grad_kv(k_place + c, grad_kv_tile(k_place + c) + added);
        }
      }
      for (var c = 0u; c < WIDTH; c++) {
        let gradients = load_grad_out(queries, column + c);
        let added = gradients.near * near_p + gradients.far * far_p;
        if (is_row) {
          store_grad_kv(v_place + c, grad_kv_tile(v_place + c) + added);
        }
      }
    }
  }
}

fn log_sum_exps(place: vec4<u32>) -> vec4<f32> {
  return vec4<f32>(log_sum_exp[place.x], log_sum_exp[place.y], log_sum_exp[place.z], log_sum_exp[place.w]);
}

fn deltas(place: vec4<u32>) -> vec4<f32> {
  return vec4<f32>(delta[place.x], delta[place.y], delta[place.z], delta[place.w]);
}

fn q_tile(place: vec4<u32>) -> mat4x4<f32> {
  return mat4x4<f32>(q[place.x], q[place.y], q[place.z], q[place.w]);
}

fn kv_tile(place: vec4<u32>) -> mat4x4<f32> {
  return mat4x4<f32>(kv[place.x], kv[place.y], kv[place.z], kv[place.w]);
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

// Column r belongs to query r, whose delta is offset[r].
fn grad_scores(p: mat4x4<f32>, products: mat4x4<f32>, offset: vec4<f32>) -> mat4x4<f32> {
  return mat4x4<f32>(
    p[0] * (products[0] - offset.x) * SCALE,
    p[1] * (products[1] - offset.y) * SCALE,
    p[2] * (products[2] - offset.z) * SCALE,
    p[3] * (products[3] - offset.w) * SCALE,
  );
}

// Entry r of each column belongs to query r, whose delta is offset[r].
fn grad_scores_of_rows(p: mat4x4<f32>, products: mat4x4<f32>, offset: vec4<f32>) -> mat4x4<f32> {
  return mat4x4<f32>(
    p[0] * (products[0] - offset) * SCALE,
    p[1] * (products[1] - offset) * SCALE,
    p[2] * (products[2] - offset) * SCALE,
    p[3] * (products[3] - offset) * SCALE,
  );
}

fn exp_rows(tile: mat4x4<f32>, shift: vec4<f32>) -> mat4x4<f32> {
  return mat4x4<f32>(exp(tile[0] - shift), exp(tile[1] - shift), exp(tile[2] - shift), exp(tile[3] - shift));
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
