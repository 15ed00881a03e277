/**
 * One direction's numbering of the messages between a peer and the coordinator, so that a stream may break and be
 * made again without losing, repeating or reordering any: a message is kept until the other side has acknowledged
 * it, and sent again on the next stream. Heartbeats and what makes or refuses a stream aren't numbered.
 */

/** The number of a message that isn't numbered. */
export const UNNUMBERED = 0;

export interface Channel<M> {
  /** The last number given out. */
  sent: number;
  /** Messages that the other side may lack; the last one's number is `sent`. */
  unacknowledged: M[];
  /** The last number taken from the other side. */
  received: number;
}

export function createChannel<M>(): Channel<M> {
  return { sent: 0, unacknowledged: [], received: 0 };
}

/** Keeps a message and returns its number. */
export function push<M>(channel: Channel<M>, message: M): number {
  channel.unacknowledged.push(message);
  return ++channel.sent;
}

/** What comes in: is it the next one, one that came before, or one whose forerunner is missing? */
export function accept(channel: Channel<unknown>, seq: number): "next" | "repeated" | "gap" {
  if (seq <= channel.received) return "repeated";
  if (seq > channel.received + 1) return "gap";
  channel.received = seq;
  return "next";
}

/** The other side has everything up to `received`. False: it claims more than was ever sent. */
export function acknowledge(channel: Channel<unknown>, received: number): boolean {
  const missing = channel.sent - received;
  if (missing < 0) return false;
  if (missing < channel.unacknowledged.length) {
    channel.unacknowledged.splice(0, channel.unacknowledged.length - missing);
  }
  return true;
}

/** What the other side may lack, with its numbers. */
export function outstanding<M>(channel: Channel<M>): { readonly seq: number; readonly message: M }[] {
  const first = channel.sent - channel.unacknowledged.length + 1;
  return channel.unacknowledged.map((message, index) => ({ seq: first + index, message }));
}
