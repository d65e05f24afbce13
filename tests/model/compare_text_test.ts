/** A text through two models against the float64 reference, window by window. */
import { assert, assertEquals, assertNotEquals, assertRejects } from "@std/assert";
import type { GpuDevice } from "../../gpu/device.ts";
import { type ComparedWindow, compareText, type LoadedModel } from "../../model/compare_text.ts";
import { comparisonReport } from "../../model/comparison_report.ts";
import { ConfigError, type ModelConfig } from "../../model/config.ts";
import { evaluateText } from "../../model/evaluate_text.ts";
import { fillWeights, planWeights } from "../../model/load_weights.ts";
import { CheckpointError } from "../../model/safetensors.ts";
import { crossEntropy } from "../reference/cross_entropy.ts";
import * as reference from "../reference/divergence.ts";
import {
  randomIds,
  tinyConfig,
  tinyRecursiveConfig,
  tinyRouter,
  tinyTokenRouter,
} from "../reference/tiny_model.ts";
import { forward } from "../reference/transformer.ts";
import type { Model } from "../reference/weights.ts";
import { assertClose } from "../support/close.ts";
import { gpuTest } from "../support/device.ts";
import { roundedModel, uploadModel } from "../support/gpu_model.ts";
import { createRandom } from "../support/random.ts";
