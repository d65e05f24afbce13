/**
 * A recursive model's settings in the YAML file that drives the authors' PyTorch code, its fields as in
 * `conf/pretrain/example.yaml` of github raymin0223/mixture_of_recursions at commit 17f305c.
 */
import {
  ConfigError,
  type ExpertChoiceConfig,
  type ModelConfig,
  type RouterConfig,
  type TokenChoiceConfig,
} from "../config.ts";

/** A YAML mapping; a string is always quoted. */
export interface Settings {
  readonly [key: string]: string | number | boolean | null | readonly string[] | Settings;
}

/**
 * Why that code cannot go on with a model, as a sentence's end; null if it can.
 */
export function authorsProblem({ recursion, router }: ModelConfig): string | null {
  if (!recursion) return "it has no recursion; export it as a plain Hugging Face model";
  if (recursion.numRecursions === 1) return "it has a single recursion, that code wants two or more";
  if (!router) return null;
  if (router.random) return "router.random is true, and the random routers of that code have no weights";
  if (router.gating === "replace" || router.gating === "delta") {
    return `router.gating is ${router.gating}, that code has weighted and additive only`;
  }
  return router.kind === "expert_choice"
    ? expertChoiceProblem(router)
    : tokenChoiceProblem(router, recursion.sharing);
}

function expertChoiceProblem(
  { function: kind, alpha, temperature, auxiliary }: ExpertChoiceConfig,
): string | null {
  if (kind === "none" && alpha !== 1) {
    return `router.alpha is ${alpha} with function none, where that code's gate is the bare logit (alpha 1)`;
  }
  if (auxiliary === "none") {
    return "router.auxiliary is none, which that code does not train; " +
      "set it to loss, with auxiliary_coefficient 0 for no effect";
  }
  if (auxiliary === "router" && temperature !== 1) {
    return `router.temperature is ${temperature}, which that code's auxiliary routers do not have; ` +
      "set auxiliary to loss";
  }
  return null;
}

function tokenChoiceProblem({ balancing }: TokenChoiceConfig, sharing: string): string | null {
  if (sharing !== "middle_cycle") {
    return `that code's token choice runs with sharing middle_cycle only, met ${sharing}`;
  }
  return balancing === "none"
    ? "router.balancing is none, which that code does not train; " +
      "set it to loss, with balancing_coefficient 0 for no effect"
    : null;
}

/**
 * The settings of a run that goes on with a model. What training needs besides the model is as in the example file.
 *
 * @throws ConfigError for a model that the code does not have.
 */
export function authorsSettings(
  config: ModelConfig,
  { name, folder }: { name: string; folder: string },
): Settings {
  const problem = authorsProblem(config);
  if (problem) throw new ConfigError(`Cannot export the model for the authors' code: ${problem}`);
  const { recursion, router, kvCache, maxPositionEmbeddings } = config;
  return {
    name,
    ...LOGGING,
    dataset: "fineweb_edu",
    weights: null,
    total_batch_size: 1024,
    per_device_train_batch_size: 8,
    gradient_accumulation_steps: null,
    batch_size_rampup_steps: null,
    max_length: maxPositionEmbeddings,
    add_bos_token: false,
    global_shuffling: false,
    local_shuffling: false,
    tokenizer: "mor",
    model: "smollm",
    model_name_or_path: folder,
    model_config: null,
    attn_implementation: "flash_attention_2",
    // A router comes after the pretrained weights there: with one, the README's lines load all weights.
    use_pretrained_weights: router === null,
    recursive: {
      enable: true,
      base_depth: null,
      num_recursion: recursion!.numRecursions,
      sharing: recursion!.sharing,
      ln_share: true,
      // Each picks, among layers that are equal already, one of every group.
      initialization: recursion!.sharing.endsWith("cycle") ? "lower" : "stepwise",
    },
    kv_sharing: {
      enable: kvCache === "shared",
      base_depth: null,
      num_recursion: null,
      sharing: null,
      update_cache: false,
    },
    relaxation: { enable: false, skip_first_loop: false, method: "lora" },
    mor: routerSettings(router),
    ...TRAINING,
  };
}

const LOGGING: Settings = {
  wandb: false,
  wandb_mode: "offline",
  wandb_entity: null,
  wandb_project: null,
  wandb_run_name: null,
  wandb_run_id: null,
  output_dir: null,
  tensorboard: false,
  tensorboard_dir: null,
  resume_from_checkpoint: false,
  resume_step: null,
};

const TRAINING: Settings = {
  lr_scheduler_type: "warmup_stable_decay",
  lr_scheduler_kwargs: { num_decay_steps: 0, decay_type: "linear" },
  learning_rate: 0.003,
  adam_beta1: 0.9,
  adam_beta2: 0.95,
  weight_decay: 0.1,
  precision: "bf16",
  max_grad_norm: 1,
  num_train_steps: 2384,
  stop_steps: 2384,
  num_warmup_steps: null,
  save_interval: 0.25,
  save_steps: null,
  fixed_save_steps: null,
  save_total_limit: null,
  logging_steps: 100,
  dataloader_num_workers: 0,
  gradient_checkpointing: false,
  deepspeed: "ds_configs/stage2.config",
  evaluation: { enable: false },
};

const EXPERT: Settings = {
  cap_warmup_step: 0,
  router_func: "sigmoid",
  alpha: 0.1,
  sampling: "aux_loss",
  include_first: true,
  coeff: 0.001,
  gating: "weighted",
};

const TOKEN: Settings = {
  bal_warmup_step: 0,
  router_func: "softmax",
  alpha: 1,
  balancing: "loss",
  coeff: 0.1,
  u: 0.001,
  gating: "weighted",
};

function routerSettings(router: RouterConfig | null): Settings {
  if (!router) return { enable: false, type: "expert", capacity: null, rand_router: false };
  const common = {
    enable: true,
    rand_router: false,
    router_type: router.architecture,
    z_loss: router.zCoefficient > 0,
    z_coeff: router.zCoefficient,
    temp: router.temperature,
  };
  const { alpha, gating } = router;
  if (router.kind === "token_choice") {
    const { function: router_func, balancing, balancingCoefficient: coeff, biasUpdateRate: u } = router;
    const token = { ...TOKEN, router_func, alpha, balancing, coeff, u, gating };
    return { ...common, type: "token", capacity: null, expert: EXPERT, token };
  }
  const expert = {
    ...EXPERT,
    router_func: router.function === "none" ? null : router.function,
    alpha,
    sampling: router.auxiliary === "router" ? "aux_router" : "aux_loss",
    coeff: router.auxiliaryCoefficient,
    gating,
  };
  return { ...common, type: "expert", capacity: router.capacities?.join(",") ?? null, expert, token: TOKEN };
}

/** Settings as YAML text. Strings are written as JSON's, which YAML reads alike. */
export function yamlText(settings: Settings, indent = ""): string {
  return Object.entries(settings).map(([key, value]) =>
    isMapping(value)
      ? `${indent}${key}:\n${yamlText(value, indent + "  ")}`
      : `${indent}${key}: ${JSON.stringify(value)}\n`
  ).join("");
}

function isMapping(value: Settings[string]): value is Settings {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
