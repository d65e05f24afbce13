// Part of sample.wgsl: numbers from the exponential distribution that depend on nothing but a token's place and a seed.

// pcg3d of Jarzynski & Olano 2020, "Hash Functions for GPU Rendering", of four tokens.
fn hash(ids: vec4<u32>, position: u32, seed: u32) -> vec4<u32> {
  var x = ids * 1664525u + 1013904223u;
  var y = vec4<u32>(position * 1664525u + 1013904223u);
  var z = vec4<u32>(seed * 1664525u + 1013904223u);
  x += y * z;
  y += z * x;
  z += x * y;
  x ^= x >> vec4<u32>(16u);
  y ^= y >> vec4<u32>(16u);
  z ^= z >> vec4<u32>(16u);
  return x + y * z;
}

// -log(1 - u), u = (bits + 0.5) / 2^32. A small u would drown in 1 - u, and decides who wins: there the series of
// 2 artanh(u / (2 - u)), whose next term is below half a unit in the last place.
fn exponential(bits: vec4<u32>) -> vec4<f32> {
  let u = (vec4<f32>(bits) + 0.5) / 4294967296.0;
  let rest = (vec4<f32>(~bits) + 0.5) / 4294967296.0;
  let s = u / (2.0 - u);
  let s2 = s * s;
  let series = 2.0 * s * (1.0 + s2 * (1.0 / 3.0 + s2 * (1.0 / 5.0 + s2 / 7.0)));
  return select(-log(rest), series, u < vec4<f32>(0.25));
}
