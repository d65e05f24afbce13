// Part of the kernels that move texts through a depth-wise batch: what they count. Those of a phase are PLUS its number.

const EVENTS = 0u;    // records in the log
const TURN = 4u;      // the slot whose turn is next
const ROWS_NOW = 8u;  // rows of the last choice
const ROWS = 12u;     // rows since they were cleared
const RUNS = 16u;     // choices with any rows since then
const STALLED = 20u;  // slots passed over at the last choice
