// The candidates whose score is above the threshold, in the order they have: the causal form of expert choice.
// score of candidate i: logits[i], or logits[x of candidate i] where SCORES is STATE
// prefix[i] = kept among the first i candidates, for i in 0..count;  chosen[prefix[i]] = i where candidate i is kept;
// packing[prefix[i]] = (x, y of candidate i, prefix[z of candidate i], prefix[w of candidate i])
// logits (rows), or one for each row of the state; candidates (rows, 4); prefix (rows + 1); kept_rows (1);
// chosen (kept); packing (kept, 4).
// One workgroup for all rows.

const STATE = 1u;

override SCORES: u32;

struct Settings {
  threshold: f32,
}

@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read> logits: array<f32>;
@group(0) @binding(2) var<storage, read> candidates: array<vec4<u32>>;
@group(0) @binding(3) var<storage, read_write> prefix: array<u32>;
@group(0) @binding(4) var<storage, read_write> chosen: array<u32>;
@group(0) @binding(5) var<storage, read_write> packing: array<vec4<u32>>;
@group(0) @binding(6) var<storage, read_write> kept_rows: array<u32>;
@group(0) @binding(7) var<uniform> settings: Settings;

fn is_kept(row: u32) -> bool {
  var score = row;
  if (SCORES == STATE) {
    score = candidates[row].x;
  }
  return logits[score] > settings.threshold;
}

@compute @workgroup_size(WIDTH)
fn select_rows(@builtin(local_invocation_index) lane: u32) {
  let count = rows[0];
  // Each invocation takes a run of neighbours, so that one scan gives every candidate its place.
  let run = (count + WIDTH - 1u) / WIDTH;
  let start = min(lane * run, count);
  let end = min(start + run, count);
  var kept = 0u;
  for (var row = start; row < end; row++) {
    kept += u32(is_kept(row));
  }
  var place = scan_before(lane, vec2<u32>(kept, 0u)).x;
  if (lane == WIDTH - 1u) {
    prefix[count] = place + kept;
    kept_rows[0] = place + kept;
  }
  for (var row = start; row < end; row++) {
    prefix[row] = place;
    place += u32(is_kept(row));
  }
  storageBarrier(); // a sequence's end may be another invocation's entry
  for (var row = lane; row < count; row += WIDTH) {
    if (is_kept(row)) {
      let slot = prefix[row];
      let candidate = candidates[row];
      chosen[slot] = row;
      packing[slot] = vec4<u32>(candidate.xy, prefix[candidate.z], prefix[candidate.w]);
    }
  }
}
