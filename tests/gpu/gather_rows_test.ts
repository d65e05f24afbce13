import { assertEquals } from "@std/assert";
import { blank, gpuTest, run, upload } from "../support/device.ts";
import { assertClose } from "../support/close.ts";
import { createRandom } from "../support/random.ts";
import { recordRows } from "../support/packing.ts";
import { casePacking, rowCases, writtenPart } from "../support/row_cases.ts";
import * as reference from "../reference/gather_rows.ts";
import { gatherRows, gatherRowsBackward } from "../../gpu/kernels/gather_rows.ts";

const manyPlaces = { name: "70,000 rows", count: 70000, maximum: 70000, dim: 4 };

for (const { name, count, maximum, dim } of [...rowCases, manyPlaces]) {
  gpuTest(`gatherRows and its gradient match the reference with ${name}`, async (device) => {
    const random = createRandom(6);
    const stateRows = maximum + 5;
    // Every place but the first, fourth and three at the end.
    const places = Array.from({ length: stateRows }, (_, i) => i).filter((i) => i !== 0 && i !== 3).slice(
      0,
      maximum,
    );
    const packing = casePacking(device, { places, count });
    const x = Float32Array.from(random.normals(stateRows * dim));
    const gradOut = Float32Array.from(random.normals(maximum * dim));
    const out = blank(device, [maximum, dim]);
    const gradX = blank(device, [stateRows, dim], 0.25);
    const [gotOut, gotGradX] = await run(device, (commands) => {
      recordRows(commands, packing.rows);
      gatherRows(commands, { x: upload(device, x, [stateRows, dim]), packing, out });
      gatherRowsBackward(commands, { gradOut: upload(device, gradOut, [maximum, dim]), packing, gradX });
    }, [out, gradX]);
    const indices = places.slice(0, count);
    const wanted = reference.gatherRows({ x: Float64Array.from(x), indices }, { width: dim });
    assertEquals(writtenPart(gotOut!, count * dim), [...wanted]);
    const used = { gradOut: Float64Array.from(gradOut).subarray(0, count * dim), indices };
    const gradient = reference.gatherRowsBackward(used, { rows: stateRows, width: dim });
    // One rounding of the sum with what was there.
    assertClose(gotGradX!, gradient.map((value) => value + 0.25), { relative: 1e-7, label: "gradX" });
  });
}
