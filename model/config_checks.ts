/** What must hold between the fields of a configuration, and which computations this program has. */
import { z } from "zod";
import { hasUnsharedEnds, type ModelConfig, type RecursionConfig } from "./config.ts";
import { brief, type Fail, firstIssue, LIMITS, type ModelFields, modelSchema } from "./config_schema.ts";
import { misspelledName } from "./files/misspelled_name.ts";
import { toSnakeCase } from "./snake_case.ts";

/** Fields that change the computation, with the only value that this program has; absent and null stand for it. */
const NEUTRAL = {
  attention_bias: false,
  mlp_bias: false,
  hidden_act: "silu",
  rope_interleaved: false,
  partial_rotary_factor: 1,
} as const;

/** Fields whose absence means one thing in a Mistral file and another in a Llama file. */
const MISTRAL_FIELDS = ["num_key_value_heads", "max_position_embeddings", "sliding_window"] as const;

const quantizationSchema = z.strictObject({
  quant_method: z.literal("mor"),
  format: z.enum(["q8_0", "q4_0", "f16"]),
  block_size: z.literal(32),
});

/** Refuses misspelled names. */
export function checkNames(json: object, fail: Fail): void {
  const known = Object.keys(modelSchema.shape);
  // There are tokens besides those that this program knows.
  const names = Object.keys(json).filter((name) => known.includes(name) || !/^[a-z]{3}_token_id$/.test(name));
  const found = misspelledName(names, known);
  if (found) fail(`unknown field "${found.name}"; correct its name if it is ${found.meant}`);
}

/** Refuses a file of a model that computes something else; `json` is the file without defaults. */
export function checkComputation(fields: ModelFields, { json, fail }: { json: object; fail: Fail }): void {
  for (const [name, wanted] of Object.entries(NEUTRAL)) {
    const met = fields[name] ?? wanted;
    if (met !== wanted) fail(`${name} is ${brief(met)}, this version has ${brief(wanted)} only`);
  }
  const { architectures, sliding_window: window, max_position_embeddings: positions } = fields;
  if (architectures?.length && !architectures.some((name) => name.endsWith("ForCausalLM"))) {
    fail(`architectures is ${brief(architectures.join())}, wanted a language model such as LlamaForCausalLM`);
  }
  if (fields.model_type === "mistral") {
    const missing = MISTRAL_FIELDS.find((name) => !Object.hasOwn(json, name));
    if (missing) fail(`a mistral model must say its ${missing}, which is another than llama's when absent`);
    if (fields.recursion) fail("a mistral model has no recursion; set model_type to mor_llama");
  }
  if (window && window < positions) {
    fail(
      `sliding_window is ${window}, this version attends to every earlier token of ${positions} ` +
        `(max_position_embeddings); set max_position_embeddings to ${window} to use the model on so many`,
    );
  }
  if (fields.quantization_config) checkQuantization(fields.quantization_config, fail);
}

function checkQuantization(json: Record<string, unknown>, fail: Fail): void {
  if (json.quant_method !== "mor") {
    fail(
      `quantization_config.quant_method is ${
        brief(json.quant_method)
      }, this version reads weights of f32, f16, ` +
        "bf16 and those of mor quantize; take the model that is not quantized, or a GGUF file of it",
    );
  }
  const { error } = quantizationSchema.safeParse(json);
  if (error) fail(firstIssue(error, { json, parent: "quantization_config" }));
}

/** Refuses sizes that do not fit each other. */
export function checkSizes(config: ModelConfig, fail: Fail): void {
  const { hiddenSize, intermediateSize, numAttentionHeads, numKeyValueHeads, headDim, recursion, router } =
    config;
  if (!Number.isInteger(headDim)) {
    fail(
      `hidden_size ${hiddenSize} is not a multiple of num_attention_heads ${numAttentionHeads}; set head_dim`,
    );
  }
  if (numAttentionHeads % numKeyValueHeads !== 0) {
    fail(
      `num_attention_heads ${numAttentionHeads} is not a multiple of num_key_value_heads ${numKeyValueHeads}`,
    );
  }
  if (numAttentionHeads * headDim > LIMITS.width) {
    fail(
      `${numAttentionHeads} heads (num_attention_heads) of ${headDim} (head_dim) are wider than ${LIMITS.width}`,
    );
  }
  // The kernels read four numbers at a time; head_dim is also halved by RoPE.
  for (const [name, value] of Object.entries({ hiddenSize, intermediateSize, headDim })) {
    if (value % 4 !== 0) {
      fail(`${Object.keys(toSnakeCase({ [name]: 0 }))[0]} is ${value}, must be a multiple of 4`);
    }
  }
  if (recursion) checkRecursion(config, { recursion, fail });
  else if (router) fail("a router needs a recursion; set recursion or set router to null");
}

function checkRecursion(
  config: ModelConfig,
  { recursion, fail }: { recursion: RecursionConfig; fail: Fail },
): void {
  const { router } = config;
  const ends = hasUnsharedEnds(recursion) ? 2 : 0;
  const unrolled = recursion.numRecursions * recursion.blockLayers + ends;
  if (config.numHiddenLayers !== unrolled) {
    fail(
      `num_hidden_layers is ${config.numHiddenLayers}, but ${recursion.sharing} with ${recursion.numRecursions} ` +
        `recursions of ${recursion.blockLayers} layers unrolls to ${unrolled}`,
    );
  }
  const problem = config.kvCache === "shared" ? sharedKeysProblem(config) : null;
  if (problem) fail(problem);
  if (!router) return;
  if (recursion.sharing !== "cycle" && recursion.sharing !== "middle_cycle") {
    fail(`sharing ${recursion.sharing} cannot have a router; use cycle or middle_cycle`);
  }
  if (router.kind === "expert_choice" && router.capacities) {
    checkCapacities(router.capacities, { recursion, fail });
  }
}

/**
 * Why a recursive model cannot run with kv_cache shared; null if it can. Shared keys and values come from the first step,
 * which every token must run with the whole block.
 */
export function sharedKeysProblem({ recursion, router }: ModelConfig): string | null {
  const { sharing } = recursion!;
  if (!sharing.endsWith("cycle")) {
    return `kv_cache shared needs sharing cycle or middle_cycle, met ${sharing}; use kv_cache recursion_wise`;
  }
  const first = router?.kind === "expert_choice" ? router.capacities?.[0] ?? 1 : 1;
  return first < 1
    ? `kv_cache shared needs every token in the first step, but router.capacities starts with ${first}`
    : null;
}

function checkCapacities(
  capacities: readonly number[],
  { recursion: { numRecursions }, fail }: { recursion: RecursionConfig; fail: Fail },
): void {
  if (capacities.length !== numRecursions) {
    fail(
      `router.capacities has ${capacities.length} entries, wanted one for each of ${numRecursions} recursions`,
    );
  }
  if (capacities.some((value, r) => r > 0 && value > capacities[r - 1]!)) {
    fail(`router.capacities [${capacities}] must not increase from step to step`);
  }
}
