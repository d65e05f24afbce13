// Each sequence's w candidates with the largest logit, ties to the lower index, in ascending order.
// (x, y, z, w) = ranges[b]: first candidate, candidates, first kept row, kept rows; 1 <= w <= y, or both 0
// chosen[z + j] = i, the j-th kept candidate in x..x + y;  labels[x..x + y] = 1 where kept, else 0
// packing[z + j] = (x and y of candidate i, z, z + w)
// ranges (B, 4); logits, labels (candidates) f32; candidates (candidates, 4); chosen (kept); packing (kept, 4).
// One workgroup per sequence: radix select of the last kept key, eight bits a turn, then compaction by a scan.

const BINS = 256u; // a multiple of WIDTH

@group(0) @binding(0) var<storage, read> ranges: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read> logits: array<u32>; // f32, compared by their bits
@group(0) @binding(2) var<storage, read> candidates: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> chosen: array<u32>;
@group(0) @binding(4) var<storage, read_write> labels: array<f32>;
@group(0) @binding(5) var<storage, read_write> packing: array<vec4<u32>>;

var<workgroup> histogram: array<atomic<u32>, BINS>;
var<workgroup> found: vec2<u32>; // bin of the last kept key, and its rank among the keys of that bin

// Ascending where f32 descends. The two zeros are equal; a NaN has a place of its own beyond an infinity.
fn rank_key(i: u32) -> u32 {
  let bits = logits[i];
  if (bits == 0x80000000u) {
    return 0x7fffffffu;
  }
  return select(bits ^ 0x7fffffffu, bits, bits > 0x80000000u);
}

// Key of the last candidate to keep, and how many of the candidates with just that key are kept.
// The range is the same in all invocations, which must all call it.
fn last_kept(lane: u32, range: vec4<u32>) -> vec2<u32> {
  var key = 0u;
  var known = 0u; // mask of the bits found so far
  var rank = range.w - 1u;
  for (var shift = 24i; shift >= 0i; shift -= 8i) {
    for (var bin = lane; bin < BINS; bin += WIDTH) {
      atomicStore(&histogram[bin], 0u);
    }
    workgroupBarrier();
    for (var i = lane; i < range.y; i += WIDTH) {
      let candidate = rank_key(range.x + i);
      if ((candidate & known) == key) {
        atomicAdd(&histogram[(candidate >> u32(shift)) % BINS], 1u);
      }
    }
    workgroupBarrier();
    let bins = BINS / WIDTH;
    var total = 0u;
    for (var bin = lane * bins; bin < (lane + 1u) * bins; bin++) {
      total += atomicLoad(&histogram[bin]);
    }
    var before = scan_before(lane, vec2<u32>(total, 0u)).x;
    if (before <= rank && rank < before + total) {
      var bin = lane * bins;
      for (; rank >= before + atomicLoad(&histogram[bin]); bin++) {
        before += atomicLoad(&histogram[bin]);
      }
      found = vec2<u32>(bin, rank - before);
    }
    workgroupBarrier();
    key |= found.x << u32(shift);
    known |= (BINS - 1u) << u32(shift);
    rank = found.y;
  }
  return vec2<u32>(key, rank + 1u);
}

@compute @workgroup_size(WIDTH)
fn top_k(@builtin(workgroup_id) group: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
  let range = ranges[group.x]; // one for the workgroup: the barriers below are in uniform control flow
  var last = vec2<u32>(0xffffffffu, range.w);
  if (range.w < range.y) {
    last = last_kept(lane, range);
  }
  // Each invocation takes a run of neighbours, so that one scan gives every candidate its place.
  let run = (range.y + WIDTH - 1u) / WIDTH;
  let start = range.x + min(lane * run, range.y);
  let end = min(start + run, range.x + range.y);
  var seen = vec2<u32>(); // candidates before i with a better key, and with the last kept key
  for (var i = start; i < end; i++) {
    let key = rank_key(i);
    seen += vec2<u32>(u32(key < last.x), u32(key == last.x));
  }
  seen = scan_before(lane, seen);
  for (var i = start; i < end; i++) {
    let key = rank_key(i);
    let is_kept = key < last.x || (key == last.x && seen.y < last.y);
    labels[i] = select(0.0, 1.0, is_kept);
    if (is_kept) {
      let slot = range.z + seen.x + min(seen.y, last.y);
      chosen[slot] = i;
      packing[slot] = vec4<u32>(candidates[i].xy, range.z, range.z + range.w);
    }
    seen += vec2<u32>(u32(key < last.x), u32(key == last.x));
  }
}
