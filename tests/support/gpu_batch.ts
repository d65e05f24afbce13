/** The texts of a batch on the GPU next to the same ones in the model, and the kernels' work on both. */
import { AssertionError } from "@std/assert";
import { Commands, submit } from "../../gpu/commands.ts";
import type { GpuDevice } from "../../gpu/device.ts";
import { releasePages, reservePages } from "../../gpu/kernels/page_moves.ts";
import type { PageTables } from "../../gpu/kernels/page_tables.ts";
import { SLOT_FIELD_COUNT, type SlotPhase } from "../../gpu/kernels/slot_fields.ts";
import { selectSlots } from "../../gpu/kernels/slot_select.ts";
import { fixedPacking, type Packing } from "../../gpu/packing.ts";
import { type Tensor, writeTensor } from "../../gpu/tensor.ts";
import * as reference from "../reference/slot_select.ts";
import {
  allPages,
  layersOf,
  type PageMoveRow,
  releasedCount,
  reservedCount,
  type TextPages,
} from "../reference/text_pages.ts";
import { run, uploadIndices } from "./device.ts";
import { assertSame, slotData, tallyData } from "./slot_batch.ts";
import { assertPagesOnce, type PageData, pageData, pagesOf, readPages, uploadPages } from "./text_pages.ts";

/** Place in a record of a row that makes no keys and values. */
const NO_TABLE = 0xffffffff;
const UNTOUCHED = 0xdddddddd;
/** Records in the log, which these kernels leave alone. */
const EVENTS = 7;

export class GpuBatch {
  readonly batch: reference.TextBatch;
  readonly #device: GpuDevice;
  readonly #slots: Tensor;
  readonly #pages: PageTables;
  readonly #tallies: Tensor;
  readonly #chosen: Packing;
  readonly #ids: Tensor;
  readonly #appends: Tensor;
  readonly #moved: Packing;
  /** What the tensors that a choice writes should hold. */
  readonly #expected: Record<"records" | "ids" | "appends", Uint32Array<ArrayBuffer>>;
  #data: PageData;

