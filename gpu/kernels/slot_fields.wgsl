// Part of the kernels that move texts through a depth-wise batch: what is known of the text in each slot.
// slots (FIELDS, S) u32, S slots.

const PHASE = 0u;
const STEP = 1u;      // recursion steps that the token has run
const DEPTH = 2u;     // recursion steps that it is to run, where that is decided before the first
const POSITION = 3u;  // of the token
const REMAINING = 4u; // tokens still to be drawn
const TOKEN = 5u;
const FIELDS = 6u;

// Phases.
const ENDED = 0u;     // no text, or one that waits for nothing but the host
const ENTERING = 1u;  // a token that no layer has seen
const RECURRING = 2u; // ready for recursion step STEP
const LEAVING = 3u;   // through with the recursion

fn slot_count() -> u32 {
  return arrayLength(&slots) / FIELDS;
}

fn field(name: u32, slot: u32) -> u32 {
  return name * slot_count() + slot;
}
