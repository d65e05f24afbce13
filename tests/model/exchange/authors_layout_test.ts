/** Names of the authors' PyTorch code, held to its own state dicts and logits (`fixtures/export/README.md`). */
import { assertEquals } from "@std/assert";
import { authorsLayout } from "../../../model/exchange/authors_layout.ts";
import { forwardTopK } from "../../../model/forward.ts";
import { parameterTable } from "../../../model/parameters.ts";
import { assertClose } from "../../support/close.ts";
import { gpuTest } from "../../support/device.ts";
import { authorsCases, EXPORT_SEED } from "../../support/export_cases.ts";
import { readTensors } from "../../support/golden.ts";
import { uploadModel } from "../../support/gpu_model.ts";
import { seededNumbers } from "../../support/memory_weights.ts";

const fixtures = new URL("../../../fixtures/export/authors/", import.meta.url);
const recorded = readTensors(new URL("logits.safetensors", fixtures));

for (const [name, config] of Object.entries(authorsCases)) {
  Deno.test(`authorsLayout names every weight as that code's state dict, and what shares memory: ${name}`, () => {
    const lines = Deno.readTextFileSync(new URL(`${name}.txt`, fixtures)).trimEnd().split("\n");
    const layout = authorsLayout(config);
    assertEquals(layout.map(({ names }) => names.join(" ")).sort(), lines.sort());
    assertEquals(layout.map(({ spec }) => spec), parameterTable(config));
  });

  gpuTest(
    `a model's logits are those that the authors' code computed of its export: ${name}`,
    async (device) => {
      const weights = new Map(
        parameterTable(config).map((
          spec,
        ) => [spec.name, Float64Array.from(seededNumbers(spec, EXPORT_SEED))]),
      );
      const model = uploadModel(device, { config, weights });
      const ids = [Array.from(recorded.get("input_ids")!.data)];
      const input = { ids, targets: null };
      const { logits } = await forwardTopK(device, { model, input, gradientsPath: null });
      // Both in f32, summed in different orders.
      assertClose(logits.flat(2), recorded.get(name)!.data, { relative: 1e-5, label: name });
    },
  );
}
