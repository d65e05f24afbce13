// out = v W^T (+ residual) for few rows, bound by the reading of weights; tensors in vector_rows.wgsl.
// For hardware, and right everywhere: LANES lanes share a tile of 4 columns and read neighbouring depths; TILES tiles a
// workgroup. Tiles of rows in x and y, of columns in z.

override LANES: u32; // a power of 2, at least 16
override TILES: u32;
override INVOCATIONS: u32 = LANES * TILES;

var<workgroup> partial: array<mat4x4<f32>, INVOCATIONS>;
var<workgroup> squares: array<vec4<f32>, INVOCATIONS>;

// Over the lanes of a tile, each for itself. All invocations of the workgroup must call it.
fn sum_of_squares(first: u32, local: vec3<u32>) -> vec4<f32> {
  let own = local.y * LANES + local.x;
  squares[own] = squares_of_lane(first, local.x, LANES, settings.depth / 4u);
  for (var stride = LANES / 2u; stride > 0u; stride /= 2u) {
    workgroupBarrier();
    if (local.x < stride) {
      squares[own] += squares[own + stride];
    }
  }
  workgroupBarrier();
  return squares[local.y * LANES];
}

@compute @workgroup_size(LANES, TILES)
fn product(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let row = (group.x + group.y * groups.x) * ROWS;
  if (row >= rows[0]) {
    return;
  }
  let column = (group.z * TILES + local.y) * 4u + vec4<u32>(0u, 1u, 2u, 3u);
  let places = column_places(column);
  if (INPUT == NORMED) {
    rrms = rrms_of(sum_of_squares(row, local));
  }
  var sums = mat4x4<f32>();
  for (var k = local.x; k < settings.depth / 4u; k += LANES) {
    sums = add_depths(sums, places + k, transpose(read_rows(row, k)));
  }
  let first = local.y * LANES;
  let own = first + local.x;
  partial[own] = sums;
  for (var stride = LANES / 2u; stride > 0u; stride /= 2u) {
    workgroupBarrier();
    if (local.x < stride) {
      partial[own] = partial[own] + partial[own + stride];
    }
  }
  workgroupBarrier();
  let r = local.x / 4u;
  let c = local.x % 4u;
  if (r < ROWS) {
    write(row + r, column[c], partial[first][c][r]);
  }
}
