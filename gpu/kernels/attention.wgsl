// s_ij = SCALE * dot(q_i, k_j) for the keys j that row i sees,  log_sum_exp_i = log(sum over j of exp(s_ij))
// out_i = sum over j of exp(s_ij - log_sum_exp_i) * v_j          (online softmax: Milakov & Gimelshein 2018, section 3)
// out (rows, HEADS, WIDTH vec4); log_sum_exp (rows, HEADS); q, kv, packing in attention_tile.wgsl.
// One invocation per 4 rows of a head, TURN keys a turn; heads in z. Sums stay in `out`, so that any head size fits.

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
  let table = packing[block].z; // of all rows' keys where they are a cache's
  let last_row = rows[0] - 1u;
  let row = min(first_row + NEXT_4, vec4<u32>(last_row)); // past the end: the last row again, with the same result
  let is_row = first_row <= last_row; // the others only load for their neighbours
  let block_first = first_key(block) + settings.first;
  let block_end = end_key(min(block + BLOCK_ROWS - 1u, last_row));
  let window_end = min(block_first + settings.count, block_end);
  if (block_first >= window_end) {
    return;
  }
  let first = first_keys(row);
  let end = end_keys(row);
  let q_place = row * Q_STRIDE + head * WIDTH;
  let out_place = (row * HEADS + head) * WIDTH;
  let k_column = K_OFFSET + head / GROUP_HEADS * WIDTH;
  let v_column = V_OFFSET + head / GROUP_HEADS * WIDTH;

  // The result of earlier keys is where later ones go on: largest score log_sum_exp, sum of exponentials 1.
  var largest = vec4<f32>(LOWEST);
  var total = vec4<f32>();
  if (settings.first > 0u) {
    largest = load_log_sum_exp(row * HEADS + head);
    total = vec4<f32>(1.0);
  } else if (is_row) {
    for (var c = 0u; c < WIDTH; c++) {
      store_out(out_place + c, mat4x4<f32>());
    }
  }

  for (var key = block_first; key < window_end; key += TURN) {
    let keys = others_from(table, key, block_end, local % 8u);
    var products = Turn();
    for (var c = 0u; c < WIDTH; c++) {
      products = add_products(products, load_kv(keys, k_column + c), q_tile(q_place + c));
    }
    let scores = mask_scores(products, key, first, end);
    let next = max(largest, maxima(scores));
    // For a row that has met no key yet, exp(LOWEST - shift) must be 0: its shift stays far above LOWEST.
    let shift = max(next, vec4<f32>(0.5 * LOWEST));
    let shrink = exp(largest - shift);
    let p = exp_scores(scores, shift);
    total = total * shrink + total_of(p);
    largest = next;
    for (var c = 0u; c < WIDTH; c++) {
      let added = weighted_sum(load_kv(keys, v_column + c), p);
      if (is_row) {
        store_out(out_place + c, multiply_columns(load_out(out_place + c), shrink) + added);
      }
    }
  }

  if (is_row) {
    let inverse = select(vec4<f32>(), 1.0 / total, total > vec4<f32>());
    for (var c = 0u; c < WIDTH; c++) {
      store_out(out_place + c, multiply_columns(load_out(out_place + c), inverse));
    }
    store_log_sum_exp(row * HEADS + head, largest + log(max(total, vec4<f32>(1e-30))));
  }
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

fn load_log_sum_exp(place: vec4<u32>) -> vec4<f32> {
  return vec4<f32>(log_sum_exp[place.x], log_sum_exp[place.y], log_sum_exp[place.z], log_sum_exp[place.w]);
}

fn store_log_sum_exp(place: vec4<u32>, values: vec4<f32>) {
  log_sum_exp[place.x] = values.x;
  log_sum_exp[place.y] = values.y;
  log_sum_exp[place.z] = values.z;
  log_sum_exp[place.w] = values.w;
}
