// Part of the kernels that multiply few rows: the up to 4 rows v of a tile of out = v W^T (+ residual), and its writing.
// By INPUT the rows v are x, RMSNorm(x) or silu(x's first half) * its second half, made anew by every workgroup: that
// costs less than the dispatch of a kernel that would make them once.
// x (rows, depth), for SWIGLU (rows, 2 depth); norm (depth); residual and out (rows, columns), or `columns` of the
// `out_stride` columns of wider ones. rows[0] counts the rows.
// A column of the tile is a vec4 over rows, so that one read of a weight serves all of them. Sums are explicit chains of
// fma, which leave no compiler a choice where to round: a row has the same bits for every ROWS and in any company.

override ROWS: u32; // rows of a tile: 1, 2 or 4
override ADD_RESIDUAL: bool;
override INPUT: u32;
const NORMED = 1u;
const SWIGLU = 2u;

struct Settings {
  depth: u32, // a multiple of 4, of 32 for packed weights
  columns: u32,
  out_stride: u32,
  eps: f32, // of NORMED
}

@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> residual: array<f32>; // any tensor without ADD_RESIDUAL
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
@group(0) @binding(5) var<uniform> settings: Settings;
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

// sum + four depths of a column's product: `values` has a column per depth.
fn add_column(sum: vec4<f32>, w: vec4<f32>, values: mat4x4<f32>) -> vec4<f32> {
  let first = fma(vec4<f32>(w.y), values[1], fma(vec4<f32>(w.x), values[0], sum));
  return fma(vec4<f32>(w.w), values[3], fma(vec4<f32>(w.z), values[2], first));
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
