// Part of kernels that compact: sums over the earlier invocations of a workgroup of WIDTH, a power of two.

override WIDTH: u32;

var<workgroup> scanned: array<vec2<u32>, WIDTH>;

// Sum of the values of invocations 0..lane, without lane's own (Hillis & Steele 1986). All invocations must call it.
fn scan_before(lane: u32, value: vec2<u32>) -> vec2<u32> {
  var sum = value;
  scanned[lane] = sum;
  for (var stride = 1u; stride < WIDTH; stride *= 2u) {
    workgroupBarrier();
    var earlier = vec2<u32>();
    if (lane >= stride) {
      earlier = scanned[lane - stride];
    }
    workgroupBarrier();
    sum += earlier;
    scanned[lane] = sum;
  }
  return sum - value;
}
