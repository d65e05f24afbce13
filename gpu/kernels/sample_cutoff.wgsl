// Part of sample.wgsl: the keys up to which top-k and top-p keep tokens, found by a radix select over weighted keys.
// For top-k a token weighs one, for top-p exp(l - largest) in units of 2^-31. Sums of weights are x + 2^24 y with
// x < 2^24: exact, in whatever order they are added.

const BINS = 256u; // a multiple of WIDTH
const LIMB = 16777216u;
// A multiple of 4. Where the GROUPS parts of the vocabulary are alike, about GROUPS * log(GROUPS) tokens are up to the
// last of their best: 1,400.
const SHORTLIST = 2048u;

var<workgroup> bins_low: array<atomic<u32>, BINS>;
var<workgroup> bins_high: array<atomic<u32>, BINS>; // carries out of bins_low
var<workgroup> total: vec2<u32>;
var<workgroup> found: vec3<u32>; // bin of the cutoff, and the weight wanted of that bin
var<workgroup> shortlist: array<u32, SHORTLIST>;
var<workgroup> listed: atomic<u32>;
var<workgroup> list_length: u32;

// The tokens that a search goes over: those on the shortlist, or all if its length is 0.
struct Source {
  row: Row,
  length: u32,
}

fn source_end(source: Source) -> u32 {
  return select(VOCAB, source.length, source.length > 0u);
}

fn source_keys(source: Source, v: u32) -> vec4<u32> {
  if (source.length > 0u) {
    return vec4<u32>(shortlist[v], shortlist[v + 1u], shortlist[v + 2u], shortlist[v + 3u]);
  }
  return penalised_keys(source.row, v);
}

// The set of elements as bits, for loops over those: a software adapter runs through every branch not taken.
fn set_bits(elements: vec4<bool>) -> u32 {
  return dot(select(vec4<u32>(), vec4<u32>(1u, 2u, 4u, 8u), elements), vec4<u32>(1u));
}

// Lists the keys up to the row's bound. Returns how many, GROUPS or more or all tokens; 0 if the list is too short.
fn list_best(lane: u32, row: Row) -> u32 {
  for (var i = lane; i < SHORTLIST; i += WIDTH) {
    shortlist[i] = 0xffffffffu;
  }
  workgroupBarrier();
  for (var v = lane * 4u; v < VOCAB; v += WIDTH * 4u) {
    let keys = penalised_keys(row, v);
    for (var left = set_bits(keys <= vec4<u32>(row.bound)); left != 0u; left &= left - 1u) {
      let place = atomicAdd(&listed, 1u);
      if (place < SHORTLIST) {
        shortlist[place] = keys[firstTrailingBit(left)];
      }
    }
  }
  workgroupBarrier();
  if (lane == 0u) {
    let length = atomicLoad(&listed);
    list_length = select(0u, length, length <= SHORTLIST);
  }
  return workgroupUniformLoad(&list_length);
}

fn is_less(a: vec2<u32>, b: vec2<u32>) -> bool {
  return a.y < b.y || (a.y == b.y && a.x < b.x);
}

fn carried(weight: vec2<u32>) -> vec2<u32> {
  return vec2<u32>(weight.x % LIMB, weight.y + weight.x / LIMB);
}

fn weight_of_bin(bin: u32) -> vec2<u32> {
  let low = atomicLoad(&bins_low[bin]);
  return vec2<u32>(low % LIMB, low / LIMB + atomicLoad(&bins_high[bin]) * (0xffffffffu / LIMB + 1u));
}

fn token_weights(row: Row, keys: vec4<u32>) -> vec4<u32> {
  return vec4<u32>(exp(values_of(keys) - vec4<f32>(row.largest)) * 2147483648.0);
}

