/** Sizes that no model has, names that no program writes, and text that is no JSON: one line each, at once. */
import { assertEquals, assertMatch, assertThrows } from "@std/assert";
import { ConfigError } from "../../model/config.ts";
import { parseModelConfig, parseModelConfigText } from "../../model/config_file.ts";
import { LIMITS } from "../../model/config_schema.ts";
import { ParameterLayout } from "../../model/parameter_layout.ts";
import { layerPlan, parameterCount } from "../../model/parameters.ts";
import { llama2, morLlama } from "../support/llama_configs.ts";

const source = "folder/config.json";

function nested(levels: number): unknown {
  return levels === 0 ? 1 : [nested(levels - 1)];
}

const refused: readonly (readonly [name: string, json: object, message: string])[] = [
  ["an absurd width", { ...llama2, hidden_size: 2 ** 50 }, 'field "hidden_size": '],
  ["absurdly many layers", { ...llama2, num_hidden_layers: 1e9 }, 'field "num_hidden_layers": '],
  [
    "absurdly many recursions",
    { ...morLlama, recursion: { ...morLlama.recursion, num_recursions: 1e9 } },
    '"recursion.num_recursions": ',
  ],
  [
    "absurdly many positions",
    { ...llama2, max_position_embeddings: 1e9 },
    'field "max_position_embeddings": Too big: expected number to be <=16777216, met 1000000000',
  ],
  ["an absurd vocabulary", { ...llama2, vocab_size: 2 ** 53 }, 'field "vocab_size": '],
  [
    "heads that are absurdly wide together",
    { ...llama2, num_attention_heads: 4096, num_key_value_heads: 4096, head_dim: 4096 },
    "4096 heads (num_attention_heads) of 4096 (head_dim) are wider than 262144",
  ],
  ["endless nesting", { ...llama2, note: nested(33) }, "it is nested deeper than 32 levels"],
  [
    "a name of many lines",
    { ...morLlama, recursion: { ...morLlama.recursion, "a\n\u0007b": 1 } },
    '"recursion.a b"',
  ],
  [
    "a name without end",
    { ...morLlama, recursion: { ...morLlama.recursion, ["a".repeat(1000)]: 1 } },
    `...${"a".repeat(168)}"; remove it or correct its name`,
  ],
];

for (const [name, json, message] of refused) {
  Deno.test(`parseModelConfig refuses ${name}`, () => {
    const error = assertThrows(() => parseModelConfig(json, { source }), ConfigError, message);
    assertMatch(error.message, /^Cannot use config folder\/config\.json: .+$/);
  });
}

Deno.test("the largest model that parseModelConfig accepts can be counted exactly and laid out at once", () => {
  const config = parseModelConfig({
    vocab_size: LIMITS.vocabulary,
    hidden_size: LIMITS.width,
    intermediate_size: LIMITS.width,
    num_attention_heads: LIMITS.width / 4,
    num_key_value_heads: LIMITS.width / 4,
    head_dim: 4,
    num_hidden_layers: LIMITS.layers,
    max_position_embeddings: LIMITS.positions,
    tie_word_embeddings: false,
  }, { source });
  assertEquals(Number.isSafeInteger(parameterCount(config)), true);
  assertEquals(Number.isSafeInteger(new ParameterLayout(config).size), true);
  assertEquals(layerPlan(config).first.length, LIMITS.layers);
});

for (const text of ["", "{", '{\n  "a": 1,\n  "b": NaN\n}', '{"vocab_size": 1e999}', "[".repeat(1e5)]) {
  Deno.test(`parseModelConfigText refuses ${JSON.stringify(text.slice(0, 30))} in one line`, () => {
    const { message } = assertThrows(() => parseModelConfigText(text, { source }), ConfigError);
    assertMatch(
      message,
      /^Cannot use config folder\/config\.json: (it is not JSON \(|field "vocab_size": ).*$/,
    );
  });
}
