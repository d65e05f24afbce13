// grid = ceil(count * units_per_row / units_per_group) workgroups, folded into x and y, times z.
// count (1); shapes (64, 4) = units per row, units per group, z, unused; grids (64, 4) = x, y, z, unused.
// One invocation per grid.

@group(0) @binding(0) var<storage, read> count: array<u32>;
@group(0) @binding(1) var<storage, read> shapes: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> grids: array<vec4<u32>>;

const MAX_GROUPS = 65535u;

@compute @workgroup_size(64)
fn indirect_grid(@builtin(global_invocation_id) id: vec3<u32>) {
  let shape = shapes[id.x];
  if (shape.y == 0u) {
    return; // no kernel has asked for this entry
  }
  let groups = (count[0] * shape.x + shape.y - 1u) / shape.y;
  grids[id.x] = vec4<u32>(min(groups, MAX_GROUPS), (groups + MAX_GROUPS - 1u) / MAX_GROUPS, shape.z, 0u);
}
