// out[m, n] (+)= sum over k of A[m, k] * B[k, n] in f32, for any adapter; made for hardware.
// A is stored (rows, depth), or (depth, rows) with A_DEPTH_FIRST; B is stored (columns, depth), or (depth, columns) with
// B_DEPTH_FIRST; out is (rows, columns). Strides count floats. Strides and columns are multiples of 4, and so are depth if
// an operand has it contiguous and rows if A has it contiguous; otherwise rows and depth may be any number.
// B (columns, depth) may be packed weights: then b_stride counts the blocks of a row.
// A workgroup of X x Y invocations makes a tile of 4 Y ROW_QUADS rows x 4 X COLUMN_QUADS columns; an invocation owns quads
// of rows Y quads apart and quads of columns X quads apart, so that neighbours read neighbouring vec4s of the tile.
// One turn stages 16 depths of both operands in workgroup memory: invocations read vec4s along the operand's contiguous
// direction and store them depth first, so that the product reads vec4s. Depths are padded by one vec4: a depth-contiguous
// operand is stored down the tile, where 64 floats a depth would put all 16 in one memory bank.
// Every shape of tile adds up in the same order: depth by depth.

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
override ACCUMULATE: bool = false;
override ADD_RESIDUAL: bool = false;
override COUNTED_DEPTH: bool = false; // row_count[0] bounds the depth (else the rows)

fn row_limit() -> u32 {
  return select(min(settings.rows, row_count[0]), settings.rows, COUNTED_DEPTH);
}

fn depth_limit() -> u32 {
  return select(settings.depth_end, min(settings.depth_end, row_count[0]), COUNTED_DEPTH);
}

override X: u32;
override Y: u32;
override ROW_QUADS: u32; // of an invocation: 1 or 2
override COLUMN_QUADS: u32; // 1 or 2
override INVOCATIONS: u32 = X * Y;
override TILE_ROW_QUADS: u32 = Y * ROW_QUADS;
override TILE_COLUMN_QUADS: u32 = X * COLUMN_QUADS;
override A_PITCH: u32 = TILE_ROW_QUADS + 1u;
override B_PITCH: u32 = TILE_COLUMN_QUADS + 1u;
override A_SIZE: u32 = 16u * A_PITCH;
override B_SIZE: u32 = 16u * B_PITCH;

var<workgroup> tile_a: array<vec4<f32>, A_SIZE>; // [depth * A_PITCH + row / 4]
var<workgroup> tile_b: array<vec4<f32>, B_SIZE>; // [depth * B_PITCH + column / 4]

fn weight_word(i: u32) -> u32 {
  return b_words[i];
}

// Rows and columns past the edge are read too (robust access makes that safe): they reach only sums that are never written.
// Depths past the end would reach every sum, so they become 0.
fn within(value: vec4<f32>, k: vec4<u32>, end: u32) -> vec4<f32> {
  return select(vec4<f32>(), value, k < vec4<u32>(end));
}

const NEXT_4 = vec4<u32>(0u, 1u, 2u, 3u);

fn stage_a(start: u32, first_row: u32, index: u32, end: u32) {
  for (var i = index; i < 16u * TILE_ROW_QUADS; i += INVOCATIONS) {
    if (A_DEPTH_FIRST) {
      let k = i / TILE_ROW_QUADS;
      let quad = i % TILE_ROW_QUADS;
      let value = a[((start + k) * settings.a_stride + first_row) / 4u + quad];
      tile_a[k * A_PITCH + quad] = within(value, vec4<u32>(start + k), end);
    } else {
      let k = i % 4u * 4u;
      let row = i / 4u;
      let value = within(a[((first_row + row) * settings.a_stride + start + k) / 4u], start + k + NEXT_4, end);
      let place = k * A_PITCH + row / 4u;
      tile_a[place][row % 4u] = value.x;
      tile_a[place + A_PITCH][row % 4u] = value.y;
      tile_a[place + 2u * A_PITCH][row % 4u] = value.z;
      tile_a[place + 3u * A_PITCH][row % 4u] = value.w;
    }
  }
}

