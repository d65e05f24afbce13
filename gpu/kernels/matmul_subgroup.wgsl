// out[m, n] (+)= (residual[m, n] +) sum over k of A[m, k] * B[k, n] in f32, for software adapters with subgroups of 8 (lavapipe).
// A is stored (rows, depth), or (depth, rows) with A_DEPTH_FIRST; B is stored (columns, depth), or (depth, columns) with
// B_DEPTH_FIRST; out is (rows, columns). Strides count floats. Strides and columns are multiples of 4, and so are depth if
// an operand has it contiguous and rows if A has it contiguous; otherwise rows and depth may be any number.
// B (columns, depth) may be packed weights: then b_stride counts the blocks of a row.
// A workgroup of 8 lanes makes 64 rows x 32 columns; a lane owns 4 columns of all 64 rows.
// One turn adds 4 depths: a lane reads its own 4 columns of B and an eighth of A, then every row of A is passed round.
// Measured: a storage read of a vec4 costs some 80 cycles whatever the lanes' addresses (it loops over the lanes), a
// shuffle with a constant lane costs one instruction; reading A in each lane instead drops 60 GFLOP/s to 25. Fewer depths a
// turn cost more, because each turn loads, masks and stores all sums. More rows or columns a lane leave the code cache.

struct Settings {
  rows: u32, columns: u32, depth: u32, // the limit that COUNTED names is also bounded by row_count[0]
  a_stride: u32, b_stride: u32, out_stride: u32,
  depth_start: u32, depth_end: u32, // the window of this dispatch
}

@group(0) @binding(0) var<uniform> settings: Settings;
@group(0) @binding(1) var<storage, read> a: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> b: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> out: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> row_count: array<u32>;
@group(0) @binding(5) var<storage, read> b_words: array<u32>; // the same tensor as b
@group(0) @binding(6) var<storage, read> residual: array<vec4<f32>>; // like out; any tensor without ADD_RESIDUAL

override A_DEPTH_FIRST: bool = false;
override B_DEPTH_FIRST: bool = false;
override ACCUMULATE: bool = false; // as a uniform flag it costs 15 % at depth 256 and a second of compilation
override ADD_RESIDUAL: bool = false;
override COUNTED_DEPTH: bool = false; // row_count[0] bounds the depth (else the rows)

fn row_limit() -> u32 {
  return select(min(settings.rows, row_count[0]), settings.rows, COUNTED_DEPTH);
}

fn depth_limit() -> u32 {
  return select(settings.depth_end, min(settings.depth_end, row_count[0]), COUNTED_DEPTH);
}

// Rows and columns past the edge are read too (robust access makes that safe): they reach only sums that are never written.
// Depths past the end would reach every sum, so they become 0.
fn within(value: vec4<f32>, k: u32, end: u32) -> vec4<f32> {
  return select(vec4<f32>(), value, k < end);
}

fn read_a(row: u32, k: u32, end: u32) -> mat4x4<f32> { // [i] = depths k .. k + 3 of row + i
  let stride = settings.a_stride / 4u;
  if (A_DEPTH_FIRST) {
    let i = k * stride + row / 4u;
    return transpose(mat4x4<f32>(within(a[i], k, end), within(a[i + stride], k + 1u, end),
      within(a[i + 2u * stride], k + 2u, end), within(a[i + 3u * stride], k + 3u, end)));
  }
  let i = row * stride + k / 4u;
  return mat4x4<f32>(a[i], a[i + stride], a[i + 2u * stride], a[i + 3u * stride]);
}

fn weight_word(i: u32) -> u32 {
  return b_words[i];
}

fn read_packed(column: u32, k: u32) -> vec4<f32> {
  return packed_quad(column, settings.b_stride, k / 4u);
}

fn read_b(column: u32, k: u32, end: u32) -> mat4x4<f32> { // [i] = columns column .. column + 3 of depth k + i
  let stride = settings.b_stride / 4u;
  if (B_DEPTH_FIRST) {
    let i = k * stride + column / 4u;
    return mat4x4<f32>(within(b[i], k, end), within(b[i + stride], k + 1u, end),
      within(b[i + 2u * stride], k + 2u, end), within(b[i + 3u * stride], k + 3u, end));
  }
  if (FORMAT != F32) {
    return transpose(mat4x4<f32>(read_packed(column, k), read_packed(column + 1u, k), read_packed(column + 2u, k),
      read_packed(column + 3u, k)));
  }
  let i = column * stride + k / 4u;
  return transpose(mat4x4<f32>(b[i], b[i + stride], b[i + 2u * stride], b[i + 3u * stride]));
}

// One chain of additions: `sum + y * x` is 15 % slower in two of the three layouts.
fn add_row(sum: vec4<f32>, y: mat4x4<f32>, x: vec4<f32>) -> vec4<f32> {
  return sum + x[0] * y[0] + x[1] * y[1] + x[2] * y[2] + x[3] * y[3];
}

fn add(sum: mat4x4<f32>, y: mat4x4<f32>, x: mat4x4<f32>, lane: u32) -> mat4x4<f32> { // the 4 rows that `lane` has read
  return mat4x4<f32>(add_row(sum[0], y, subgroupShuffle(x[0], lane)), add_row(sum[1], y, subgroupShuffle(x[1], lane)),
    add_row(sum[2], y, subgroupShuffle(x[2], lane)), add_row(sum[3], y, subgroupShuffle(x[3], lane)));
}

fn write_row(row: u32, column: u32, value: vec4<f32>) {
  if (row >= row_limit() || column >= settings.columns) {
    return;
  }
  let i = (row * settings.out_stride + column) / 4u;
  if (ACCUMULATE) {
    out[i] += value;
  } else if (ADD_RESIDUAL) {
    out[i] = residual[i] + value;
  } else {
    out[i] = value;
  }
}

@compute @workgroup_size(8)
fn matmul(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let row = (group.x + group.y * groups.x) * 64u;
  let own = local.x * 4u;
  let column = group.z * 32u + own;
  let end = depth_limit();
  let start = select(end, settings.depth_start, row < row_limit()); // nothing to do past the last row
  var sums: array<mat4x4<f32>, 16>; // [i] = rows row + 4 i .. + 3. A loop over it here would make it memory: 4 times slower.
  for (var k = start; k < end; k += 4u) {
    let y = read_b(column, k, end);
    let low = read_a(row + own, k, end);
    sums[0] = add(sums[0], y, low, 0u);
    sums[1] = add(sums[1], y, low, 1u);
    sums[2] = add(sums[2], y, low, 2u);
    sums[3] = add(sums[3], y, low, 3u);
    sums[4] = add(sums[4], y, low, 4u);
    sums[5] = add(sums[5], y, low, 5u);
    sums[6] = add(sums[6], y, low, 6u);
    sums[7] = add(sums[7], y, low, 7u);
    let high = read_a(row + 32u + own, k, end);
    sums[8] = add(sums[8], y, high, 0u);
    sums[9] = add(sums[9], y, high, 1u);
    sums[10] = add(sums[10], y, high, 2u);
    sums[11] = add(sums[11], y, high, 3u);
    sums[12] = add(sums[12], y, high, 4u);
    sums[13] = add(sums[13], y, high, 5u);
    sums[14] = add(sums[14], y, high, 6u);
    sums[15] = add(sums[15], y, high, 7u);
  }
  var results = sums; // the copy may be indexed freely: sums stays in registers
  for (var i = 0u; i < 16u; i++) {
    for (var j = 0u; j < 4u; j++) { write_row(row + 4u * i + j, column, results[i][j]); }
  }
}
