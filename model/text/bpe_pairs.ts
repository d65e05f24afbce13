/** Counts of neighbouring tokens while a BPE is learned, and which pair is the most frequent. */

/** Two tokens, one after the other. */
export interface Pair {
  readonly left: number;
  readonly right: number;
  count: number;
  /** Words in which it arose since it was last put into the queue. */
  words: number[];
}

/** A pair in the queue, with its count when it was put there: counts change while it waits. */
export interface Candidate {
  readonly pair: Pair;
  readonly count: number;
  /** Where to look for it. */
  readonly words: readonly number[];
}

/** All pairs of neighbours in the words. */
export class PairCounts {
  /** By left token, then by right token. */
  readonly #pairs: Map<number, Pair>[] = [];
  readonly #queue: Candidate[] = [];
  /** Pairs that arose and are not yet in the queue. */
  #arisen: Pair[] = [];

  /** Counts a pair `by` times more, or less, for the word. */
  add(left: number, right: number, { word, by }: { word: number; by: number }): void {
    const followers = this.#pairs[left] ??= new Map();
    let pair = followers.get(right);
    if (!pair) {
      pair = { left, right, count: 0, words: [] };
      followers.set(right, pair);
    }
    pair.count += by;
    if (by < 0) return;
    if (pair.words.length === 0) this.#arisen.push(pair);
    if (pair.words.at(-1) !== word) pair.words.push(word);
  }

  /** Puts the pairs that arose into the queue. */
  enqueue(): void {
    for (const pair of this.#arisen) {
      if (pair.count > 0) this.#push({ pair, count: pair.count, words: pair.words });
      pair.words = [];
    }
    this.#arisen = [];
  }

  /** Takes out the pair of the highest count, of several the one with the lowest ids; undefined when none is left. */
  takeMost(): Candidate | undefined {
    for (;;) {
      const first = this.#pop();
      if (!first || first.count === first.pair.count) return first;
      this.#push({ ...first, count: first.pair.count });
    }
  }

  #push(candidate: Candidate): void {
    const queue = this.#queue;
    let place = queue.length;
    while (place > 0) {
      const parent = (place - 1) >> 1;
      if (!isBefore(candidate, queue[parent]!)) break;
      queue[place] = queue[parent]!;
      place = parent;
    }
    queue[place] = candidate;
  }

  #pop(): Candidate | undefined {
    const queue = this.#queue;
    const first = queue[0];
    const last = queue.pop();
    if (!last || queue.length === 0) return first;
    let place = 0;
    for (;;) {
      let child = 2 * place + 1;
      if (child + 1 < queue.length && isBefore(queue[child + 1]!, queue[child]!)) child++;
      if (child >= queue.length || !isBefore(queue[child]!, last)) break;
      queue[place] = queue[child]!;
      place = child;
    }
    queue[place] = last;
    return first;
  }
}

function isBefore(a: Candidate, b: Candidate): boolean {
  if (a.count !== b.count) return a.count > b.count;
  return a.pair.left !== b.pair.left ? a.pair.left < b.pair.left : a.pair.right < b.pair.right;
}
