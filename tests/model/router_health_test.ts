/** Router health by hand-made numbers: what each name means. */
import { assertAlmostEquals, assertEquals } from "@std/assert";
import { keptTokens } from "../../model/config.ts";
import { collapsedDepth, CollapseWatch, depthFractions, loadOf } from "../../model/router_health.ts";
import { tinyRouter } from "../reference/tiny_model.ts";

Deno.test("depthFractions turns tokens active at each step into fractions of each depth", () => {
  assertEquals(depthFractions([10, 0, 0], { tokens: 10 }), [0, 1, 0, 0]);
  assertEquals(depthFractions([12, 6, 6], { tokens: 24 }), [0.5, 0.25, 0, 0.25]);
  const kept = keptTokens(tinyRouter(), { numRecursions: 3, tokens: 24 });
  for (const part of depthFractions(kept, { tokens: 24 }).slice(1)) assertAlmostEquals(part, 1 / 3);
});

Deno.test("loadOf gives MaxVio 0 and entropy ln R for a balanced load, R - 1 and 0 for a collapsed one", () => {
  const balanced = loadOf([0.25, 0.25, 0.25, 0.25]);
  assertAlmostEquals(balanced.maxViolation, 0);
  assertAlmostEquals(balanced.entropy, Math.log(4));
  assertEquals(loadOf([0, 1, 0, 0]), { maxViolation: 3, entropy: 0 });
  // The paper's loss-free row: MaxVio 1.788 goes with an entropy of about 0.3.
  const skewed = loadOf([2.788 / 3, 0.106 / 3, 0.106 / 3]);
  assertAlmostEquals(skewed.maxViolation, 1.788, 1e-3);
  assertAlmostEquals(skewed.entropy, 0.297, 0.02);
});

Deno.test("collapsedDepth is the depth of more than 95 % of the tokens, where there is a choice", () => {
  assertEquals(collapsedDepth([0, 0.96, 0.04]), 1);
  assertEquals(collapsedDepth([0, 0.95, 0.05]), null);
  assertEquals(collapsedDepth([0, 1]), null);
});

Deno.test("CollapseWatch speaks once, after 100 steps in a row at one depth", () => {
  const watch = new CollapseWatch();
  const collapsed = [0, 0.97, 0.03];
  for (let step = 0; step < 60; step++) assertEquals(watch.see(collapsed), null);
  assertEquals(watch.see([0, 0.02, 0.98]), null);
  for (let step = 0; step < 99; step++) assertEquals(watch.see(collapsed), null);
  assertEquals(watch.see(collapsed), 1);
  for (let step = 0; step < 300; step++) assertEquals(watch.see(collapsed), null);
  assertEquals(watch.see([0, 0.5, 0.5]), null);
  for (let step = 0; step < 99; step++) assertEquals(watch.see(collapsed), null);
  assertEquals(watch.see(collapsed), 1);
});
