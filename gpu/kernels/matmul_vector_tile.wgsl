// Part of the matmul_vector kernels: what they read, and a tile of 4 columns of up to 4 rows of out = x W^T (+ residual).
// x (rows, depth); weight (columns, depth); residual, out (rows, columns). rows[0] counts the rows.
// A column of the tile is a vec4 over rows, so that one read of a weight serves all of them. Sums are explicit chains of
// fma, which leave no compiler a choice where to round: a row has the same bits for every ROWS and in any company.

override ROWS: u32; // rows of a tile: 1, 2 or 4
override ADD_RESIDUAL: bool;

struct Settings {
  depth: u32, // a multiple of 4
  columns: u32,
}

@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read> residual: array<f32>; // any tensor without ADD_RESIDUAL
@group(0) @binding(4) var<storage, read_write> out: array<f32>;
@group(0) @binding(5) var<uniform> settings: Settings;

// Depths 4 k to 4 k + 3 of the tile's rows: a column per row. Rows past the end reach only sums that are never written.
fn read_rows(first: u32, k: u32) -> mat4x4<f32> {
  let width = settings.depth / 4u;
  var values = mat4x4<f32>();
  values[0] = x[first * width + k];
  if (ROWS > 1u) {
    values[1] = x[(first + 1u) * width + k];
  }
  if (ROWS > 2u) {
    values[2] = x[(first + 2u) * width + k];
    values[3] = x[(first + 3u) * width + k];
  }
  return values;
}

// Where the weights of four columns begin. Columns past the edge repeat the last one and are never written.
fn column_places(column: vec4<u32>) -> vec4<u32> {
  return min(column, vec4<u32>(settings.columns - 1u)) * (settings.depth / 4u);
}

// sums + four depths of the product: `place` of each column's weights, `values` with a column per depth.
fn add_depths(sums: mat4x4<f32>, place: vec4<u32>, values: mat4x4<f32>) -> mat4x4<f32> {
  return mat4x4<f32>(
    add_column(sums[0], weight[place.x], values),
    add_column(sums[1], weight[place.y], values),
    add_column(sums[2], weight[place.z], values),
    add_column(sums[3], weight[place.w], values),
  );
}

fn add_column(sum: vec4<f32>, w: vec4<f32>, values: mat4x4<f32>) -> vec4<f32> {
  let first = fma(vec4<f32>(w.y), values[1], fma(vec4<f32>(w.x), values[0], sum));
  return fma(vec4<f32>(w.w), values[3], fma(vec4<f32>(w.z), values[2], first));
}

fn write(row: u32, column: u32, value: f32) {
  if (row >= rows[0] || column >= settings.columns) {
    return;
  }
  let i = row * settings.columns + column;
  if (ADD_RESIDUAL) {
    out[i] = residual[i] + value;
  } else {
    out[i] = value;
  }
}
