// Part of the attention kernels: the other rows of a turn are 8. An invocation's sums of more would not stay in the
// registers of a GPU.

const TURN = 8u;

// Scores, or vectors, of the others; and which rows they are.
alias Turn = Tiles;
alias Others = Eight;

// Rows `first` on of those before `end`, which is past at least one of them; beyond it is the last one, which the caller masks.
fn others_from(table: u32, first: u32, end: u32, lane: u32) -> Others {
  return eight_from(table, first, end, lane);
}

fn load_kv(others: Others, column: u32) -> Turn {
  return load_kv_eight(others, column);
}

fn load_q(others: Others, column: u32) -> Turn {
  return load_q_eight(others, column);
}

fn load_grad_out(others: Others, column: u32) -> Turn {
  return load_grad_out_eight(others, column);
}

fn add_products(scores: Turn, others: Turn, own: mat4x4<f32>) -> Turn {
  return add_tiles_products(scores, others, own);
}

fn weighted_sum(others: Turn, weights: Turn) -> mat4x4<f32> {
  return tiles_sum(others, weights);
}

fn mask_scores(products: Turn, other: u32, first: vec4<u32>, end: vec4<u32>) -> Turn {
  return mask_tiles(products, other, first, end);
}

fn maxima(scores: Turn) -> vec4<f32> {
  return tiles_maxima(scores);
}

fn total_of(weights: Turn) -> vec4<f32> {
  return tiles_total(weights);
}

fn exp_scores(scores: Turn, shift: vec4<f32>) -> Turn {
  return exp_tiles(scores, shift);
}
