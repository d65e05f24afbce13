// out = v W^T (+ residual) for few rows, bound by the reading of weights; tensors in vector_rows.wgsl.
// For software adapters with subgroups of 8 (lavapipe): a workgroup of 8 lanes makes 32 columns, a lane 4 of its own.
// Tiles of rows in x and y, of columns in z. One turn adds 32 depths: a lane reads an eighth of each row of x, which is
// passed round by shuffles, so that 32 of 33 reads are of weights. Such a read costs some 80 cycles (it loops over the
// lanes), a shuffle one instruction. Measured at (49152, 576) on two cores: 10 GB/s for one row, 8 for four;
// lanes that split the depth as on hardware reach 5 and 3, because all their sums are loaded and stored each turn.

// The values of x that `lane` has read: a column per depth.
fn exchange(values: mat4x4<f32>, lane: u32) -> mat4x4<f32> {
  return transpose(mat4x4<f32>(subgroupShuffle(values[0], lane), subgroupShuffle(values[1], lane),
    subgroupShuffle(values[2], lane), subgroupShuffle(values[3], lane)));
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
    let values = read_rows(row, k + local.x);
    sums = add_depths(sums, places + k, exchange(values, 0u));
    sums = add_depths(sums, places + (k + 1u), exchange(values, 1u));
    sums = add_depths(sums, places + (k + 2u), exchange(values, 2u));
    sums = add_depths(sums, places + (k + 3u), exchange(values, 3u));
    sums = add_depths(sums, places + (k + 4u), exchange(values, 4u));
    sums = add_depths(sums, places + (k + 5u), exchange(values, 5u));
    sums = add_depths(sums, places + (k + 6u), exchange(values, 6u));
    sums = add_depths(sums, places + (k + 7u), exchange(values, 7u));
  }
  for (var k = even; k < width; k++) {
    sums = add_depths(sums, places + k, transpose(read_rows(row, k)));
  }
  let results = sums; // the copy may be indexed freely: sums stays in registers
  for (var r = 0u; r < ROWS; r++) {
    for (var c = 0u; c < 4u; c++) {
      write(row + r, column[c], results[c][r]);
    }
  }
}
