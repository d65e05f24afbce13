// Query and key heads of qkv[i] are turned by their row's position, as in rope.wgsl; then
// pool[entry w of table z] = [keys | values], z and w of places[i]: what later rows will attend to. Queries stay in qkv,
// turned.
// qkv (rows, HEADS + 2 KV_HEADS, HEAD_DIM); pool (pool rows, 2 KV_HEADS, HEAD_DIM), in a part; table as in rope.wgsl;
// places (rows, 4) u32: position in y, its text's table (see cache_pages.wgsl) in z, its own entry in w. A row with NO_TABLE
// leaves nothing in the pool. Two pairs of a head per invocation.

override HEADS: u32;
override KV_HEADS: u32;
override HEAD_DIM: u32;
const GROUP = 64u;
const NO_TABLE = 0xffffffffu;

@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read> places: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read> table: array<vec4<f32>>;
@group(0) @binding(3) var<storage, read_write> qkv: array<vec2<f32>>;

@compute @workgroup_size(GROUP)
fn append(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let half = HEAD_DIM / 4u; // of a head, in vec2
  let all_heads = HEADS + 2u * KV_HEADS;
  let unit = (group.x + group.y * groups.x) * GROUP + local.x;
  let row = unit / (all_heads * half);
  if (row >= rows[0]) {
    return;
  }
  let head = unit / half % all_heads;
  let i = unit % half;
  let first = (row * all_heads + head) * 2u * half + i;
  var a = qkv[first];
  var b = qkv[first + half];
  if (head < HEADS + KV_HEADS) {
    let turn = table[places[row].y * half + i];
    let turned = a * turn.xz - b * turn.yw;
    b = b * turn.xz + a * turn.yw;
    a = turned;
  }
  if (head < HEADS) {
    qkv[first] = a;
    qkv[first + half] = b;
  } else if (places[row].z != NO_TABLE) {
    let entry = key_row(places[row].z, places[row].w);
    let place = (entry * 2u * KV_HEADS + head - HEADS) * 2u * half + i;
    store_pair(place, a);
    store_pair(place + half, b);
  }
}
