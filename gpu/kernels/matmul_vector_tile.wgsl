// Part of the matmul_vector kernels: f32 weights (columns, depth) of a tile of 4 columns.

@group(0) @binding(2) var<storage, read> weight: array<vec4<f32>>;

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
