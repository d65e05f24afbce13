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
import { assertFails, folderTest, morDone } from "../support/program.ts";

const VALUES = 2e-4;
const GRADIENTS = 2e-3;
const LOSSES = ["loss_ce", "loss_auxiliary", "loss_balancing", "loss_z", "loss_total"];

/** Tokens that run at once before the rest runs one by one: none, some, and more than there are. */
const SPLITS = ["0", "7", "100"];

/** Tokens of the golden cases' greedy continuations. */
const GREEDY = ["--greedy", "16"];

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

/** Logits by row and position, as a case has them. */
function logitsOf(golden: Golden, tensor: string): number[][][] {
  const { shape, data } = golden.tensors.get(tensor)!;
  const [rows, columns, vocabSize] = shape as [number, number, number];
  const at = (start: number): number[] => Array.from(data.slice(start, start + vocabSize));
  return Array.from(
    { length: rows },
    (_, b) => Array.from({ length: columns }, (_, t) => at((b * columns + t) * vocabSize)),
  );
}

function assertLogits({ logits }: Report, expected: readonly number[][][]): void {
  assertEquals(logits.map((row) => row.length), expected.map((row) => row.length));
  assertClose(logits.flat(2), expected.flat(2), { relative: VALUES, label: "logits" });
}

function assertLosses(report: Report, expected: Readonly<Record<string, number>>): void {
  const terms = Object.keys(report).filter((key) => key.startsWith("loss_"));
  assertEquals(terms, Object.keys(expected));
  for (const term of terms) {
    const met = [report[term as `loss_${string}`]!];
    assertClose(met, [expected[term]!], { relative: VALUES, label: term });
  }
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

/** Positions that each step runs when a token runs as many steps as its depth says. */
function selectedOf(depths: readonly (readonly number[])[], { config }: Golden): number[][][] {
  return Array.from(
    { length: config.recursion!.numRecursions },
    (_, r) => depths.map((row) => row.flatMap((depth, position) => depth > r ? [position] : [])),
  );
}

/** Positions that each step runs in training; undefined without a router. */
function trainedSelection(golden: Golden): number[][][] | undefined {
  const { router, recursion } = golden.config;
  if (!router) return undefined;
  return router.kind === "token_choice"
    ? selectedOf(rowsOf(golden, "depth"), golden)
    : Array.from({ length: recursion!.numRecursions }, (_, r) => rowsOf(golden, `selected.${r}`));
}

/** Steps that each token runs, counted from the positions that each step runs; undefined for a vanilla model. */
function trainedDepths(golden: Golden): number[][] | undefined {
  const { recursion } = golden.config;
  if (!recursion) return undefined;
  const selected = trainedSelection(golden);
  return rowsOf(golden, "input_ids").map((ids, b) =>
    ids.map((_, t) =>
      selected ? selected.filter((rows) => rows[b]!.includes(t)).length : recursion.numRecursions
    )
  );
}

/** What causal routing gives for the prompt of the greedy continuation and then the rows of the batch. */
interface CausalCase {
  readonly ids: { readonly input_ids: number[][]; readonly targets: number[][] };
  readonly logits: number[][][];
  readonly depths: number[][] | undefined;
  readonly loss: number;
}

/** A token's logits do not depend on later ones, so those of the prompt are the first of the row that it begins. */
function causalCase(golden: Golden): CausalCase {
  const prompt = goldenValues(golden, "greedy_prompt").length;
  const withPrompt = <T>(rows: readonly T[][]): T[][] => [rows[0]!.slice(0, prompt), ...rows];
  const [ids, targets] = ["input_ids", "targets"].map((name) => withPrompt(rowsOf(golden, name)));
  const logits = withPrompt(logitsOf(golden, "logits_causal"));
  return {
    ids: { input_ids: ids!, targets: targets! },
    logits,
    depths: golden.config.recursion ? withPrompt(rowsOf(golden, "depths")) : undefined,
    loss: crossEntropy(logits.flat(), targets!.flat()),
  };
}

function assertCausal(report: Report, golden: Golden): void {
  const { logits, depths } = causalCase(golden);
  assertLogits(report, logits);
  assertEquals(report.depths, depths);
  assertEquals(report.selected, golden.config.router ? selectedOf(depths!, golden) : undefined);
  assertEquals(report.greedy_ids, Array.from(goldenValues(golden, "greedy_ids")));
}

/** By causal routing expert choice has no terms of its own; token choice, which always looks back only, has all. */
function causalLosses(
  { loss_balancing: balancing, loss_z: z }: Report,
  { golden: { config: { router } }, loss }: { golden: Golden; loss: number },
): Record<string, number> {
  if (router?.kind !== "token_choice") return { loss_ce: loss, loss_total: loss };
  const total = loss + router.balancingCoefficient * balancing! + router.zCoefficient * z!;
  return { loss_ce: loss, loss_balancing: balancing!, loss_z: z!, loss_total: total };
}

for (const name of goldenNames) {
  const golden = readGolden(name);

  folderTest(`forward --routing top-k gives the logits, losses and gradients of ${name}`, async (folder) => {
    const [ids, gradients] = [join(folder, "ids.json"), join(folder, "gradients.safetensors")];
    await writeIds(ids, { input_ids: rowsOf(golden, "input_ids"), targets: rowsOf(golden, "targets") });
    const report = await forward(name, ["--ids", ids, "--routing", "top-k", "--gradients", gradients]);

    assertLogits(report, logitsOf(golden, "logits"));
    const terms = LOSSES.filter((term) => golden.tensors.has(term));
    assertLosses(report, Object.fromEntries(terms.map((term) => [term, goldenValues(golden, term)[0]!])));
    assertEquals(report.selected, trainedSelection(golden));
    assertEquals(report.depths, trainedDepths(golden));

    const written = readTensors(new URL(`file://${gradients}`));
    assertEquals([...written.keys()].sort(), [...golden.weights.keys()].sort());
    for (const [weight, { shape, data }] of written) {
      const label = `grad.${weight}`;
      assertEquals(shape, golden.tensors.get(label)!.shape, label);
      assertClose(data, goldenValues(golden, label), { relative: GRADIENTS, measure: "norm", label });
    }
  });

  folderTest(
    `forward --routing causal gives the logits, depths and greedy text of ${name}`,
    async (folder) => {
      const ids = join(folder, "ids.json");
      const { ids: rows, loss } = causalCase(golden);
      await writeIds(ids, rows);
      const report = await forward(name, ["--ids", ids, "--routing", "causal", ...GREEDY]);

      assertCausal(report, golden);
      assertLosses(report, causalLosses(report, { golden, loss }));
    },
  );

  folderTest(`forward --cached gives the logits, depths and greedy text of ${name}`, async (folder) => {
    const ids = join(folder, "ids.json");
    const { ids: rows, loss } = causalCase(golden);
    await writeIds(ids, rows);
    for (const split of SPLITS) {
      const report = await forward(name, ["--ids", ids, "--cached", split, ...GREEDY]);
      assertCausal(report, golden);
      assertLosses(report, { loss_ce: loss });
    }
  });
}

folderTest(
  "forward routes by top-k unless told, each of rows of different lengths by itself",
  async (folder) => {
    const ids = join(folder, "ids.json");
    const golden = readGolden("expert_choice");
    const [first, second] = rowsOf(golden, "input_ids") as [number[], number[]];
    const short = first.slice(3, 16);
    await writeIds(ids, { input_ids: [short] });
    const alone = await forward("expert_choice", ["--ids", ids, "--routing", "top-k"]);
    await writeIds(ids, { input_ids: [short, second] });
    const report = await forward("expert_choice", ["--ids", ids]);

    assertLogits(report, [alone.logits[0]!, logitsOf(golden, "logits")[1]!]);
    assertEquals(report.selected!.map((rows) => rows[0]), alone.selected!.map((rows) => rows[0]));
    assertEquals(report.depths, [alone.depths![0]!, trainedDepths(golden)![1]!]);
    assertLosses(report, {});
  },
);

folderTest("forward refuses ids that it cannot use, saying why", async (folder) => {
  const ids = join(folder, "ids.json");
  const gradients = ["--gradients", join(folder, "gradients.safetensors")];
  const ragged = { input_ids: [[1, 2], [3]], targets: [[2, 3], [4]] };
  const short = { input_ids: [[1, 2, 3, 4, 5]] };
  const wrong: readonly (readonly [unknown, readonly string[], readonly string[]])[] = [
    [ragged, gradients, ["rows of input_ids differ in length; --gradients needs equal ones"]],
    [{ ...ragged, targets: [[2], [3, 4]] }, [], ["targets and input_ids differ in shape"]],
    [short, gradients, ['no "targets"', "--gradients needs them"]],
    [{ input_ids: [[1], []] }, [], ["input_ids.1"]],
    [{ input_ids: [[1, 40]] }, ["--cached", "1"], ["id 40 is outside the vocabulary of 40"]],
    [{ input_ids: [[1]], target: [[2]] }, [], ['"target"']],
  ];
  for (const [content, args, parts] of wrong) {
    await Deno.writeTextFile(ids, JSON.stringify(content));
    const command = ["forward", checkpointOf("vanilla"), "--ids", ids, ...args];
    await assertFails(command, { code: 1, parts: [`Cannot use --ids ${ids}`, ...parts] });
  }
  await Deno.writeTextFile(ids, JSON.stringify(short));
  const parts = ["Cannot continue by 125 tokens", "the 5 of the first row", "128 positions", "room for 124"];
  for (const how of [[], ["--cached", "2"]]) {
    const command = ["forward", checkpointOf("vanilla"), "--ids", ids, "--greedy", "125", ...how];
    await assertFails(command, { code: 1, parts });
  }
  await Deno.writeTextFile(ids, JSON.stringify({ input_ids: [new Array(129).fill(1)] }));
  for (
    const how of ["causal", "top-k"].map((routing) => ["--routing", routing]).concat([["--cached", "9"]])
  ) {
    const command = ["forward", checkpointOf("vanilla"), "--ids", ids, ...how];
    await assertFails(command, { code: 1, parts: ["129", "128", "max_position_embeddings"] });
  }
});
