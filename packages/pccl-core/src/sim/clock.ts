/** Virtual time: actions run in the order of their times, those of one time in the order in which they were set. */
interface Action {
  readonly atMs: number;
  readonly order: number;
  readonly run: () => void;
}

export class Clock {
  nowMs = 0;
  #order = 0;
  /** A binary heap, the next action first. */
  readonly #heap: Action[] = [];

  after(delayMs: number, run: () => void): void {
    this.at(this.nowMs + delayMs, run);
  }

  at(atMs: number, run: () => void): void {
    const heap = this.#heap;
    heap.push({ atMs: Math.max(atMs, this.nowMs), order: this.#order++, run });
    for (let child = heap.length - 1; child > 0; ) {
      const parent = (child - 1) >> 1;
      if (!this.#swapUnlessOrdered(parent, child)) break;
      child = parent;
    }
  }

  /** Runs the next action; false when there is none. */
  advance(): boolean {
    const heap = this.#heap;
    const next = heap[0];
    const last = heap.pop();
    if (next === undefined || last === undefined) return false;
    if (heap.length > 0) {
      heap[0] = last;
      for (let parent = 0; ; ) {
        const [left, right] = [2 * parent + 1, 2 * parent + 2];
        if (left >= heap.length) break;
        const child = right < heap.length && this.#before(right, left) ? right : left;
        if (!this.#swapUnlessOrdered(parent, child)) break;
        parent = child;
      }
    }
    this.nowMs = next.atMs;
    next.run();
    return true;
  }

  #before(a: number, b: number): boolean {
    const [first, second] = [this.#heap[a] as Action, this.#heap[b] as Action];
    return first.atMs < second.atMs || (first.atMs === second.atMs && first.order < second.order);
  }

  #swapUnlessOrdered(parent: number, child: number): boolean {
    if (!this.#before(child, parent)) return false;
    const heap = this.#heap;
    [heap[parent], heap[child]] = [heap[child] as Action, heap[parent] as Action];
    return true;
  }
}
