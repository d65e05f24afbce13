/**
 * Many texts at once by depth-wise batching: a program adds requests and reads what comes of them.
 *
 *   using engine = new BatchEngine(device, { config, weights, ... });
 *   engine.add({ prompt, count: 100, sampling });
 *   engine.close();
 *   for await (const event of engine.events()) ...
 *
 * A request's prompt and settings alone decide its text, whatever else runs.
 */
import { setImmediate } from "node:timers";
import type { GpuDevice } from "../../gpu/device.ts";
import { triedReadbackMode } from "../../gpu/readback.ts";
import { NO_TOKEN } from "../../gpu/kernels/sample.ts";
import { damagedLogits, type DecodedToken } from "../slot_sampler.ts";
import { Admission, type TextProgress } from "./admission.ts";
import type { BatchEvent, BatchStatistics } from "./batch_events.ts";
import { BatchDevice, type BatchShape, type DrawnToken, type TickReport } from "./batch_device.ts";
import { type BatchRequest, checkRequest } from "./batch_request.ts";

/** Ticks between two looks of the host, in which an ended text's slot stays empty: few where looking costs little. */
export async function ticksPerRead(device: GpuDevice): Promise<number> {
  return await triedReadbackMode(device) === "awaited" ? 16 : 8;
}

/** A text to generate. */
interface Request extends BatchRequest {
  readonly id: number;
  /** Its tokens so far, which it draws again if it has to begin anew. */
  readonly delivered: DecodedToken[];
}

/** A request in a slot. */
interface LiveText {
  readonly request: Request;
  /** Tokens drawn since it was put there. */
  drawn: number;
}

export class BatchEngine {
  readonly #shape: BatchShape;
  readonly #device: BatchDevice;
  readonly #admission: Admission;
  readonly #waiting: Request[] = [];
  /** By slot, in the order in which they came. */
  readonly #live = new Map<number, LiveText>();
  readonly #freeSlots: number[];
  readonly #pending: BatchEvent[] = [];
  #report: TickReport;
  #nextId = 0;
  #isClosed = false;
  #wake: (() => void) | null = null;
  #running: Promise<unknown> | null = null;
  #isDisposed = false;
  readonly #totals = { blockRuns: 0, blockRows: 0, tokens: 0, depths: 0, begun: 0, restarts: 0 };
  /** After a text had to begin anew, no other one begins before one has ended. */
  #isHeld = false;
  /** Whether a text has been taken out since the pages were counted. */
  #hasStopped = false;

  /** @throws ConfigError, MemoryError: see `allocatePageStore`. */
  constructor(device: GpuDevice, shape: BatchShape) {
    this.#shape = shape;
    this.#device = new BatchDevice(device, shape);
    this.#freeSlots = Array.from({ length: shape.slots }, (_, slot) => slot);
    this.#admission = new Admission(this.#device.batch);
    const { bankPages } = this.#device.batch.store;
    const none = { entering: 0, recurring: 0, leaving: 0 };
    this.#report = { tokens: [], freePages: bankPages, rowsNow: none, rows: none, runs: none, stalled: none };
  }

