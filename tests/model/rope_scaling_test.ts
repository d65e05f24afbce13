/** Scaled frequencies against those of Hugging Face's library (fixtures/rope), which the reference must have too. */
import { assertEquals } from "@std/assert";
import type { ModelConfig } from "../../model/config.ts";
import { parseModelConfig } from "../../model/config_file.ts";
import { ropeScales } from "../../model/rope_scaling.ts";
import { ropeFrequencies } from "../reference/rope.ts";
import { tinyRopeScaling } from "../reference/tiny_model.ts";
import { assertClose } from "../support/close.ts";

interface GoldenScaling {
  readonly name: string;
  readonly config: Readonly<Record<string, unknown>>;
  readonly attention_factor: number;
  readonly inverse_frequencies: readonly number[];
}

const golden: readonly GoldenScaling[] = JSON.parse(
  Deno.readTextFileSync(new URL("../../fixtures/rope/scaling.json", import.meta.url)),
);

const sizes = {
  vocab_size: 32,
  hidden_size: 32,
  intermediate_size: 32,
  num_attention_heads: 2,
  num_hidden_layers: 1,
};

/** Float64 sums and powers in another order. */
const relative = 1e-14;

function frequencies(config: ModelConfig): number[] {
  const { divisors } = ropeScales(config);
  return Array.from(divisors, (divisor, i) => config.ropeTheta ** (-2 * i / config.headDim) / divisor);
}

for (const { name, config: fields, attention_factor, inverse_frequencies } of golden) {
  Deno.test(`ropeScales and the reference have Hugging Face's frequencies: ${name}`, () => {
    const config = parseModelConfig({ ...sizes, ...fields }, { source: name });
    const { headDim, ropeTheta: theta, ropeScaling: scaling } = config;
    const both = { ropeScales: frequencies(config), reference: ropeFrequencies({ headDim, theta, scaling }) };
    for (const [label, met] of Object.entries(both)) {
      // Each by itself: the slowest frequency is a millionth of the fastest.
      met.forEach((value, i) =>
        assertClose([value], [inverse_frequencies[i]!], { relative, label: `${label} ${i}` })
      );
      assertEquals(met.length, inverse_frequencies.length);
    }
    assertClose([ropeScales(config).attentionFactor], [attention_factor], { relative, label: "factor" });
  });
}

Deno.test("ropeScales leaves a model without scaling exactly as it is, and takes a file's factors as they are", () => {
  const plain = { headDim: 8, ropeTheta: 10000 };
  const ones = { divisors: new Float64Array(4).fill(1), attentionFactor: 1 };
  assertEquals(ropeScales({ ...plain, ropeScaling: null }), ones);
  const factors = [1, 1.25, 3, 8];
  assertEquals(ropeScales({ ...plain, ropeScaling: { kind: "factors", factors } }), {
    divisors: Float64Array.from(factors),
    attentionFactor: 1,
  });
});

Deno.test("the tiny models' scaling keeps one frequency and puts the other on the ramp", () => {
  const { divisors } = ropeScales({ headDim: 4, ropeTheta: 100, ropeScaling: tinyRopeScaling });
  assertEquals(divisors[0], 1);
  assertEquals(divisors[1]! > 1.5 && divisors[1]! < 3.9, true, String(divisors));
});
