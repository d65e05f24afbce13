// out = v W^T (+ residual) for few rows, bound by the reading of weights; tensors in matmul_vector_tile.wgsl.
// For software adapters with subgroups of 8 (lavapipe): a workgroup of 8 lanes makes 32 columns, a lane 4 of its own.
// Tiles of rows in x and y, of columns in z. One turn adds 32 depths: a lane reads an eighth of each row of x, which is
// passed round by shuffles, so that 32 of 33 reads are of weights. Such a read costs some 80 cycles (it loops over the
// lanes), a shuffle one instruction. Measured at (49152, 576) on two cores: 10 GB/s for one row, 8 for four;
// lanes that split the depth as on hardware reach 5 and 3, because all their sums are loaded and stored each turn.

struct Turn { values: mat4x4<f32> } // a column per row: the lane's quad of each

// Quad `lane` of the turn: a column per depth.
fn turn_values(turn: Turn, lane: u32) -> mat4x4<f32> {
  let values = turn.values;
  return transpose(mat4x4<f32>(subgroupShuffle(values[0], lane), subgroupShuffle(values[1], lane),
    subgroupShuffle(values[2], lane), subgroupShuffle(values[3], lane)));
}

// sums + the packet that begins with quad `first` of the turn, if one does.
fn add_from(sums: mat4x4<f32>, place: vec4<u32>, turn: Turn, first: u32) -> mat4x4<f32> {
  if (first % QUADS != 0u) {
    return sums;
  }
  return add_packet(sums, read_packets(place + first / QUADS), turn, first);
}

@compute @workgroup_size(8)
fn product(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let row = (group.x + group.y * groups.x) * ROWS;
  if (row >= rows[0]) {
    return;
  }
  let column = group.z * 32u + local.x + vec4<u32>(0u, 8u, 16u, 24u);
  let places = column_places(column);
  // Lavapipe compiles a kernel anew for each value of a uniform that bounds a short loop: 2 ms and 600 KiB a dispatch. A
  // bound that also depends on a buffer (of fewer than 2^31 rows) is left alone.
  let width = (settings.depth | (rows[0] >> 31u)) / 4u;
  if (INPUT == NORMED) {
    rrms = rrms_of(subgroupAdd(squares_of_lane(row, local.x, 8u, width)));
  }
  let even = width / 8u * 8u;
  var sums = mat4x4<f32>();
  for (var k = 0u; k < even; k += 8u) {
    let turn = Turn(read_rows(row, k + local.x));
    let place = places + (settings.scale_packets + k / QUADS);
    var added = sums;
    if (has_scales()) {
      added = mat4x4<f32>();
    }
    added = add_from(added, place, turn, 0u);
    added = add_from(added, place, turn, 1u);
    added = add_from(added, place, turn, 2u);
    added = add_from(added, place, turn, 3u);
    added = add_from(added, place, turn, 4u);
    added = add_from(added, place, turn, 5u);
    added = add_from(added, place, turn, 6u);
    added = add_from(added, place, turn, 7u);
    if (has_scales()) {
      added = add_block(sums, added, places, k / 8u);
    }
    sums = added;
  }
  for (var k = even; k < width; k++) { // f32 alone has rows that are not whole blocks
    sums = add_quad(sums, read_packets(places + k), 0u, transpose(read_rows(row, k)));
  }
  let results = sums; // the copy may be indexed freely: sums stays in registers
  for (var r = 0u; r < ROWS; r++) {
    for (var c = 0u; c < 4u; c++) {
      write(row + r, column[c], results[c][r]);
    }
  }
}
