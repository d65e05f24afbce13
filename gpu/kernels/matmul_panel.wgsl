// out = v W^T (+ residual) for few rows and packed weights; tensors in vector_rows.wgsl, layout in gpu/packed_matrix.ts.
// For hardware, and right everywhere: 32 lanes own the 32 columns of a panel and read neighbouring packets; the SLICES of a
// workgroup share its blocks. Tiles of rows in x and y, panels in z.

const LANES = 32u;
override SLICES: u32;

@group(0) @binding(2) var<storage, read> weight: array<vec4<u32>>;

var<workgroup> values: array<array<mat4x4<f32>, 8>, SLICES>; // [slice][quad]: a column per depth of the slice's block
var<workgroup> partial: array<array<vec4<f32>, LANES>, SLICES>;

fn sum_of_squares(first: u32, local: vec3<u32>) -> vec4<f32> {
  partial[local.y][local.x] = squares_of_lane(first, local.y * LANES + local.x, LANES * SLICES, settings.depth / 4u);
  workgroupBarrier();
  var sum = vec4<f32>();
  for (var i = 0u; i < LANES * SLICES; i++) {
    sum += partial[i / LANES][i % LANES];
  }
  workgroupBarrier();
  return sum;
}

// The lane's column of the slice's block.
fn block_product(place: u32, local: vec3<u32>) -> vec4<f32> {
  var sum = vec4<f32>();
  for (var p = 0u; p < row_packets(); p++) {
    let packet = weight[place + p * PANEL_ROWS + local.x];
    for (var i = 0u; i < packet_quads(); i++) {
      sum = add_column(sum, packet_quad(packet, i), values[local.y][p * packet_quads() + i]);
    }
  }
  if (FORMAT == F16) {
    return sum;
  }
  let at = local.x % 8u * 4u + local.x / 8u;
  let scales = weight[place + row_packets() * PANEL_ROWS + at / 8u][at / 2u % 4u];
  return unpack2x16float(scales >> (16u * (at % 2u))).x * sum;
}

@compute @workgroup_size(LANES, SLICES)
fn product(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let row = (group.x + group.y * groups.x) * ROWS;
  if (row >= rows[0]) {
    return;
  }
  if (INPUT == NORMED) {
    rrms = rrms_of(sum_of_squares(row, local));
  }
  let blocks = settings.depth / 32u;
  var sum = vec4<f32>();
  for (var first = 0u; first < blocks; first += SLICES) {
    let block = first + local.y;
    if (local.x < 8u && block < blocks) {
      values[local.y][local.x] = transpose(read_rows(row, block * 8u + local.x));
    }
    workgroupBarrier();
    if (block < blocks) {
      sum += block_product((group.z * blocks + block) * block_packets(), local);
    }
    workgroupBarrier();
  }
  partial[local.y][local.x] = sum;
  workgroupBarrier();
  if (local.y == 0u) {
    var total = partial[0][local.x];
    for (var i = 1u; i < SLICES; i++) {
      total += partial[i][local.x];
    }
    for (var r = 0u; r < ROWS; r++) {
      write(row + r, group.z * PANEL_ROWS + local.x, total[r]);
    }
  }
}
