import { sigmoid } from "./sigmoid.ts";

/**
 * Gated activation of a Llama layer (Shazeer 2020, arXiv 2002.05202, section 2).
 *
 * out = silu(gate) * up with silu(g) = g * sigmoid(g);
 * each row of gateUp (rows, 2F) is [gate | up], out (rows, F).
 */
export function swiglu(
  { gateUp }: { gateUp: Float64Array },
  { intermediateSize: width }: { intermediateSize: number },
): Float64Array {
  const out = new Float64Array(gateUp.length / 2);
  for (let i = 0; i < out.length; i++) {
    const gate = Math.floor(i / width) * 2 * width + i % width;
    out[i] = gateUp[gate]! * sigmoid(gateUp[gate]!) * gateUp[gate + width]!;
  }
  return out;
}

/**
 * Gradient of `swiglu`; gradOut (rows, F), gradGateUp (rows, 2F).
 *
 * With s = sigmoid(gate): gradGate = gradOut * up * s (1 + gate (1 - s)), gradUp = gradOut * gate * s.
 */
export function swigluBackward(
  { gradOut, gateUp }: { gradOut: Float64Array; gateUp: Float64Array },
  { intermediateSize: width }: { intermediateSize: number },
): Float64Array {
  const gradGateUp = new Float64Array(gateUp.length);
  for (let i = 0; i < gradOut.length; i++) {
    const gate = Math.floor(i / width) * 2 * width + i % width;
    const g = gateUp[gate]!;
    const s = sigmoid(g);
    gradGateUp[gate] = gradOut[i]! * gateUp[gate + width]! * s * (1 + g * (1 - s));
    gradGateUp[gate + width] = gradOut[i]! * g * s;
  }
  return gradGateUp;
}
