// What follows the draw of a token for the slot s = records[i].x of each row i:
//   log[tallies[EVENTS] + i] = (s, token, bits of its log-probability, recursion steps that the token before it ran)
// Then the text has ended, by one of the `ends` (their number in front), by its length or by damage; or the token enters.
// tokens, log_probabilities (S); log (records, 4); records (rows, 4). One workgroup for all rows.

@group(0) @binding(0) var<storage, read> rows: array<u32>;
@group(0) @binding(1) var<storage, read> records: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> slots: array<u32>;
@group(0) @binding(3) var<storage, read> tokens: array<u32>;
@group(0) @binding(4) var<storage, read> log_probabilities: array<u32>; // f32, handed on by their bits
@group(0) @binding(5) var<storage, read> ends: array<u32>;
@group(0) @binding(6) var<storage, read_write> log: array<vec4<u32>>;
@group(0) @binding(7) var<storage, read_write> tallies: array<u32>;

const WIDTH = 64u;
const NO_TOKEN = 0xffffffffu;

fn is_end(token: u32) -> bool {
  for (var i = 1u; i <= ends[0]; i++) {
    if (ends[i] == token) {
      return true;
    }
  }
  return token == NO_TOKEN;
}

@compute @workgroup_size(WIDTH)
fn finish(@builtin(local_invocation_index) lane: u32) {
  let events = tallies[EVENTS];
  for (var row = lane; row < rows[0]; row += WIDTH) {
    let slot = records[row].x;
    let token = tokens[slot];
    log[events + row] = vec4<u32>(slot, token, log_probabilities[slot], slots[field(STEP, slot)]);
    let remaining = slots[field(REMAINING, slot)] - 1u;
    slots[field(REMAINING, slot)] = remaining;
    slots[field(TOKEN, slot)] = token;
    slots[field(POSITION, slot)] += 1u;
    slots[field(PHASE, slot)] = select(ENTERING, ENDED, remaining == 0u || is_end(token));
  }
  storageBarrier(); // all have read where the log ends
  if (lane == 0u) {
    tallies[EVENTS] = events + rows[0];
  }
}