// Weight for top-p of the tokens up to a key.
fn weight_up_to(lane: u32, source: Source, last: u32) -> vec2<u32> {
  var sum = vec2<u32>();
  for (var v = lane * 4u; v < source_end(source); v += WIDTH * 4u) {
    let keys = source_keys(source, v);
    let weights = select(vec4<u32>(), token_weights(source.row, keys), keys <= vec4<u32>(last));
    let ones = vec4<u32>(1u);
    sum = carried(sum + vec2<u32>(dot(weights % LIMB, ones), dot(weights / LIMB, ones)));
  }
  let before = scan_before(lane, sum);
  if (lane == WIDTH - 1u) {
    total = carried(before + sum);
  }
  return workgroupUniformLoad(&total);
}

// A fraction of a weight, neither nothing nor more than all.
fn share(fraction: f32, all: vec2<u32>) -> vec2<u32> {
  let wanted = max(fraction * (f32(all.y) * f32(LIMB) + f32(all.x)), 1.0);
  let limbs = floor(wanted / f32(LIMB));
  let rounded = vec2<u32>(u32(wanted - limbs * f32(LIMB)), u32(limbs));
  return select(rounded, all, is_less(all, rounded));
}

// The lowest key with the wanted weight up to it, of tokens up to the last key. Eight bits a turn.
fn cutoff_key(lane: u32, source: Source, is_count: bool, weight: vec2<u32>, last: u32) -> u32 {
  var key = 0u;
  var known = 0u; // mask of the bits found so far
  var wanted = weight;
  for (var shift = 24i; shift >= 0i; shift -= 8i) {
    for (var bin = lane; bin < BINS; bin += WIDTH) {
      atomicStore(&bins_low[bin], 0u);
      atomicStore(&bins_high[bin], 0u);
    }
    workgroupBarrier();
    for (var v = lane * 4u; v < source_end(source); v += WIDTH * 4u) {
      let keys = source_keys(source, v);
      let weights = select(token_weights(source.row, keys), vec4<u32>(1u), is_count);
      let is_inside = (keys <= vec4<u32>(last)) & ((keys & vec4<u32>(known)) == vec4<u32>(key));
      for (var left = set_bits(is_inside); left != 0u; left &= left - 1u) {
        let i = firstTrailingBit(left);
        let bin = (keys[i] >> u32(shift)) % BINS;
        if (atomicAdd(&bins_low[bin], weights[i]) > 0xffffffffu - weights[i]) {
          atomicAdd(&bins_high[bin], 1u);
        }
      }
    }
    workgroupBarrier();
    let bins = BINS / WIDTH;
    var own = vec2<u32>();
    for (var bin = lane * bins; bin < (lane + 1u) * bins; bin++) {
      own = carried(own + weight_of_bin(bin));
    }
    var before = carried(scan_before(lane, own));
    if (is_less(before, wanted) && !is_less(carried(before + own), wanted)) {
      var bin = lane * bins;
      var after = carried(before + weight_of_bin(bin));
      for (; is_less(after, wanted); bin++) {
        before = after;
        after = carried(before + weight_of_bin(bin + 1u));
      }
      let left = wanted - before;
      found = vec3<u32>(bin, left.x % LIMB, left.y - u32(wanted.x < before.x));
    }
    workgroupBarrier();
    key |= found.x << u32(shift);
    known |= (BINS - 1u) << u32(shift);
    wanted = found.yz;
  }
  return key;
}

// Key up to which top-k and top-p keep tokens.
fn ranked_cutoff(lane: u32, row: Row) -> u32 {
  var last = EXCLUDED;
  let length = list_best(lane, row);
  var source = Source(row, 0u);
  if (has_top_k(row)) {
    source.length = select(0u, length, row.sampling.top_k <= GROUPS);
    last = cutoff_key(lane, source, true, vec2<u32>(row.sampling.top_k, 0u), last);
  }
  if (row.sampling.top_p < 1.0) {
    last = min(last, EXCLUDED - 1u);
    let wanted = share(row.sampling.top_p, weight_up_to(lane, source, last));
    if (source.length < length) {
      source.length = length;
      if (is_less(weight_up_to(lane, source, last), wanted)) {
        source.length = 0u;
      }
    }
    last = cutoff_key(lane, source, false, wanted, last);
  }
  return last;
}
