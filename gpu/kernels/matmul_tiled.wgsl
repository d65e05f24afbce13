// out[m, n] (+)= sum over k of A[m, k] * B[k, n] in f32, for any adapter; made for hardware.
// A is stored (rows, depth), or (depth, rows) with A_DEPTH_FIRST; B is stored (columns, depth), or (depth, columns) with
// B_DEPTH_FIRST; out is (rows, columns). Strides count floats; all sizes may be any number.
// B (columns, depth) may be packed weights: then b_stride counts the blocks of a row.
// A workgroup of 16 x 16 invocations makes a tile of 64 rows x 64 columns; an invocation owns 4 rows x 4 columns.
// One turn stages 16 depths of both operands in workgroup memory (8 KiB): each invocation reads 4 floats of each operand,
// with neighbouring invocations along the operand's contiguous direction, and stores them depth first, so that the product
// reads vec4s. Rows are padded by one vec4: a depth-contiguous operand is stored down the tile, where 64 floats a row would
// put all 16 depths in one memory bank.

struct Settings {
  rows: u32, columns: u32, depth: u32, // the limit that COUNTED names is also bounded by row_count[0]
  a_stride: u32, b_stride: u32, out_stride: u32,
  depth_start: u32, depth_end: u32, // the window of this dispatch
}

@group(0) @binding(0) var<uniform> settings: Settings;
@group(0) @binding(1) var<storage, read> a: array<f32>;
@group(0) @binding(2) var<storage, read> b: array<f32>;
@group(0) @binding(3) var<storage, read_write> out: array<f32>;
@group(0) @binding(4) var<storage, read> row_count: array<u32>;
@group(0) @binding(5) var<storage, read> b_words: array<u32>; // the same tensor as b
@group(0) @binding(6) var<storage, read> residual: array<f32>; // like out; any tensor without ADD_RESIDUAL

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

var<workgroup> tile_a: array<array<vec4<f32>, 17>, 16>; // [depth][row / 4]
var<workgroup> tile_b: array<array<vec4<f32>, 17>, 16>; // [depth][column / 4]

// The tile element (depth, neighbour) that invocation `index` carries in step 0 .. 3, along the operand's contiguous direction.
fn element(index: u32, step: u32, depth_first: bool) -> vec2<u32> {
  let i = index + 256u * step;
  return select(vec2<u32>(i % 16u, i / 16u), vec2<u32>(i / 64u, i % 64u), depth_first);
}

fn read_a(k: u32, row: u32) -> f32 {
  if (k >= depth_limit() || row >= row_limit()) {
    return 0.0;
  }
  if (A_DEPTH_FIRST) {
    return a[k * settings.a_stride + row];
  }
  return a[row * settings.a_stride + k];
}

fn read_b(k: u32, column: u32) -> f32 {
  if (k >= depth_limit() || column >= settings.columns) {
    return 0.0;
  }
  if (B_DEPTH_FIRST) {
    return b[k * settings.b_stride + column];
  }
  return b[column * settings.b_stride + k];
}

fn weight_word(i: u32) -> u32 {
  return b_words[i];
}

// Packed weights go to the tile a quad at a time, so that a word is unpacked once.
fn stage_packed(start: u32, first_column: u32, index: u32) {
  let k = index % 4u;
  let n = index / 4u;
  let column = min(first_column + n, settings.columns - 1u); // past the edge: of a sum that is never written
  let quad = packed_quad(column, settings.b_stride, start / 4u + k);
  for (var i = 0u; i < 4u; i++) {
    tile_b[4u * k + i][n / 4u][n % 4u] = quad[i];
  }
}

@compute @workgroup_size(16, 16)
fn matmul(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
  @builtin(local_invocation_index) index: u32,
) {
  let first_row = (group.x + group.y * groups.x) * 64u;
  let first_column = group.z * 64u;
  let end = depth_limit();
  let first = select(end, settings.depth_start, first_row < row_limit()); // nothing to do past the last row
  var sums: array<vec4<f32>, 4>; // [i] = 4 columns of row i
  for (var start = first; start < end; start += 16u) {
    for (var step = 0u; step < 4u; step++) {
      let p = element(index, step, A_DEPTH_FIRST);
      tile_a[p.x][p.y / 4u][p.y % 4u] = read_a(start + p.x, first_row + p.y);
      if (FORMAT == F32) {
        let q = element(index, step, B_DEPTH_FIRST);
        tile_b[q.x][q.y / 4u][q.y % 4u] = read_b(start + q.x, first_column + q.y);
      }
    }
    if (FORMAT != F32) {
      stage_packed(start, first_column, index);
    }
    workgroupBarrier();
    for (var k = 0u; k < 16u; k++) {
      let x = tile_a[k][local.y];
      let y = tile_b[k][local.x];
      sums[0] += x[0] * y;
      sums[1] += x[1] * y;
      sums[2] += x[2] * y;
      sums[3] += x[3] * y;
    }
    workgroupBarrier();
  }
  var results = sums;
  for (var i = 0u; i < 4u; i++) {
    for (var j = 0u; j < 4u; j++) {
      let row = first_row + local.y * 4u + i;
      let column = first_column + local.x * 4u + j;
      if (row < row_limit() && column < settings.columns) {
        let at = row * settings.out_stride + column;
        if (ACCUMULATE) {
          out[at] += results[i][j];
        } else if (ADD_RESIDUAL) {
          out[at] = residual[at] + results[i][j];
        } else {
          out[at] = results[i][j];
        }
      }
    }
  }
}
