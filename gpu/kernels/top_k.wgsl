// The `kept` candidates of each sequence with the largest logit, ties to the lower index, in ascending order.
// chosen[b * kept + j] = b * candidates + i;  labels = 1 where kept, else 0;
// packing[b * kept + j] = (x and y of candidate i, b * kept, (b + 1) * kept)
// logits, labels (B * candidates) f32; candidates (B * candidates, 4); chosen (B * kept); packing (B * kept, 4).
// One workgroup per sequence: radix select of the last kept key, eight bits a turn, then compaction by a scan.

const BINS = 256u; // a multiple of WIDTH

struct Settings {
  candidates: u32, // per sequence
  kept: u32,       // per sequence
}

@group(0) @binding(0) var<storage, read> logits: array<u32>; // f32, compared by their bits
@group(0) @binding(1) var<storage, read> candidates: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> chosen: array<u32>;
@group(0) @binding(3) var<storage, read_write> labels: array<f32>;
@group(0) @binding(4) var<storage, read_write> packing: array<vec4<u32>>;
@group(0) @binding(5) var<uniform> settings: Settings;

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
fn last_kept(lane: u32, first: u32) -> vec2<u32> {
  var key = 0u;
  var known = 0u; // mask of the bits found so far
  var rank = settings.kept - 1u;
  for (var shift = 24i; shift >= 0i; shift -= 8i) {
    for (var bin = lane; bin < BINS; bin += WIDTH) {
      atomicStore(&histogram[bin], 0u);
    }
    workgroupBarrier();
    for (var i = lane; i < settings.candidates; i += WIDTH) {
      let candidate = rank_key(first + i);
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
  let first = group.x * settings.candidates;
  let kept_first = group.x * settings.kept;
  var last = vec2<u32>(0xffffffffu, settings.kept);
  if (settings.kept < settings.candidates) {
    last = last_kept(lane, first);
  }
  // Each invocation takes a run of neighbours, so that one scan gives every candidate its place.
  let run = (settings.candidates + WIDTH - 1u) / WIDTH;
  let start = min(lane * run, settings.candidates);
  let end = min(start + run, settings.candidates);
  var seen = vec2<u32>(); // candidates before i with a better key, and with the last kept key
  for (var i = start; i < end; i++) {
    let key = rank_key(first + i);
    seen += vec2<u32>(u32(key < last.x), u32(key == last.x));
  }
  seen = scan_before(lane, seen);
  for (var i = start; i < end; i++) {
    let key = rank_key(first + i);
    let is_kept = key < last.x || (key == last.x && seen.y < last.y);
    labels[first + i] = select(0.0, 1.0, is_kept);
    if (is_kept) {
      let slot = kept_first + seen.x + min(seen.y, last.y);
      chosen[slot] = first + i;
      packing[slot] = vec4<u32>(candidates[first + i].xy, kept_first, kept_first + settings.kept);
    }
    seen += vec2<u32>(u32(key < last.x), u32(key == last.x));
  }
}
