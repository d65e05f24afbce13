// Part of attention_backward.wgsl beside attention_turn_8.wgsl.

fn key_gradients(p: Turn, grad_p: Turn, delta: vec4<f32>) -> Turn {
  return tiles_key_gradients(p, grad_p, delta);
}

fn query_weights(scores: Turn, queries: QueryRows) -> Turn {
  return tiles_query_weights(scores, queries);
}

fn query_gradients(p: Turn, grad_p: Turn, queries: QueryRows) -> Turn {
  return tiles_query_gradients(p, grad_p, queries);
}
