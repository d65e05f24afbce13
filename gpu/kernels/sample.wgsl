// tokens[s] = argmax over the kept v of (l_v - max l) / temperature - log(E_v), s = slots[r]: a draw from
// softmax(l / temperature) over the kept tokens (the Gumbel-max trick; Maddison et al. 2014, "A* Sampling").
// E_v ~ Exp(1) is a hash of (seed, positions[s], v). l is logits[r] with the repeat penalty on the seen tokens.
// Kept are the tokens that top-k, top-p (of what top-k keeps) and min-p all keep. Temperature 0 takes the largest l.
// log_probabilities[s] = log softmax(logits[r])[tokens[s]]; seen[s] gets the token's bit.
// logits (rows, STRIDE), of which VOCAB columns count; slots (rows), SLOT_STRIDE elements each; sampling, positions, tokens and
// log_probabilities (S); seen (S, WORDS). One workgroup per row.

override VOCAB: u32;
override STRIDE: u32; // a multiple of 4
override WORDS: u32;  // VOCAB bits
override SLOT_STRIDE: u32 = 1u;

const NO_TOKEN = 0xffffffffu;
const DAMAGED = 0u;           // before the key of any number
const EXCLUDED = 0xff800000u; // the key of -Infinity
const LOWEST = -3.4028234e38;
const GROUPS = 256u;          // parts of the vocabulary: one per invocation, or per element of its vectors

struct Sampling {
  inverse_temperature: f32, // 0 takes the likeliest
  top_k: u32,               // 0 is off
  top_p: f32,               // 1 is off
  log_min_p: f32,           // LOWEST is off
  repeat_penalty: f32,      // 1 is off
  inverse_penalty: f32,
  seed: u32,
  unused: u32,
}

struct Row {
  first: u32,   // of its logits, in vectors
  words: u32,   // first word of its slot's seen tokens
  largest: f32, // penalised logit
  bound: u32,   // key up to which there are GROUPS tokens or more, or all
  sampling: Sampling,
}

@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read> logits: array<vec4<u32>>; // f32, compared by their bits
@group(0) @binding(2) var<storage, read> slots: array<u32>;
@group(0) @binding(3) var<storage, read> sampling: array<Sampling>;
@group(0) @binding(4) var<storage, read> positions: array<u32>;
@group(0) @binding(5) var<storage, read_write> seen: array<u32>;
@group(0) @binding(6) var<storage, read_write> tokens: array<u32>;
@group(0) @binding(7) var<storage, read_write> log_probabilities: array<f32>;

var<workgroup> best_key: atomic<u32>;
var<workgroup> best_id: atomic<u32>;
var<workgroup> winner: vec2<u32>;
var<workgroup> bound: atomic<u32>;

// Ascending where f32 descends; the two zeros are equal. A NaN is below the key of Infinity or beyond EXCLUDED.
fn rank_keys(float_bits: vec4<u32>) -> vec4<u32> {
  let bits = select(float_bits, vec4<u32>(), float_bits == vec4<u32>(0x80000000u));
  return select(bits ^ vec4<u32>(0x7fffffffu), bits, bits > vec4<u32>(0x7fffffffu));
}

fn values_of(keys: vec4<u32>) -> vec4<f32> {
  return bitcast<vec4<f32>>(select(keys ^ vec4<u32>(0x7fffffffu), keys, keys > vec4<u32>(0x7fffffffu)));
}

fn columns_at(v: u32) -> vec4<u32> {
  return vec4<u32>(v) + vec4<u32>(0u, 1u, 2u, 3u);
}

// Keys of the logits of v..v + 3.
fn logit_keys(row: Row, v: u32) -> vec4<u32> {
  let keys = rank_keys(logits[row.first + v / 4u]);
  return select(vec4<u32>(EXCLUDED), keys, columns_at(v) < vec4<u32>(VOCAB));
}

// The same after the repeat penalty. A product has the same bits in every pass and on every adapter, a quotient not.
fn penalised(row: Row, v: u32, keys: vec4<u32>) -> vec4<u32> {
  if (row.sampling.repeat_penalty == 1.0) {
    return keys;
  }
  let bits = vec4<u32>(seen[row.words + v / 32u] >> (v % 32u)) & vec4<u32>(1u, 2u, 4u, 8u);
  let values = values_of(keys);
  let penalty = vec4<f32>(row.sampling.repeat_penalty);
  let factors = select(penalty, vec4<f32>(row.sampling.inverse_penalty), values > vec4<f32>());
  let products = clamp(values * factors, vec4<f32>(LOWEST), vec4<f32>(-LOWEST));
  let is_seen = (bits != vec4<u32>()) & (keys < vec4<u32>(EXCLUDED));
  return select(keys, rank_keys(bitcast<vec4<u32>>(products)), is_seen);
}

fn penalised_keys(row: Row, v: u32) -> vec4<u32> {
  return penalised(row, v, logit_keys(row, v));
}

