// s_ij = SCALE * dot(q_i, k_j) for start_i <= j <= i,  log_sum_exp_i = log(sum over j of exp(s_ij))
// out_i = sum over j of exp(s_ij - log_sum_exp_i) * v_j            (online softmax: Milakov & Gimelshein 2018, section 3)
// out (rows, HEADS, WIDTH vec4); log_sum_exp (rows, HEADS); the rest in attention_tile.wgsl.
// One invocation per 4 rows of a head, 8 keys a turn; heads in z. Sums live in `out`, which any head size fits.

@group(0) @binding(5) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(6) var<storage, read_write> log_sum_exp: array<f32>;

@compute @workgroup_size(LANES)
fn forward(
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
  if (first_key >= end_key) {
    return;
  }
  let start = vec4<u32>(packing[row.x].z, packing[row.y].z, packing[row.z].z, packing[row.w].z);
  let q_place = row * Q_STRIDE + head * WIDTH;
  let out_place = (row * HEADS + head) * WIDTH;
  let lse_place = row * HEADS + head;
  let k_column = K_OFFSET + head / GROUP_HEADS * WIDTH;
  let v_column = V_OFFSET + head / GROUP_HEADS * WIDTH;

  // The result of earlier keys is where later ones go on: largest score log_sum_exp, sum of exponentials 1.
  var largest = vec4<f32>(LOWEST);
  var total = vec4<f32>();
  if (settings.first > 0u) {
    largest = vec4<f32>(
      log_sum_exp[lse_place.x],
      log_sum_exp[lse_place.y],
      log_sum_exp[lse_place.z],
      log_sum_exp[lse_place.w],
    );
    total = vec4<f32>(1.0);
  } else if (is_row) {
    for (var c = 0u; c < WIDTH; c++) {
      store_out(out_place + c, mat4x4<f32>());
    }
  }

  for (var key = first_key; key < end_key; key += 8u) {
    let keys = eight_rows(key, last_row, local % 8u);
    // Column r: row r's products with the keys.
    var near_p = mat4x4<f32>();
    var far_p = mat4x4<f32>();
    for (var c = 0u; c < WIDTH; c++) {
      let place = q_place + c;
      let queries = mat4x4<f32>(q[place.x], q[place.y], q[place.z], q[place.w]);
      let k = load_kv(keys, k_column + c);
      near_p += transpose(k.near) * queries;
      far_p += transpose(k.far) * queries;
    }
    near_p = mask_columns(near_p, key + NEXT_4, start, row);
    far_p = mask_columns(far_p, key + 4u + NEXT_4, start, row);
    let next = max(largest, max(column_maxima(near_p), column_maxima(far_p)));
    // A row that has met no key yet must get exp(LOWEST - shift) = 0, so its shift stays far above LOWEST.
    let shift = max(next, vec4<f32>(0.5 * LOWEST));
    let shrink = exp(largest - shift);
    near_p = exp_columns(near_p, shift);
    far_p = exp_columns(far_p, shift);
    total = total * shrink + vec4<f32>(1.0) * (near_p + far_p);
    largest = next;
    for (var c = 0u; c < WIDTH; c++) {
      let v = load_kv(keys, v_column + c);
      let added = v.near * near_p + v.far * far_p;
      if (is_row) {
        store_out(out_place + c, scale_columns(load_out(out_place + c), shrink) + added);
      }
    }
  }

  if (!is_row) {
    return;
  }
  let inverse = select(vec4<f32>(), 1.0 / total, total > vec4<f32>());
  for (var c = 0u; c < WIDTH; c++) {
    store_out(out_place + c, scale_columns(load_out(out_place + c), inverse));
  }
  let result = largest + log(max(total, vec4<f32>(1e-30)));
  log_sum_exp[lse_place.x] = result.x;
  log_sum_exp[lse_place.y] = result.y;
  log_sum_exp[lse_place.z] = result.z;
  log_sum_exp[lse_place.w] = result.w;
}

fn column_maxima(tile: mat4x4<f32>) -> vec4<f32> {
  let rows_of = transpose(tile);
  return max(max(rows_of[0], rows_of[1]), max(rows_of[2], rows_of[3]));
}

fn load_out(place: vec4<u32>) -> mat4x4<f32> {
  return mat4x4<f32>(out[place.x], out[place.y], out[place.z], out[place.w]);
}

fn store_out(place: vec4<u32>, tile: mat4x4<f32>) {
  out[place.x] = tile[0];
  out[place.y] = tile[1];
  out[place.z] = tile[2];
  out[place.w] = tile[3];
}
