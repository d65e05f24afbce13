// seen[slots[r]] gets the bit of ids[r]. ids, slots (rows); seen (S, WORDS). One invocation per row.

override WORDS: u32;

@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read> slots: array<u32>;
@group(0) @binding(3) var<storage, read_write> seen: array<atomic<u32>>;

@compute @workgroup_size(64)
fn mark_seen(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_index) lane: u32,
) {
  let r = (group.x + group.y * groups.x) * 64u + lane;
  if (r >= rows[0]) {
    return;
  }
  let word = ids[r] / 32u;
  if (word < WORDS) {
    atomicOr(&seen[slots[r] * WORDS + word], 1u << (ids[r] % 32u));
  }
}
