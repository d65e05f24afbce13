/**
 * `mor forward` against the golden cases of an independent float64 implementation. Tolerances: 2e-4 of the largest
 * value on logits and losses, 2e-3 of a tensor's norm on gradients; f32 arithmetic on a model this small stays below
 * both.
 */
import { assertEquals } from "@std/assert";
import { fromFileUrl, join } from "@std/path";
import { assertClose } from "../support/close.ts";
import {
  type Golden,
  type GoldenName,
  goldenNames,
  goldenValues,
  readGolden,
  readTensors,
} from "../support/golden.ts";
import { folderTest, morDone } from "../support/program.ts";

const VALUES = 2e-4;
const GRADIENTS = 2e-3;
const LOSSES = ["loss_ce", "loss_auxiliary", "loss_z", "loss_total"];

/** What `mor forward --json` prints. */
interface Report {
  readonly logits: number[][][];
  readonly [loss: `loss_${string}`]: number;
  readonly selected?: number[][][];
  readonly depths?: number[][];
  readonly greedy_ids?: number[];
}

function checkpointOf(name: GoldenName): string {
  return fromFileUrl(new URL(`../../fixtures/golden/${name}`, import.meta.url));
}

/** A tensor of two dimensions as nested lists. */
function rowsOf({ tensors, name }: Golden, tensor: string): number[][] {
  const found = tensors.get(tensor);
  if (!found) throw new RangeError(`Golden case ${name} has no tensor "${tensor}"`);
  const [rows, columns] = found.shape as [number, number];
  return Array.from({ length: rows }, (_, b) => Array.from(found.data.slice(b * columns, (b + 1) * columns)));
}

async function writeIds(path: string, ids: { input_ids: number[][]; targets?: number[][] }): Promise<void> {
  await Deno.writeTextFile(path, JSON.stringify(ids));
}

async function forward(name: GoldenName, args: readonly string[]): Promise<Report> {
  const { stdout } = await morDone(["forward", checkpointOf(name), "--json", ...args]);
  return JSON.parse(stdout);
}

function assertLogits({ logits }: Report, golden: Golden, tensor: string): void {
  const shape = [logits.length, logits[0]!.length, logits[0]![0]!.length];
  assertEquals(shape, golden.tensors.get(tensor)!.shape);
  assertClose(logits.flat(2), goldenValues(golden, tensor), { relative: VALUES, label: tensor });
}

/** Mean cross-entropy of logits, in float64. */
function crossEntropy(logits: readonly (readonly number[])[], targets: readonly number[]): number {
  const losses = logits.map((row, i) => {
    const largest = Math.max(...row);
    const sum = row.reduce((total, logit) => total + Math.exp(logit - largest), 0);
    return largest + Math.log(sum) - row[targets[i]!]!;
  });
  return losses.reduce((total, loss) => total + loss, 0) / losses.length;
}

for (const name of goldenNames) {
  const golden = readGolden(name);
  const numRecursions = golden.config.recursion?.numRecursions;
  const hasRouter = golden.config.router !== null;

  folderTest(`forward --routing top-k gives the logits, losses and gradients of ${name}`, async (folder) => {
    const [ids, gradients] = [join(folder, "ids.json"), join(folder, "gradients.safetensors")];
    await writeIds(ids, { input_ids: rowsOf(golden, "input_ids"), targets: rowsOf(golden, "targets") });
    const report = await forward(name, ["--ids", ids, "--routing", "top-k", "--gradients", gradients]);

    assertLogits(report, golden, "logits");
    const terms = LOSSES.filter((term) => golden.tensors.has(term));
    assertEquals(Object.keys(report).filter((key) => key.startsWith("loss_")), terms);
    for (const term of terms) {
      const met = [report[term as `loss_${string}`]!];
      assertClose(met, goldenValues(golden, term), { relative: VALUES, label: term });
    }
    const selected = hasRouter
      ? Array.from({ length: numRecursions! }, (_, r) => rowsOf(golden, `selected.${r}`))
      : undefined;
    assertEquals(report.selected, selected);

    const written = readTensors(new URL(`file://${gradients}`));
    assertEquals([...written.keys()].sort(), [...golden.weights.keys()].sort());
    for (const [weight, { shape, data }] of written) {
      const label = `grad.${weight}`;
      assertEquals(shape, golden.tensors.get(label)!.shape, label);
      assertClose(data, goldenValues(golden, label), { relative: GRADIENTS, measure: "norm", label });
    }
  });

  folderTest(`forward --routing causal gives the logits and depths of ${name}`, async (folder) => {
    const ids = join(folder, "ids.json");
    const targets = rowsOf(golden, "targets");
    await writeIds(ids, { input_ids: rowsOf(golden, "input_ids"), targets });
    const report = await forward(name, ["--ids", ids, "--routing", "causal"]);

    assertLogits(report, golden, "logits_causal");
    assertEquals(report.depths, numRecursions === undefined ? undefined : rowsOf(golden, "depths"));
    const selected = hasRouter
      ? Array.from(
        { length: numRecursions! },
        (_, r) =>
          rowsOf(golden, "depths").map((row) =>
            row.flatMap((depth, position) => depth > r ? [position] : [])
          ),
      )
      : undefined;
    assertEquals(report.selected, selected);
    const loss = [crossEntropy(report.logits.flat(), targets.flat())];
    assertClose([report.loss_ce!], loss, { relative: VALUES, label: "loss_ce" });
    assertClose([report.loss_total!], loss, { relative: VALUES, label: "loss_total" });
  });

  folderTest(`forward --greedy continues a prompt of ${name} as the golden case does`, async (folder) => {
    const ids = join(folder, "ids.json");
    await writeIds(ids, { input_ids: [Array.from(goldenValues(golden, "greedy_prompt"))] });
    const report = await forward(name, ["--ids", ids, "--routing", "causal", "--greedy", "16"]);

    assertEquals(report.greedy_ids, Array.from(goldenValues(golden, "greedy_ids")));
    assertEquals(Object.keys(report).filter((key) => key.startsWith("loss_")), []);
  });
}
