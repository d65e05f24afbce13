/** Damaged configurations end in a model that can be laid out and written again, or in one line that says why not. */
import { assertEquals, assertGreater, assertInstanceOf, assertLess, assertMatch } from "@std/assert";
import { ConfigError, type ModelConfig } from "../../model/config.ts";
import { modelConfigToJson, parseModelConfigText } from "../../model/config_file.ts";
import { ParameterLayout } from "../../model/parameter_layout.ts";
import { layerPlan } from "../../model/parameters.ts";
import { ropeScales } from "../../model/rope_scaling.ts";
import { mutatedJson } from "../support/json_mutations.ts";
import { llama31, mistral, morLlama } from "../support/llama_configs.ts";

const source = "config.json";
const MUTATIONS = 100;

function parsed(text: string): ModelConfig | null {
  try {
    return parseModelConfigText(text, { source });
  } catch (error) {
    assertInstanceOf(error, ConfigError);
    // deno-lint-ignore no-control-regex -- none may reach a terminal
    assertMatch(error.message, /^Cannot use config config\.json: [^\x00-\x1f]{5,410}$/);
    return null;
  }
}

/** Reads a text, lays the model out and writes it again; whether it could be read. */
function isUsable(text: string, label: string): boolean {
  const start = performance.now();
  const config = parsed(text);
  if (config) {
    const written = JSON.stringify(modelConfigToJson(config));
    const again = JSON.stringify(modelConfigToJson(parseModelConfigText(written, { source })));
    assertEquals(JSON.parse(again), JSON.parse(written), label);
    assertEquals(Number.isSafeInteger(new ParameterLayout(config).size), true, label);
    layerPlan(config);
    const { divisors, attentionFactor } = ropeScales(config);
    assertEquals([...divisors, attentionFactor].every((value) => value > 0 && value < 1e7), true, label);
  }
  assertLess(performance.now() - start, 2000, label);
  return config !== null;
}

/** A text with one number of it after the other replaced. */
function withEachNumber(json: object, replacement: string): string[] {
  const text = JSON.stringify(json);
  return Array.from(
    text.matchAll(/(?<=[:,[])-?[\d.]+/g),
    ({ 0: number, index }) => text.slice(0, index) + replacement + text.slice(index + number.length),
  );
}

for (const [name, json] of Object.entries({ llama31, mistral, morLlama })) {
  Deno.test(`${MUTATIONS} damaged versions of ${name} are read or refused in one line`, () => {
    const seeds = Array.from({ length: MUTATIONS }, (_, seed) => seed);
    const read = seeds.filter((seed) => isUsable(mutatedJson(json, { seed }), `seed ${seed}`)).length;
    // Damage that is never noticed, or always, would prove little.
    assertEquals(read > MUTATIONS / 10 && read < MUTATIONS * 0.75, true, `${read} read`);
  });

  for (const replacement of ["1125899906842624", "1000000000", "1e308", "5e-324", "0", "-1"]) {
    Deno.test(`${name} with any of its numbers ${replacement} is read or refused in one line`, () => {
      const texts = withEachNumber(json, replacement);
      assertGreater(texts.length, 10);
      for (const text of texts) isUsable(text, text);
    });
  }
}
