// Part of attention_backward.wgsl beside attention_turn_32.wgsl.

fn key_gradients(p: Turn, grad_p: Turn, delta: vec4<f32>) -> Turn {
  return Turn(tiles_key_gradients(p.a, grad_p.a, delta), tiles_key_gradients(p.b, grad_p.b, delta),
    tiles_key_gradients(p.c, grad_p.c, delta), tiles_key_gradients(p.d, grad_p.d, delta));
}

fn query_weights(scores: Turn, queries: QueryRows) -> Turn {
  return Turn(tiles_query_weights(scores.a, queries), tiles_query_weights(scores.b, later(queries, 8u)),
    tiles_query_weights(scores.c, later(queries, 16u)), tiles_query_weights(scores.d, later(queries, 24u)));
}

fn query_gradients(p: Turn, grad_p: Turn, queries: QueryRows) -> Turn {
  return Turn(tiles_query_gradients(p.a, grad_p.a, queries), tiles_query_gradients(p.b, grad_p.b, later(queries, 8u)),
    tiles_query_gradients(p.c, grad_p.c, later(queries, 16u)), tiles_query_gradients(p.d, grad_p.d, later(queries, 24u)));
}