// The pair with the lowest key, of equals the lowest id, for every invocation. All of them must call it.
fn lowest_pair(lane: u32, pair: vec2<u32>) -> vec2<u32> {
  if (lane == 0u) {
    atomicStore(&best_key, 0xffffffffu);
    atomicStore(&best_id, NO_TOKEN);
  }
  workgroupBarrier();
  atomicMin(&best_key, pair.x);
  workgroupBarrier();
  if (atomicLoad(&best_key) == pair.x) {
    atomicMin(&best_id, pair.y);
  }
  workgroupBarrier();
  if (lane == 0u) {
    winner = vec2<u32>(atomicLoad(&best_key), atomicLoad(&best_id));
  }
  return workgroupUniformLoad(&winner);
}

// The invocation's best pair of key and id, improved by those of v..v + 3.
fn better(pair: vec2<u32>, keys: vec4<u32>, v: u32) -> vec2<u32> {
  var best = pair;
  for (var i = 0u; i < 4u; i++) {
    if (keys[i] < best.x) {
      best = vec2<u32>(keys[i], v + i);
    }
  }
  return best;
}

fn has_top_k(row: Row) -> bool {
  return row.sampling.top_k > 0u && row.sampling.top_k < VOCAB;
}

// Key up to which tokens are kept.
fn kept_up_to(lane: u32, row: Row) -> u32 {
  var last = EXCLUDED - 1u;
  if (has_top_k(row) || row.sampling.top_p < 1.0) {
    last = min(last, ranked_cutoff(lane, row));
  }
  if (row.sampling.log_min_p > LOWEST) {
    last = min(last, rank_keys(bitcast<vec4<u32>>(vec4<f32>(row.largest + row.sampling.log_min_p))).x);
  }
  return last;
}

// Key of the best score and its token, among the tokens up to a key.
fn draw(lane: u32, row: Row, last: u32, position: u32) -> vec2<u32> {
  var best = vec2<u32>(0xffffffffu, NO_TOKEN);
  for (var v = lane * 4u; v < VOCAB; v += WIDTH * 4u) {
    let keys = penalised_keys(row, v);
    let is_kept = keys <= vec4<u32>(last);
    if (any(is_kept)) {
      let noise = log(exponential(hash(columns_at(v), position, row.sampling.seed)));
      let scores = (values_of(keys) - vec4<f32>(row.largest)) * row.sampling.inverse_temperature - noise;
      best = better(best, select(vec4<u32>(0xffffffffu), rank_keys(bitcast<vec4<u32>>(scores)), is_kept), v);
    }
  }
  return lowest_pair(lane, best);
}

@compute @workgroup_size(WIDTH)
fn sample(
  @builtin(workgroup_id) group: vec3<u32>,
  @builtin(num_workgroups) groups: vec3<u32>,
  @builtin(local_invocation_id) local: vec3<u32>,
) {
  let r = group.x + group.y * groups.x;
  if (r >= rows[0]) {
    return;
  }
  let lane = local.x;
  let slot = slots[r * SLOT_STRIDE];
  var row = Row(r * (STRIDE / 4u), slot * WORDS, 0.0, EXCLUDED, sampling[slot]);
  // The likeliest token, and the model's own distribution as in cross_entropy.wgsl.
  var best = vec2<u32>(0xffffffffu, NO_TOKEN);
  var lowest = vec4<u32>(0xffffffffu);
  var own_largest = LOWEST;
  var own_sums = vec4<f32>();
  for (var v = lane * 4u; v < VOCAB; v += WIDTH * 4u) {
    let keys = logit_keys(row, v);
    if (any((keys <= vec4<u32>(0x007fffffu)) | (keys > vec4<u32>(EXCLUDED)))) {
      best = vec2<u32>(DAMAGED, 0u);
    }
    let ranks = penalised(row, v, keys);
    best = better(best, ranks, v);
    lowest = min(lowest, ranks);
    let values = select(values_of(keys), vec4<f32>(LOWEST), keys >= vec4<u32>(EXCLUDED));
    let peak = max(max(values.x, values.y), max(values.z, values.w));
    if (peak > own_largest) {
      own_sums *= exp(own_largest - peak);
      own_largest = peak;
    }
    own_sums += exp(values - own_largest);
  }
  // Each of GROUPS parts of the vocabulary has a token up to the bound.
  let bound_of_elements = max(max(lowest.x, lowest.y), max(lowest.z, lowest.w));
  atomicMax(&bound, select(bound_of_elements, best.x, WIDTH == GROUPS));
  let likeliest = lowest_pair(lane, best);
  if (likeliest.x == DAMAGED || likeliest.x >= EXCLUDED) {
    if (lane == 0u) {
      tokens[slot] = NO_TOKEN;
      log_probabilities[slot] = 0.0;
    }
    return;
  }
  let row_largest = row_max(local, own_largest);
  let sum = row_sum(local, dot(own_sums, vec4<f32>(1.0)) * exp(own_largest - row_largest));
  var token = likeliest.y;
  if (row.sampling.inverse_temperature > 0.0) {
    row.largest = values_of(vec4<u32>(likeliest.x)).x;
    row.bound = atomicLoad(&bound);
    token = draw(lane, row, kept_up_to(lane, row), positions[slot]).y;
  }
  if (lane == 0u) {
    tokens[slot] = token;
    log_probabilities[slot] = (bitcast<f32>(logits[row.first + token / 4u][token % 4u]) - row_largest) - log(sum);
    seen[row.words + token / 32u] |= 1u << (token % 32u);
  }
}
