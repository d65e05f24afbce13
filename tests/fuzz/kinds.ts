/** All parsers of input that others may have written. */
import { DAMAGED_FILES, type DamagedKind } from "../support/damage.ts";
import type { FuzzKind } from "./fuzz_kind.ts";
import { openArguments } from "./kinds/arguments.ts";
import { openAuthors } from "./kinds/authors.ts";
import { openChatTemplates } from "./kinds/chat_templates.ts";
import { openHub } from "./kinds/hub.ts";
import { openIds, openMetrics, openTrainConfig, openTuning } from "./kinds/json_files.ts";
import { openModels } from "./kinds/models.ts";
import { openPatterns } from "./kinds/patterns.ts";
import { openDocuments, openPrompts, openResults } from "./kinds/texts.ts";
import { openTrainingState } from "./kinds/training_state.ts";

const models = Object.fromEntries(
  (Object.keys(DAMAGED_FILES) as DamagedKind[]).map((kind) => [kind, () => openModels(kind)]),
);

/** By name. */
export const FUZZ_KINDS: Readonly<Record<string, () => Promise<FuzzKind>>> = {
  ...models,
  authors: openAuthors,
  training_state: openTrainingState,
  prompts: openPrompts,
  results: openResults,
  documents: openDocuments,
  train_config: openTrainConfig,
  ids: openIds,
  tuning: openTuning,
  metrics: openMetrics,
  chat_template: openChatTemplates,
  patterns: openPatterns,
  hub: openHub,
  arguments: openArguments,
};
