// out = v W^T (+ residual) for few rows and packed weights; tensors in vector_rows.wgsl, layout in gpu/packed_matrix.ts.
// For software adapters with subgroups of 8 (lavapipe): a workgroup of 8 lanes makes the 32 columns of a panel, a lane 4 of
// its own. Tiles of rows in x and y, panels in z. One turn adds a block of 32 depths: a lane reads an eighth of each row of
// x, which is passed round by shuffles.

@group(0) @binding(2) var<storage, read> weight: array<vec4<u32>>;

// Quad `lane` of the turn: a column per depth, of the values that the lanes have read: a column per row.
fn exchange(values: mat4x4<f32>, lane: u32) -> mat4x4<f32> {
  return transpose(mat4x4<f32>(subgroupShuffle(values[0], lane), subgroupShuffle(values[1], lane),
    subgroupShuffle(values[2], lane), subgroupShuffle(values[3], lane)));
}

// A packet of each of the lane's four columns.
struct Packets { x: vec4<u32>, y: vec4<u32>, z: vec4<u32>, w: vec4<u32> }

fn read_packets(place: u32) -> Packets {
  return Packets(weight[place], weight[place + 8u], weight[place + 16u], weight[place + 24u]);
}

// sums + quad i of each column's packet.
fn add_quad(sums: mat4x4<f32>, packets: Packets, i: u32, values: mat4x4<f32>) -> mat4x4<f32> {
  return mat4x4<f32>(
    add_column(sums[0], packet_quad(packets.x, i), values),
    add_column(sums[1], packet_quad(packets.y, i), values),
    add_column(sums[2], packet_quad(packets.z, i), values),
    add_column(sums[3], packet_quad(packets.w, i), values),
  );
}

// sums + packet p of the block at `place`, without its scales.
fn add_packet(sums: mat4x4<f32>, place: u32, p: u32, values: mat4x4<f32>) -> mat4x4<f32> {
  if (p >= row_packets()) {
    return sums;
  }
  let packets = read_packets(place + p * PANEL_ROWS);
  let first = p * packet_quads();
  var result = add_quad(sums, packets, 0u, exchange(values, first));
  result = add_quad(result, packets, 1u, exchange(values, first + 1u));
  if (packet_quads() > 2u) {
    result = add_quad(result, packets, 2u, exchange(values, first + 2u));
    result = add_quad(result, packets, 3u, exchange(values, first + 3u));
  }
  if (packet_quads() > 4u) {
    result = add_quad(result, packets, 4u, exchange(values, first + 4u));
    result = add_quad(result, packets, 5u, exchange(values, first + 5u));
    result = add_quad(result, packets, 6u, exchange(values, first + 6u));
    result = add_quad(result, packets, 7u, exchange(values, first + 7u));
  }
  return result;
}

// The scales of the lane's columns: two lanes' to a packet.
fn read_scales(place: u32, lane: u32) -> vec4<f32> {
  let packet = weight[place + row_packets() * PANEL_ROWS + lane / 2u];
  let own = select(packet.xy, packet.zw, lane % 2u == 1u);
  return vec4<f32>(unpack2x16float(own.x), unpack2x16float(own.y));
}

fn add_scaled(sums: mat4x4<f32>, block: mat4x4<f32>, scales: vec4<f32>) -> mat4x4<f32> {
  return mat4x4<f32>(fma(vec4<f32>(scales.x), block[0], sums[0]), fma(vec4<f32>(scales.y), block[1], sums[1]),
    fma(vec4<f32>(scales.z), block[2], sums[2]), fma(vec4<f32>(scales.w), block[3], sums[3]));
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
  // Lavapipe compiles a kernel anew for each value of a uniform that bounds a short loop: 2 ms and 600 KiB a dispatch. A
  // bound that also depends on a buffer (of fewer than 2^31 rows) is left alone.
  let depth = settings.depth | (rows[0] >> 31u);
  let blocks = depth / 32u;
  if (INPUT == NORMED) {
    rrms = rrms_of(subgroupAdd(squares_of_lane(row, local.x, 8u, depth / 4u)));
  }
  let first = group.z * blocks * block_packets();
  var sums = mat4x4<f32>();
  for (var block = 0u; block < blocks; block++) {
    let place = first + block * block_packets();
    let values = read_rows(row, block * 8u + local.x);
    if (FORMAT == F16) {
      sums = add_packet(sums, place + local.x, 0u, values);
      sums = add_packet(sums, place + local.x, 1u, values);
      sums = add_packet(sums, place + local.x, 2u, values);
      sums = add_packet(sums, place + local.x, 3u, values);
    } else {
      var added = add_packet(mat4x4<f32>(), place + local.x, 0u, values);
      added = add_packet(added, place + local.x, 1u, values);
      sums = add_scaled(sums, added, read_scales(place, local.x));
    }
  }
  let column = group.z * PANEL_ROWS + local.x + vec4<u32>(0u, 8u, 16u, 24u);
  let results = sums; // the copy may be indexed freely: sums stays in registers
  for (var r = 0u; r < ROWS; r++) {
    for (var c = 0u; c < 4u; c++) {
      write(row + r, column[c], results[c][r]);
    }
  }
}