fn read_b(column: u32, k: u32) -> vec4<f32> { // depths k .. k + 3 of a column
  if (FORMAT != F32) {
    return packed_quad(column, settings.b_stride, k / 4u);
  }
  return b[(column * settings.b_stride + k) / 4u];
}

fn stage_b(start: u32, first_column: u32, index: u32, end: u32) {
  for (var i = index; i < 16u * TILE_COLUMN_QUADS; i += INVOCATIONS) {
    if (B_DEPTH_FIRST) {
      let k = i / TILE_COLUMN_QUADS;
      let quad = i % TILE_COLUMN_QUADS;
      let value = b[((start + k) * settings.b_stride + first_column) / 4u + quad];
      tile_b[k * B_PITCH + quad] = within(value, vec4<u32>(start + k), end);
    } else {
      let k = i % 4u * 4u;
      let column = i / 4u;
      let value = within(read_b(first_column + column, start + k), start + k + NEXT_4, end);
      let place = k * B_PITCH + column / 4u;
      tile_b[place][column % 4u] = value.x;
      tile_b[place + B_PITCH][column % 4u] = value.y;
      tile_b[place + 2u * B_PITCH][column % 4u] = value.z;
      tile_b[place + 3u * B_PITCH][column % 4u] = value.w;
    }
  }
}

// sums [i] = 4 columns of row i.
fn add(sums: mat4x4<f32>, x: vec4<f32>, y: vec4<f32>) -> mat4x4<f32> {
  return mat4x4<f32>(sums[0] + x[0] * y, sums[1] + x[1] * y, sums[2] + x[2] * y, sums[3] + x[3] * y);
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

fn write_rows(row: u32, column: u32, sums: mat4x4<f32>) {
  write_row(row, column, sums[0]);
  write_row(row + 1u, column, sums[1]);
  write_row(row + 2u, column, sums[2]);
  write_row(row + 3u, column, sums[3]);
}

@compute @workgroup_size(X, Y)
fn matmul(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
) {
  let first_row = (group.x + group.y * groups.x) * TILE_ROW_QUADS * 4u;
  let first_column = group.z * TILE_COLUMN_QUADS * 4u;
  let end = depth_limit();
  let first = select(end, settings.depth_start, first_row < row_limit()); // nothing to do past the last row
  // By quads of rows and of columns. Second quads that an invocation does not own cost nothing: their sums are never used.
  var sums = mat4x4<f32>();
  var sums_right = mat4x4<f32>();
  var sums_below = mat4x4<f32>();
  var sums_across = mat4x4<f32>();
  for (var start = first; start < end; start += 16u) {
    stage_a(start, first_row, index, end);
    stage_b(start, first_column, index, end);
    workgroupBarrier();
    for (var k = 0u; k < 16u; k++) {
      let x = tile_a[k * A_PITCH + local.y];
      let y = tile_b[k * B_PITCH + local.x];
      sums = add(sums, x, y);
      if (COLUMN_QUADS > 1u) {
        sums_right = add(sums_right, x, tile_b[k * B_PITCH + X + local.x]);
      }
      if (ROW_QUADS > 1u) {
        let x_below = tile_a[k * A_PITCH + Y + local.y];
        sums_below = add(sums_below, x_below, y);
        if (COLUMN_QUADS > 1u) {
          sums_across = add(sums_across, x_below, tile_b[k * B_PITCH + X + local.x]);
        }
      }
    }
    workgroupBarrier();
  }
  let row = first_row + local.y * 4u;
  let column = first_column + local.x * 4u;
  write_rows(row, column, sums);
  if (COLUMN_QUADS > 1u) {
    write_rows(row, column + 4u * X, sums_right);
  }
  if (ROW_QUADS > 1u) {
    write_rows(row + 4u * Y, column, sums_below);
    if (COLUMN_QUADS > 1u) {
      write_rows(row + 4u * Y, column + 4u * X, sums_across);
    }
  }
}
