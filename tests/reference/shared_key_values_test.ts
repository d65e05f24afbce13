/** Keys and values of a block's layers made by the first step, for all tokens, and read by all steps. */
import { assert, assertEquals, assertNotEquals } from "@std/assert";
import type { ModelConfig, RouterConfig } from "../../model/config.ts";
import { createRandom } from "../support/random.ts";
import type { StackTape } from "./stack.ts";
import { randomIds, randomModel, tinyRecursiveConfig, tinyRouter, tinyTokenRouter } from "./tiny_model.ts";
import { forward, type ModelTape } from "./transformer.ts";
import type { Model } from "./weights.ts";

const recursion = { sharing: "middle_cycle", numRecursions: 3, blockLayers: 2 } as const;
const threshold = { kind: "threshold", threshold: 0 } as const;
const width = 8;
const tokens = 13;

const schemes: Record<string, RouterConfig | null> = {
  "recursive baseline": null,
  "expert choice": tinyRouter({ gating: "replace" }),
  "token choice": tinyTokenRouter({ gating: "replace" }),
};

function modelOf(
  router: RouterConfig | null,
  { kvCache = "shared", seed = 130 }: { kvCache?: ModelConfig["kvCache"]; seed?: number } = {},
): Model {
  return randomModel(tinyRecursiveConfig(recursion, { router, kvCache }), { random: createRandom(seed) });
}

const batch = {
  ids: randomIds(modelOf(null).config, { random: createRandom(131), count: 2 * tokens }),
  sequences: 2,
  selection: threshold,
};

/** The block's runs, step by step. */
function blocksOf({ before, steps, tokenChoice }: ModelTape): StackTape["tapes"][] {
  const routed = [...steps, ...tokenChoice?.steps ?? []].map(({ block }) => block.tapes);
  return routed.length > 0 ? routed : [0, 1, 2].map((r) => before.tapes.slice(1 + 2 * r, 3 + 2 * r));
}

/** State after the recursion, (B * T, C). */
function stateOf({ before, steps, tokenChoice }: ModelTape): Float64Array {
  return tokenChoice?.out ?? steps.at(-1)?.out ?? before.out;
}

/** Rows of tokens with the same depth in both, whose states after the recursion differ. */
function differingRows(a: ModelTape, b: ModelTape): { same: number; differing: number } {
  const [stateA, stateB] = [stateOf(a), stateOf(b)];
  const same = Array.from(a.depths.keys()).filter((row) => a.depths[row] === b.depths[row]);
  const differing = same.filter((row) =>
    stateA.subarray(row * width, (row + 1) * width).some((value, c) => value !== stateB[row * width + c])
  );
  return { same: same.length, differing: differing.length };
}

for (const [name, router] of Object.entries(schemes)) {
  Deno.test(`later steps read the keys and values of the first and add none: ${name}`, () => {
    const [first, ...later] = blocksOf(forward(modelOf(router), batch));
    for (const { attention } of first!) {
      assert(!attention.isBorrowing);
      assertEquals(attention.k.length, batch.ids.length * 4);
    }
    assertEquals(later.length, 2);
    for (const tapes of later) {
      tapes.forEach(({ layer, x, attention }, i) => {
        assertEquals(layer, first![i]!.layer);
        assertEquals(attention.q.length, x.length);
        assert(attention.k === first![i]!.attention.k && attention.v === first![i]!.attention.v);
      });
    }
  });

  Deno.test(`sharing keys and values changes the result, but not in a single step: ${name}`, () => {
    const shared = modelOf(router);
    const own = modelOf(router, { kvCache: "recursion_wise" });
    assertNotEquals(forward(shared, batch).logits, forward(own, batch).logits);
    function single({ config, weights }: Model): Float64Array {
      const numHiddenLayers = 4;
      const once = { ...config, numHiddenLayers, recursion: { ...recursion, numRecursions: 1 } };
      const routerWeight = weights.get("model.router.weight")?.subarray(0, width);
      const entries: [string, Float64Array][] = routerWeight ? [["model.router.weight", routerWeight]] : [];
      return forward({ config: once, weights: new Map([...weights, ...entries]) }, batch).logits;
    }
    assertEquals(single(shared), single(own));
  });

  if (router === null) continue;
  Deno.test(`with shared keys and values the depths of other tokens do not matter: ${name}`, () => {
    // Other routers give other depths; gating replace leaves their gates out of the result.
    for (const kvCache of ["shared", "recursion_wise"] as const) {
      const model = modelOf(router, { kvCache });
      const routers = Array.from(modelOf(router, { seed: 133 }).weights).filter(([name]) =>
        name.includes("router")
      );
      const other = { config: model.config, weights: new Map([...model.weights, ...routers]) };
      const { same, differing } = differingRows(forward(model, batch), forward(other, batch));
      assert(same > 5 && same < 20, `${same} tokens have the same depth`);
      assertEquals(differing > 0, kvCache === "recursion_wise");
    }
  });
}