  /**
   * Puts a request in line and returns its number.
   *
   * @throws ConfigError, RangeError: see `checkRequest`; TypeError after `close`.
   */
  add(request: BatchRequest): number {
    if (this.#isClosed) throw new TypeError("Cannot add a request: the engine is closed");
    checkRequest(request, this.#shape);
    const id = this.#nextId++;
    this.#waiting.push({ ...request, id, delivered: [] });
    this.#wake?.();
    return id;
  }

  /** Takes a request back, wherever it is; one that has finished stays so. */
  cancel(id: number): void {
    const slot = this.#slotOf(id);
    if (slot !== null) this.#stop(slot);
    else {
      const place = this.#waiting.findIndex((request) => request.id === id);
      if (place < 0) return;
      this.#waiting.splice(place, 1);
    }
    this.#pending.push({ kind: "finished", request: id, reason: "cancelled" });
    this.#wake?.();
  }

  /** Takes no more requests: `events` ends when those that it has are done. */
  close(): void {
    this.#isClosed = true;
    this.#wake?.();
  }

  /**
   * What happens, in the order in which it does; the engine works while this is read. A text's tokens come in their
   * order and then its end.
   *
   * @throws GpuError when the device fails.
   */
  async *events(): AsyncGenerator<BatchEvent> {
    for (;;) {
      yield* await this.advance();
      if (this.#isDisposed) return;
      if (this.#live.size + this.#waiting.length + this.#pending.length > 0) continue;
      if (this.#isClosed) return;
      await new Promise<void>((resolve) => this.#wake = resolve);
      this.#wake = null;
    }
  }

  /**
   * Lets texts into empty slots, runs some ticks, and returns what happened since the last time; nothing where there is
   * nothing to do. What `events` does again and again.
   *
   * @throws GpuError when the device fails; TypeError while it is at it already.
   */
  async advance(): Promise<BatchEvent[]> {
    if (this.#running) throw new TypeError("Cannot advance twice at a time: read the events in one place");
    if (this.#isDisposed) return [];
    try {
      const events = this.#advance();
      this.#running = events;
      return await events;
    } finally {
      this.#running = null;
    }
  }

  async #advance(): Promise<BatchEvent[]> {
    if (this.#hasStopped) {
      this.#hasStopped = false;
      this.#report = { ...this.#report, freePages: await this.#device.freePages() };
    }
    this.#admit();
    if (this.#live.size > 0) {
      this.#take(await this.#device.run());
      // Reading back blocks the event loop: let signals and other work through.
      await new Promise((resolve) => setImmediate(resolve));
    }
    return this.#pending.splice(0);
  }

  /** How it has gone so far. */
  get statistics(): BatchStatistics {
    const { freePages } = this.#report;
    const { blockRuns, blockRows } = this.#totals;
    const allPages = sum(this.#device.batch.store.bankPages);
    return {
      ...this.#totals,
      occupancy: blockRuns === 0 ? 0 : blockRows / (blockRuns * this.#shape.rows),
      pages: allPages - sum(freePages),
      allPages,
      live: this.#live.size,
      stalled: this.#stalled,
      waiting: this.#waiting.length,
    };
  }

  /**
   * Sends every token to one depth, whatever the router says; 0 leaves the choice to the router again. To measure with.
   *
   * @throws ConfigError for a model without token choice, RangeError for a depth that it does not have.
   */
  forceDepth(depth: number): void {
    this.#device.forceDepth(depth);
  }

  /** The batch's buffers and programs, to measure them. */
  get device(): BatchDevice {
    return this.#device;
  }

  /** Frees everything, after the ticks that are running; texts that are not done end without an event. */
  [Symbol.dispose](): void {
    this.#isDisposed = this.#isClosed = true;
    this.#wake?.();
    const free = (): void => this.#device.destroy();
    if (this.#running) this.#running.then(free, free);
    else free();
  }

  /** Puts texts into empty slots while there is room for them. */
  #admit(): void {
    if (this.#waiting.length === 0 || this.#freeSlots.length === 0) return;
    if (this.#live.size > 0 && (this.#isHeld || this.#stalled > 0)) return;
    const hasRoom = this.#admission.room([...this.#live.values()].map(progressOf), this.#report.freePages);
    while (this.#waiting.length > 0 && this.#freeSlots.length > 0) {
      const live = { request: this.#waiting[0]!, drawn: 0 };
      if (!hasRoom(progressOf(live)) && this.#live.size > 0) return;
      this.#waiting.shift();
      const slot = this.#freeSlots.shift()!;
      this.#device.prompts.start(slot, live.request);
      this.#totals.begun++;
      this.#live.set(slot, live);
    }
  }

  /** Turns what was drawn into events. */
  #take(report: TickReport): void {
    this.#report = report;
    this.#totals.blockRuns += report.runs.recurring;
    this.#totals.blockRows += report.rows.recurring;
    for (const drawn of report.tokens) this.#draw(drawn);
    const { entering, recurring, leaving } = report.rowsNow;
    if (this.#live.size > 0 && entering + recurring + leaving === 0) this.#restartYoungest();
  }

  #draw({ slot, id, logProbability, steps }: DrawnToken): void {
    const live = this.#live.get(slot);
    if (!live) return; // cancelled while the ticks ran
    const { request: { id: name, delivered, count } } = live;
    if (id === NO_TOKEN) {
      this.#leave(slot);
      this.#pending.push({ kind: "error", request: name, error: damagedLogits(this.#shape.kvDtype) });
      return;
    }
    const token = { id, logProbability, depth: depthOf(this.#shape, steps) };
    const isEnd = this.#shape.endTokens.includes(id);
    const place = live.drawn++;
    if (place < delivered.length) {
      if (delivered[place]!.id !== id) throw new Error(`Request ${name} did not repeat its token ${place}`);
    } else if (!isEnd) {
      delivered.push(token);
      this.#totals.tokens++;
      this.#totals.depths += token.depth;
      this.#pending.push({ kind: "token", request: name, token });
    }
    if (!isEnd && live.drawn < count) return;
    this.#leave(slot);
    this.#admission.ended({ drawn: live.drawn, count });
    this.#pending.push({ kind: "finished", request: name, reason: isEnd ? "end" : "length" });
  }

  /** All texts wait for pages: the one that came last gives up its own and waits in line again. */
  #restartYoungest(): void {
    const [slot, { request }] = [...this.#live].at(-1)!;
    this.#stop(slot);
    this.#waiting.unshift(request);
    this.#totals.restarts++;
    this.#isHeld = true;
  }

  /** Takes a text out of its slot before its end. */
  #stop(slot: number): void {
    this.#device.prompts.stop([slot]);
    this.#hasStopped = true;
    this.#leave(slot);
  }

  #leave(slot: number): void {
    this.#live.delete(slot);
    this.#freeSlots.push(slot);
    this.#isHeld = false;
  }

  /** Texts that found no page at the last look. */
  get #stalled(): number {
    const { entering, recurring } = this.#report.stalled;
    return entering + recurring;
  }

  #slotOf(id: number): number | null {
    for (const [slot, { request }] of this.#live) if (request.id === id) return slot;
    return null;
  }
}

function progressOf({ request: { prompt, count, delivered }, drawn }: LiveText): TextProgress {
  return { prompt: prompt.length, count, drawn, least: delivered.length };
}

/** A token's recursion depth: none in a vanilla model, always the same where the block is unrolled. */
function depthOf({ config: { recursion } }: BatchShape, steps: number): number {
  if (!recursion) return 0;
  return recursion.sharing.endsWith("cycle") ? steps : recursion.numRecursions;
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