  constructor(device: GpuDevice, { batch, most }: { batch: reference.TextBatch; most: number }) {
    this.#device = device;
    this.batch = batch;
    const { texts, pages, tallies } = batch;
    this.#slots = uploadIndices(device, slotData(texts), [SLOT_FIELD_COUNT, texts.length]);
    this.#pages = uploadPages(device, pages);
    this.#data = pageData(pages);
    this.#tallies = uploadIndices(device, tallyData(tallies, { events: EVENTS }));
    const untouched = (width: number): Uint32Array<ArrayBuffer> =>
      new Uint32Array(most * width).fill(UNTOUCHED);
    this.#expected = { records: untouched(4), ids: untouched(1), appends: untouched(4) };
    this.#chosen = fixedPacking(device, { count: most });
    writeTensor(device, this.#chosen.records, untouched(4));
    this.#ids = uploadIndices(device, untouched(1));
    this.#appends = uploadIndices(device, untouched(4), [most, 4]);
    this.#moved = fixedPacking(device, { count: Math.min(texts.length, 4096) });
  }

  /** Chooses slots, and compares all that the kernel may write and the slots with the model. */
  async select(
    { phase, when, label }: {
      phase: SlotPhase;
      when?: { readonly due: number; readonly full: number };
      label: string;
    },
  ): Promise<reference.ChosenRow[]> {
    const { batch } = this;
    const [slots, pages, tallies, packing] = [this.#slots, this.#pages, this.#tallies, this.#chosen];
    const { rows: { count, maximum: most }, records } = packing;
    writeTensor(this.#device, slots, slotData(batch.texts));
    const more = phase === "recurring" ? this.#appends : this.#ids;
    const met = await run(this.#device, (commands) => {
      selectSlots(commands, { slots, pages, tallies, packing, more }, { phase, ...when });
    }, [
      ...[count, records, this.#ids, this.#appends, tallies, slots],
      ...[pages.counts, pages.free, pages.tables],
    ]);
    const rows = reference.selectSlots(batch, { phase, most, ...when });
    const expected = this.#expected;
    rows.forEach(({ slot, table, entry, makes }, row) => {
      const { position, token } = batch.texts[slot]!;
      expected.records.set([slot, position, table, entry], 4 * row);
      if (phase === "entering") expected.ids[row] = token;
      if (phase === "recurring" && pages.isShared) {
        expected.appends.set([slot, position, makes ? table : NO_TABLE, entry], 4 * row);
      }
    });
    this.#data = pageData(batch.pages, this.#data);
    const wanted = {
      "row count": [rows.length],
      ...expected,
      tallies: tallyData(batch.tallies, { events: EVENTS }),
      slots: slotData(batch.texts),
      ...this.#data,
    };
    Object.entries(wanted).forEach(([name, values], i) => assertSame(met[i]!, values, `${label}: ${name}`));
    return rows;
  }

  /**
   * Moves the pages of some slots, checks that each list has grown or shrunk at its end by as much as the model says, and
   * that all the rest is as it was. Which pages move is the kernel's business.
   */
  async move(
    { kind, rows, label }: { kind: "reserve" | "release"; rows: readonly PageMoveRow[]; label: string },
  ): Promise<void> {
    const { batch: { texts, pages: before } } = this;
    const [pages, packing] = [this.#pages, this.#moved];
    const rowOf = new Map(rows.map((row) => [row.slot, row]));
    writeTensor(this.#device, this.#slots, slotData(texts));
    const records = rows.flatMap(({ slot, tokens, start }) => [slot, tokens, start, UNTOUCHED]);
    writeTensor(this.#device, packing.records, Uint32Array.from(records));
    writeTensor(this.#device, packing.rows.count, Uint32Array.of(rows.length));
    const commands = new Commands(this.#device, label);
    const record = kind === "reserve" ? reservePages : releasePages;
    record(commands, { slots: this.#slots, pages, packing });
    submit(this.#device, [commands]);
    const data = await readPages(this.#device, pages);
    commands.destroy();
    const after = pagesOf(before.shape, data);
    const hasEnded = (slot: number): boolean => kind === "release" && texts[slot]!.phase === "ended";
    assertLists(before, after, {
      countOf: ({ group, slot, count }) => {
        const row = rowOf.get(slot);
        if (!row) return count;
        if (kind === "reserve") return reservedCount(before, { ...row, group });
        return releasedCount(before, { slot, group, hasEnded: hasEnded(slot) });
      },
      label,
    });
    const entries = before.entries.map((counts) =>
      counts.map((count, slot) => rowOf.has(slot) && hasEnded(slot) ? 0 : count)
    );
    assertSame(after.entries.flat(), entries.flat(), `${label}: entries`);
    assertPagesOnce(after, { totals: allPages(before), label });
    // The lists say all that has changed.
    const wanted = pageData(after, { ...this.#data, counts: data.counts });
    assertSame(data.tables, wanted.tables, `${label}: tables`);
    this.batch.pages = after;
    this.#data = data;
  }

  /** Sets the counted entries of a slot, as a pass over a prompt leaves them. */
  writeEntries(slot: number, entries: readonly number[]): void {
    const { slots } = this.batch.pages.shape;
    entries.forEach((count, group) => {
      this.batch.pages.entries[group]![slot] = count;
      this.#data.counts[group * slots + slot] = count;
    });
    writeTensor(this.#device, this.#pages.counts, this.#data.counts);
  }

  /** The tensors' elements as last seen. */
  get data(): PageData {
    return this.#data;
  }
}

/** Checks the lengths of all lists, and that nothing but their ends has changed. */
function assertLists(before: TextPages, after: TextPages, { countOf, label }: {
  countOf: (place: { group: number; slot: number; count: number }) => number;
  label: string;
}): void {
  const { shape } = before;
  for (let group = 0; group < shape.groups; group++) {
    for (const layer of layersOf(shape, group)) {
      for (let slot = 0; slot < shape.slots; slot++) {
        const [old, now] = [before.held[layer]![group]![slot]!, after.held[layer]![group]![slot]!];
        const place = `${label}: layer ${layer}, group ${group}, slot ${slot}`;
        const count = countOf({ group, slot, count: old.length });
        if (now.length !== count) {
          throw new AssertionError(`${place}: ${now.length} pages, expected ${count} after ${old.length}`);
        }
        const kept = Math.min(old.length, count);
        if (old.slice(0, kept).join() !== now.slice(0, kept).join()) {
          throw new AssertionError(`${place}: had pages ${old}, has ${now}`);
        }
      }
    }
  }
}
