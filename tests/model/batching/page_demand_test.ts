import { assert, assertEquals, assertLessOrEqual } from "@std/assert";
import { PAGE_ROWS } from "../../../gpu/kernels/cache_pages.ts";
import { batchParts } from "../../../model/batching/batch_parts.ts";
import {
  expectedPages,
  type GrowingText,
  mostPages,
  peakPages,
} from "../../../model/batching/page_demand.ts";
import { createRandom } from "../../support/random.ts";
import { schemes } from "../../support/schemes.ts";

const sum = (values: readonly number[]): number => values.reduce((total, value) => total + value, 0);

/** Most pages in each bank when the texts are run token by token. */
function simulatedPeak(
  model: Parameters<typeof expectedPages>[0],
  texts: readonly GrowingText[],
  banks: number,
): number[] {
  const peak = new Array<number>(banks).fill(0);
  const longest = Math.max(...texts.map(({ remaining }) => remaining));
  for (let drawn = 0; drawn <= longest; drawn++) {
    const now = new Array<number>(banks).fill(0);
    for (const { tokens, remaining } of texts) {
      if (drawn > remaining) continue;
      expectedPages(model, { tokens: tokens + drawn, banks }).forEach((pages, bank) => now[bank]! += pages);
    }
    now.forEach((pages, bank) => peak[bank] = Math.max(peak[bank]!, pages));
  }
  return peak;
}

for (const [name, config] of Object.entries(schemes())) {
  Deno.test(`${name}: pages at the peak are those of texts that grow token by token`, () => {
    const random = createRandom(5);
    const model = { config, parts: batchParts(config) };
    for (const banks of [1, 2, 3]) {
      for (const count of [1, 2, 9, 40]) {
        const texts = Array.from(
          { length: count },
          () => ({ tokens: random.integer(90), remaining: 1 + random.integer(200) }),
        );
        const met = peakPages(model, texts, { banks });
        // Every table's last page counts as half full, and a part of an entry is an entry.
        const tables = mostPages(model, { tokens: 1, banks });
        simulatedPeak(model, texts, banks).forEach((pages, bank) => {
          const most = count * tables[bank]! * (0.5 + 1 / PAGE_ROWS);
          assertLessOrEqual(Math.abs(met[bank]! - pages), most, `${banks} banks, ${count} texts`);
        });
      }
    }
  });

  Deno.test(`${name}: expected pages are at most those of full depth, whatever the banks`, () => {
    const model = { config, parts: batchParts(config) };
    for (const tokens of [0, 1, 15, 16, 17, 100]) {
      const most = mostPages(model, { tokens, banks: 1 });
      const expected = expectedPages(model, { tokens, banks: 1 });
      assert(expected[0]! <= most[0]!);
      for (const banks of [2, 3]) {
        assertEquals(sum(mostPages(model, { tokens, banks })), most[0]);
        assertEquals(sum(expectedPages(model, { tokens, banks })), expected[0]);
      }
    }
  });
}

Deno.test("the peak grows with the depth met", () => {
  const config = Object.values(schemes())[0]!;
  const model = { config, parts: batchParts(config) };
  const texts = [{ tokens: 100, remaining: 60 }, { tokens: 4, remaining: 156 }];
  const [configured] = peakPages(model, texts, { banks: 1 });
  const [deeper] = peakPages(model, texts, { banks: 1, depth: 2 });
  const [none] = peakPages(model, texts, { banks: 1, depth: 0 });
  assertEquals(deeper! - configured!, configured! - none!);
});
