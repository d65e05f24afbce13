import { assertEquals } from "@std/assert";
import { blank, gpuTest, run, upload, uploadIndices } from "../support/device.ts";
import { assertClose } from "../support/close.ts";
import { createRandom } from "../support/random.ts";
import { recordRows } from "../support/packing.ts";
import { caseRows, manyRows, rowCases, writtenPart } from "../support/row_cases.ts";
import * as reference from "../reference/embedding.ts";
import { destroyTensor } from "../../gpu/tensor.ts";
import { embedding, embeddingBackward, groupByToken } from "../../gpu/kernels/embedding.ts";

const vocabSize = 11;
const sameId = { ...manyRows, name: "70,000 rows of one id", vocab: 1 };

Deno.test("groupByToken sorts rows by id and says where each id begins", () => {
  const { order, starts } = groupByToken([3, 0, 3, 1, 0], { vocabSize: 5 });
  assertEquals([...order], [1, 4, 3, 0, 2]);
  assertEquals([...starts], [0, 0, 2, 3, 3]);
  assertEquals(groupByToken([], { vocabSize: 5 }).order.length, 0);
});

for (const rowCase of [...rowCases, manyRows, sameId]) {
  const { name, count, maximum, dim } = rowCase;
  gpuTest(`embedding and its gradient match the reference with ${name}`, async (device) => {
    const random = createRandom(3);
    const used = "vocab" in rowCase ? 1 : vocabSize - 1;
    const ids = Array.from({ length: count }, () => random.integer(used));
    const weight = random.normals(vocabSize * dim);
    const gradOut = random.normals(count * dim);
    const rows = caseRows(device, rowCase);
    const { order, starts } = groupByToken(ids, { vocabSize });
    const idTensor = uploadIndices(device, padded(ids, maximum));
    const out = blank(device, [maximum, dim]);
    const gradWeight = blank(device, [vocabSize, dim], 0.25);
    const [gotOut, gotGradient] = await run(device, (commands) => {
      recordRows(commands, rows);
      embedding(commands, { ids: idTensor, weight: upload(device, weight, [vocabSize, dim]), out }, { rows });
      embeddingBackward(commands, {
        ids: idTensor,
        order: uploadIndices(device, padded(order, maximum)),
        starts: uploadIndices(device, padded(starts, maximum)),
        gradOut: upload(device, padded(gradOut, maximum * dim), [maximum, dim]),
        gradWeight,
      }, { rows });
    }, [out, gradWeight]);
    const wanted = reference.embedding({ ids, weight }, { hiddenSize: dim });
    assertClose(writtenPart(gotOut!, count * dim), wanted, { relative: 1e-7, label: "out" });
    const gradient = reference.embeddingBackward({ ids, gradOut }, { hiddenSize: dim, vocabSize });
    assertClose(gotGradient!, gradient.map((value) => value + 0.25), { relative: 2e-6, label: "gradWeight" });
  });
}

gpuTest(
  "embeddingBackward folds its grid beyond 65,535 workgroups and gives the same bits twice",
  async (device) => {
    const [count, dim] = [33000, 512];
    const ids = Array.from({ length: count }, (_, t) => (t * t) % vocabSize);
    const { order, starts } = groupByToken(ids, { vocabSize });
    const values = createRandom(5).normals(1009);
    const gradOut = Float64Array.from({ length: count * dim }, (_, i) => values[i % values.length]!);
    const rows = caseRows(device, { count, maximum: count });
    const results = [];
    for (let repeat = 0; repeat < 2; repeat++) {
      const gradients = {
        gradOut: upload(device, gradOut, [count, dim]),
        gradWeight: blank(device, [vocabSize, dim], 0),
      };
      const [met] = await run(device, (commands) => {
        const groups = { order: uploadIndices(device, order), starts: uploadIndices(device, starts) };
        embeddingBackward(commands, { ids: uploadIndices(device, ids), ...groups, ...gradients }, { rows });
      }, [gradients.gradWeight]);
      destroyTensor(device, gradients.gradOut);
      results.push(met!);
    }
    const wanted = reference.embeddingBackward({ ids, gradOut }, { hiddenSize: dim, vocabSize });
    assertClose(results[0]!, wanted, { relative: 2e-6, label: "gradWeight" });
    assertEquals(results[0], results[1]);
  },
);

/** Values with zeros up to a length, for the rows that are not in use. */
function padded(values: ArrayLike<number>, length: number): number[] {
  return Array.from({ length }, (_, i) => values[i] ?? 0);
}
