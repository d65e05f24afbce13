// slot[places[i].w] = columns FIRST to FIRST + WIDTH - 1 of qkv[i]: keys and values that later rows will attend to
// qkv (rows, STRIDE); slot (cache rows, WIDTH); places (rows, 4) u32: the row's own place in w. All sizes in vec4.
// One vec4 per invocation.

override STRIDE: u32;
override FIRST: u32;
override WIDTH: u32;
const GROUP = 64u;

@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read> places: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> qkv: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> slot: array<vec4<f32>>;

@compute @workgroup_size(GROUP)
fn append(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let i = (group.x + group.y * groups.x) * GROUP + local.x;
  let row = i / WIDTH;
  if (row < rows[0]) {
    slot[places[row].w * WIDTH + i % WIDTH] = qkv[row * STRIDE + FIRST + i % WIDTH];
  }
}
