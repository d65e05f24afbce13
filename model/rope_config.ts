/**
 * RoPE in config.json: `rope_theta` and Hugging Face's `rope_scaling`, or the `rope_parameters` that newer files have
 * instead of both. Written in the older form, which every version of that library reads.
 */
import { z } from "zod";
import type { ModelConfig, RopeScaling } from "./config.ts";
import { type Fail, firstIssue, type ModelFields, positions, theta } from "./config_schema.ts";
import { toSnakeCase } from "./snake_case.ts";

/** Within these bounds every frequency is a number that is not zero. */
const factor = z.number().min(1).max(1e6);
const divisor = z.number().min(0.01).max(1e6);
const turns = z.number().min(1e-6).max(1e6);
const magnitude = z.number().min(0).max(100);

/** What any kind may have besides its own fields. */
const common = {
  rope_theta: theta.optional(),
  /** Only whole heads are turned. */
  partial_rotary_factor: z.literal(1).optional(),
  /** Said by some files of YaRN; changes nothing. */
  finetuned: z.boolean().optional(),
} as const;

const scalingSchema = z.discriminatedUnion("rope_type", [
  z.strictObject({ ...common, rope_type: z.literal("default") }),
  z.strictObject({ ...common, rope_type: z.literal("linear"), factor }),
  z.strictObject({
    ...common,
    rope_type: z.literal("llama3"),
    factor,
    low_freq_factor: turns,
    high_freq_factor: turns,
    original_max_position_embeddings: positions.optional(),
  }),
  z.strictObject({
    ...common,
    rope_type: z.literal("yarn"),
    factor,
    original_max_position_embeddings: positions.optional(),
    beta_fast: turns.default(32),
    beta_slow: turns.default(1),
    truncate: z.boolean().default(true),
    attention_factor: z.number().positive().max(1000).optional(),
    mscale: magnitude.optional(),
    mscale_all_dim: magnitude.optional(),
  }),
  z.strictObject({ ...common, rope_type: z.literal("factors"), factors: z.array(divisor) }),
], { error: "expected default, linear, llama3, yarn or factors" });

type ScalingFields = z.infer<typeof scalingSchema>;

const FIELDS = ["rope_scaling", "rope_parameters"] as const;

/** Reads a file's base and scaling; fails where the file says two things. */
export function parseRope(
  fields: ModelFields,
  { headDim, fail }: { headDim: number; fail: Fail },
): Pick<ModelConfig, "ropeTheta" | "ropeScaling"> {
  const given = FIELDS.flatMap((name) => fields[name] ? [parseField(name, { fields, fail })] : []);
  const [scaling = null, second = scaling] = given.map((field) => scalingOf(field, { fields, fail }));
  if (JSON.stringify(second) !== JSON.stringify(scaling)) {
    fail("rope_scaling and rope_parameters differ; keep the one that the model was trained with");
  }
  if (scaling?.kind === "factors" && scaling.factors.length !== headDim / 2) {
    fail(`rope_scaling.factors has ${scaling.factors.length} entries, wanted head_dim / 2 = ${headDim / 2}`);
  }
  const bases = [fields.rope_theta, ...given.map(({ rope_theta }) => rope_theta)].filter((base) =>
    base != null
  );
  const [ropeTheta = 10000] = bases;
  const other = bases.find((base) => base !== ropeTheta);
  if (other !== undefined) {
    fail(`rope_theta is both ${ropeTheta} and ${other}; keep the one that the model was trained with`);
  }
  return { ropeTheta, ropeScaling: scaling };
}

function parseField(
  name: typeof FIELDS[number],
  { fields, fail }: { fields: ModelFields; fail: Fail },
): ScalingFields {
  // A field that is null counts as absent; before it was called rope_type, the kind was the "type".
  const { type, ...given } = Object.fromEntries(
    Object.entries(fields[name]!).filter(([, value]) => value !== null),
  );
  const json = { rope_type: type ?? "default", ...given };
  const parsed = scalingSchema.safeParse(json);
  return parsed.success ? parsed.data : fail(firstIssue(parsed.error, { json, parent: name }));
}

function scalingOf(
  field: ScalingFields,
  { fields, fail }: { fields: ModelFields; fail: Fail },
): RopeScaling | null {
  switch (field.rope_type) {
    case "default":
      return null;
    case "linear":
      return { kind: "linear", factor: field.factor };
    case "factors":
      return { kind: "factors", factors: field.factors };
    case "llama3": {
      const { factor, low_freq_factor: lowFreqFactor, high_freq_factor: highFreqFactor } = field;
      if (highFreqFactor <= lowFreqFactor) {
        fail(
          `rope_scaling.high_freq_factor ${highFreqFactor} must be above low_freq_factor ${lowFreqFactor}`,
        );
      }
      const originalMaxPositionEmbeddings = originalPositions(field, { fields, fail });
      return { kind: "llama3", factor, lowFreqFactor, highFreqFactor, originalMaxPositionEmbeddings };
    }
    case "yarn": {
      const { factor, beta_fast: betaFast, beta_slow: betaSlow, truncate } = field;
      if (betaFast < betaSlow) {
        fail(`rope_scaling.beta_fast ${betaFast} must not be below beta_slow ${betaSlow}`);
      }
      const originalMaxPositionEmbeddings = originalPositions(field, { fields, fail });
      const attentionFactor = yarnAttentionFactor(field);
      return {
        kind: "yarn",
        factor,
        originalMaxPositionEmbeddings,
        betaFast,
        betaSlow,
        truncate,
        attentionFactor,
      };
    }
  }
}

/** Those of the field, else of the file, which must not be others; else all of the model's. */
function originalPositions(
  { original_max_position_embeddings: inside }: { original_max_position_embeddings?: number | undefined },
  { fields, fail }: { fields: ModelFields; fail: Fail },
): number {
  const { original_max_position_embeddings: outside, max_position_embeddings: all } = fields;
  const original = inside ?? outside ?? all;
  if (outside != null && outside !== original) {
    fail(`original_max_position_embeddings is both ${original} and ${outside}; keep the right one`);
  }
  return original;
}

/** The factor that a file gives, or that follows from its other fields: 0.1 mscale ln(factor) + 1 (YaRN, section 3.4). */
function yarnAttentionFactor(
  { factor, attention_factor, mscale, mscale_all_dim }: Extract<ScalingFields, { rope_type: "yarn" }>,
): number {
  const magnitude = (scale: number): number => 0.1 * scale * Math.log(factor) + 1;
  if (attention_factor !== undefined) return attention_factor;
  return mscale && mscale_all_dim ? magnitude(mscale) / magnitude(mscale_all_dim) : magnitude(1);
}

/** A scaling in Hugging Face's form. */
export function ropeScalingToJson({ kind, ...fields }: RopeScaling): Record<string, unknown> {
  return { rope_type: kind, ...toSnakeCase(fields) };
}
