// Part of the matmul_vector kernels: what they read, and a tile of 4 columns of up to 4 rows of out = v W^T (+ residual).
// By INPUT the rows v are x, RMSNorm(x) or silu(x's first half) * its second half, made anew by every workgroup: that
// costs less than the dispatch of a kernel that would make them once.
// x (rows, depth), for SWIGLU (rows, 2 depth); norm (depth); weight (columns, depth) in any FORMAT; residual and out
// (rows, columns), or `columns` of the `out_stride` columns of wider ones. rows[0] counts the rows.
// A column of the tile is a vec4 over rows, so that one read of a weight serves all of them. Sums are explicit chains of
// fma, which leave no compiler a choice where to round: a row has the same bits for every ROWS and in any company.

override ROWS: u32; // rows of a tile: 1, 2 or 4
override ADD_RESIDUAL: bool;
override INPUT: u32;
override QUADS: u32; // quads of a packet, a vec4<u32> of weights: f32 1, f16 2, q8_0 4, q4_0 8
const NORMED = 1u;
const SWIGLU = 2u;

struct Settings {
  depth: u32, // a multiple of 4, of 32 for packed weights
  columns: u32,
  out_stride: u32,
  row_packets: u32, // of a row of weights, with its scales
  scale_packets: u32,
  eps: f32, // of NORMED
}

@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read> residual: array<f32>; // any tensor without ADD_RESIDUAL
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
@group(0) @binding(5) var<uniform> settings: Settings;
@group(0) @binding(7) var<storage, read> weight_words: array<u32>; // the same tensor
@group(0) @binding(6) var<storage, read> norm: array<vec4<f32>>; // any tensor without NORMED

var<private> rrms: vec4<f32>; // of the tile's rows, for NORMED: the kernel sets it

// Depths 4 k to 4 k + 3 of a row of v. Rows past the end reach only sums that are never written.
fn read_row(row: u32, k: u32, row_rrms: f32) -> vec4<f32> {
  let width = settings.depth / 4u;
  if (INPUT == SWIGLU) {
    let gate = x[row * 2u * width + k];
    return gate / (1.0 + exp(-gate)) * x[(row * 2u + 1u) * width + k];
  }
  let value = x[row * width + k];
  if (INPUT == NORMED) {
    return value * row_rrms * norm[k];
  }
  return value;
}

// The same of the tile's rows: a column per row.
fn read_rows(first: u32, k: u32) -> mat4x4<f32> {
  var values = mat4x4<f32>();
  values[0] = read_row(first, k, rrms.x);
  if (ROWS > 1u) {
    values[1] = read_row(first + 1u, k, rrms.y);
  }
  if (ROWS > 2u) {
    values[2] = read_row(first + 2u, k, rrms.z);
    values[3] = read_row(first + 3u, k, rrms.w);
  }
  return values;
}

// Sum of the squares of every `lanes`-th vec4 of x, from `lane` on, for each of the tile's rows.
fn squares_of_lane(first: u32, lane: u32, lanes: u32, width: u32) -> vec4<f32> {
  var sums = vec4<f32>();
  for (var k = lane; k < width; k += lanes) {
    for (var r = 0u; r < ROWS; r++) {
      let value = x[(first + r) * width + k];
      sums[r] += dot(value, value);
    }
  }
  return sums;
}

fn rrms_of(squares: vec4<f32>) -> vec4<f32> {
  return inverseSqrt(squares / f32(settings.depth) + settings.eps);
}

fn weight_word(i: u32) -> u32 {
  return weight_words[i];
}

// The packets at which the weights of four columns begin. Columns past the edge repeat the last one and are never written.
fn column_places(column: vec4<u32>) -> vec4<u32> {
  return min(column, vec4<u32>(settings.columns - 1u)) * settings.row_packets;
}

// A packet of each of four columns.
struct Packets { x: vec4<u32>, y: vec4<u32>, z: vec4<u32>, w: vec4<u32> }

fn read_packets(place: vec4<u32>) -> Packets {
  return Packets(weight[place.x], weight[place.y], weight[place.z], weight[place.w]);
}

// Quad i of a packet, without the scale of its block.
fn packet_quad(packet: vec4<u32>, i: u32) -> vec4<f32> {
  if (FORMAT == F16) {
    return two_halves(packet[2u * i], packet[2u * i + 1u]);
  }
  if (FORMAT == Q8_0) {
    return vec4<f32>(four_signed_bytes(packet[i]));
  }
  if (FORMAT == Q4_0) {
    return vec4<f32>(four_bytes((packet[i % 4u] >> (i & 4u)) & 0x0f0f0f0fu)) - 8.0;
  }
  return bitcast<vec4<f32>>(packet);
}

// sums + the product of a packet, whose first quad is quad `first` of the turn.
fn add_packet(sums: mat4x4<f32>, packets: Packets, turn: Turn, first: u32) -> mat4x4<f32> {
  var result = add_quad(sums, packets, 0u, turn_values(turn, first));
  if (QUADS > 1u) {
    result = add_quad(result, packets, 1u, turn_values(turn, first + 1u));
  }
  if (QUADS > 2u) {
    result = add_quad(result, packets, 2u, turn_values(turn, first + 2u));
    result = add_quad(result, packets, 3u, turn_values(turn, first + 3u));
  }
  if (QUADS > 4u) {
    result = add_quad(result, packets, 4u, turn_values(turn, first + 4u));
    result = add_quad(result, packets, 5u, turn_values(turn, first + 5u));
    result = add_quad(result, packets, 6u, turn_values(turn, first + 6u));
    result = add_quad(result, packets, 7u, turn_values(turn, first + 7u));
  }
  return result;
}

// sums + four depths of the product: quad i of each column's packet, `values` with a column per depth.
fn add_quad(sums: mat4x4<f32>, packets: Packets, i: u32, values: mat4x4<f32>) -> mat4x4<f32> {
  return mat4x4<f32>(
    add_column(sums[0], packet_quad(packets.x, i), values),
    add_column(sums[1], packet_quad(packets.y, i), values),
    add_column(sums[2], packet_quad(packets.z, i), values),
    add_column(sums[3], packet_quad(packets.w, i), values),
  );
}

fn add_column(sum: vec4<f32>, w: vec4<f32>, values: mat4x4<f32>) -> vec4<f32> {
  let first = fma(vec4<f32>(w.y), values[1], fma(vec4<f32>(w.x), values[0], sum));
  return fma(vec4<f32>(w.w), values[3], fma(vec4<f32>(w.z), values[2], first));
}

fn has_scales() -> bool {
  return FORMAT == Q8_0 || FORMAT == Q4_0;
}

// sums + the sums of a block of packed weights, times its scale.
fn add_block(sums: mat4x4<f32>, block_sums: mat4x4<f32>, place: vec4<u32>, block: u32) -> mat4x4<f32> {
  return mat4x4<f32>(
    fma(vec4<f32>(block_scale(place.x * 4u, block)), block_sums[0], sums[0]),
    fma(vec4<f32>(block_scale(place.y * 4u, block)), block_sums[1], sums[1]),
    fma(vec4<f32>(block_scale(place.z * 4u, block)), block_sums[2], sums[2]),
    fma(vec4<f32>(block_scale(place.w * 4u, block)), block_sums[3], sums[3]),
  );
}

fn write(row: u32, column: u32, value: f32) {
  if (row >= rows[0] || column >= settings.columns) {
    return;
  }
  let i = row * settings.out_stride + column;
  if (ADD_RESIDUAL) {
    out[i] = residual[i] + value;
  } else {
    out[i] = value;
  }
}
