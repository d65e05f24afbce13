// In place of attention_turn_8.wgsl on a software adapter: the other rows of a turn are 32, four times 8. What an
// invocation reads and writes of its own rows in a turn serves four times as many others: on lavapipe, where each read or
// write costs as much as dozens of products, attention takes 0.45 of the time with 8 a turn.

const TURN = 32u;

struct Turn {
  a: Tiles,
  b: Tiles,
  c: Tiles,
  d: Tiles,
}

struct Others {
  a: Eight,
  b: Eight,
  c: Eight,
  d: Eight,
}

// Rows `first` on of those before `end`, which is past at least one of them; beyond it is the last one, which the caller masks.
fn others_from(table: u32, first: u32, end: u32, lane: u32) -> Others {
  return Others(eight_from(table, first, end, lane), eight_from(table, first + 8u, end, lane),
    eight_from(table, first + 16u, end, lane), eight_from(table, first + 24u, end, lane));
}

fn load_kv(others: Others, column: u32) -> Turn {
  return Turn(load_kv_eight(others.a, column), load_kv_eight(others.b, column), load_kv_eight(others.c, column),
    load_kv_eight(others.d, column));
}

fn load_q(others: Others, column: u32) -> Turn {
  return Turn(load_q_eight(others.a, column), load_q_eight(others.b, column), load_q_eight(others.c, column),
    load_q_eight(others.d, column));
}

fn load_grad_out(others: Others, column: u32) -> Turn {
  return Turn(load_grad_out_eight(others.a, column), load_grad_out_eight(others.b, column),
    load_grad_out_eight(others.c, column), load_grad_out_eight(others.d, column));
}

fn add_products(scores: Turn, others: Turn, own: mat4x4<f32>) -> Turn {
  return Turn(add_tiles_products(scores.a, others.a, own), add_tiles_products(scores.b, others.b, own),
    add_tiles_products(scores.c, others.c, own), add_tiles_products(scores.d, others.d, own));
}

fn weighted_sum(others: Turn, weights: Turn) -> mat4x4<f32> {
  return (tiles_sum(others.a, weights.a) + tiles_sum(others.b, weights.b)) +
    (tiles_sum(others.c, weights.c) + tiles_sum(others.d, weights.d));
}

fn mask_scores(products: Turn, other: u32, first: vec4<u32>, end: vec4<u32>) -> Turn {
  return Turn(mask_tiles(products.a, other, first, end), mask_tiles(products.b, other + 8u, first, end),
    mask_tiles(products.c, other + 16u, first, end), mask_tiles(products.d, other + 24u, first, end));
}

fn maxima(scores: Turn) -> vec4<f32> {
  return max(max(tiles_maxima(scores.a), tiles_maxima(scores.b)), max(tiles_maxima(scores.c), tiles_maxima(scores.d)));
}

fn total_of(weights: Turn) -> vec4<f32> {
  return (tiles_total(weights.a) + tiles_total(weights.b)) + (tiles_total(weights.c) + tiles_total(weights.d));
}

fn exp_scores(scores: Turn, shift: vec4<f32>) -> Turn {
  return Turn(exp_tiles(scores.a, shift), exp_tiles(scores.b, shift), exp_tiles(scores.c, shift),
    exp_tiles(scores.d, shift));
}
